"""The application: the page, /api/predict and what stands beside them. docs/serve.md describes it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fer_jax.apps.recognized import RecognizedFace
from fer_jax.apps.records import face_record
from fer_jax.apps.web import openapi
from fer_jax.apps.web.answers import Limits, Refusal, json_line
from fer_jax.apps.web.desk import Desk
from fer_jax.apps.web.files import load_files
from fer_jax.apps.web.guard import HEADERS, HEADERS_IN_BROWSER, Guard, check_origin, check_token
from fer_jax.apps.web.in_browser import InBrowser
from fer_jax.apps.web.metrics import Metrics
from fer_jax.apps.web.sessions import Sessions
from fer_jax.apps.web.uploads import Body, read_upload, to_pixels
from fer_jax.data.pixels import count_frames
from fer_jax.reports.timeline import class_colours

PREDICT, MODEL, HEALTH, METRICS, DESCRIPTION, DOCS = (
    *('/api/predict', '/api/model', '/healthz', '/metrics'),
    *('/openapi.json', '/docs'),
)
_SESSION = re.compile(r'[A-Za-z0-9_-]{8,64}')


@dataclasses.dataclass(frozen=True)
class Service:
    """What is served.

    recognize: the faces of one picture, uint8 [H, W, C], the surest first; called by one thread at a time. None: the
        page reads pictures itself, with `in_browser`.
    class_names, members: of the networks.
    threshold: under which probability an emotion is unsure.
    smoothing: time constant in seconds of live probabilities.
    token: that a client must know; '' for none.
    """

    recognize: Callable[[np.ndarray], list[RecognizedFace]] | None
    class_names: Sequence[str]
    members: Sequence[str]
    threshold: float = 0.5
    smoothing: float = 0.5
    token: str = ''
    limits: Limits = Limits()
    in_browser: InBrowser | None = None


def make_app(service: Service) -> ASGIApp:
    """The ASGI application."""
    return _Server(service).app


class _Server:
    def __init__(self, service: Service):
        self._service, self._limits = service, service.limits
        self._token = service.token.encode()
        self._desk = Desk(service.limits)
        self._sessions = Sessions(service.smoothing, service.threshold)
        local = service.in_browser
        methods = ['GET', 'POST'] if local else ['POST']
        described = openapi.describe(service.class_names, service.limits, bool(service.token), reads=not local)
        files = load_files() | (local.runtime_files() if local else {})
        models = local.model_files() if local else {}
        files[DOCS] = openapi.to_html(described).encode(), 'text/html; charset=utf-8'
        paths = (PREDICT, MODEL, HEALTH, METRICS, DESCRIPTION, *files, *models)
        self._metrics = Metrics(paths, lambda: self._desk.taken, lambda: len(self._sessions))
        self._described = described
        routes = [
            Route(PREDICT, self._answer(_elsewhere if local else self._predict, private=True), methods=methods),
            Route(MODEL, self._answer(self._model, private=True)),
            Route(METRICS, self._answer(self._tell_metrics, private=True)),
            Route(HEALTH, self._answer(self._health)),
            Route(DESCRIPTION, self._answer(self._describe)),
            *(Route(path, self._answer(_file(*file), private=True)) for path, file in models.items()),
            *(Route(path, self._answer(_file(*file))) for path, file in files.items()),
        ]
        errors = {HTTPException: _http_error, Exception: _failure}
        app = Starlette(routes=routes, exception_handlers=errors, lifespan=self._lifespan)
        self.app = Guard(app, self._metrics, HEADERS_IN_BROWSER if local else HEADERS)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _) -> AsyncIterator[None]:
        yield
        self._desk.close()

    def _answer(
        self, handler: Callable[[Request, Body], Awaitable[Response]], private: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """The handler, only for who may ask if it is private; what it refuses is said."""

        async def answer(request: Request) -> Response:
            body = Body(request.receive)
            try:
                if private:
                    check_origin(request)
                    check_token(request, self._token)
                return await handler(request, body)
            except Refusal as refusal:
                if request.method == 'POST' and 'expect' not in request.headers:
                    await body.drain(2 * self._limits.size)
                return refusal.response
            except ClientDisconnect:
                return Response(status_code=499)  # which no one reads

        return answer

    async def _predict(self, request: Request, body: Body) -> Response:
        session = _session(request)
        place = self._desk.take_place()
        began, read = time.perf_counter(), False
        try:
            async with asyncio.timeout(self._limits.seconds):
                name, data = await read_upload(request, body, self._limits)
                read = True
                content, seconds = await place.work(lambda: self._read(name, data, session))
        except TimeoutError:
            seconds = f'{self._limits.seconds:g} s'
            if read:
                raise self._desk.busy(f'there was no answer within {seconds}') from None
            raise Refusal(
                408, f'the upload did not end within {seconds}', 'send it quicker, or a smaller one'
            ) from None
        finally:
            place.leave()
        whole = time.perf_counter() - began
        timing = f'read;dur={1000 * seconds:.1f}, all;dur={1000 * whole:.1f}'
        return json_line(content, headers={'Server-Timing': timing})

    def _read(self, name: str, data: bytes, session: str) -> tuple[dict[str, Any], float]:
        """In the desk's thread: what is to be said of the upload, and the seconds that it took."""
        began = time.perf_counter()
        image = to_pixels(data, self._limits)
        faces = self._service.recognize(image)
        content: dict[str, Any] = {'kind': 'frame' if session else 'picture', 'source': name}
        content |= {'width': image.shape[1], 'height': image.shape[0]}
        if len(faces) > self._limits.faces:
            faces = faces[: self._limits.faces]
            content['more_faces'] = True
        if session:
            content |= self._sessions.follow(session, faces)
        else:
            content['bytes'] = len(data)
            frames = count_frames(data)
            if frames > 1:
                content['first_of_frames'] = frames
            content['faces'] = [face_record(face) for face in faces]
        seconds = time.perf_counter() - began
        self._metrics.count_work(faces, seconds)
        return content, seconds

    async def _model(self, _: Request, __: Body) -> Response:
        service = self._service
        content = {
            'kind': 'model',
            'class_names': list(service.class_names),
            'colours': class_colours(service.class_names),
            'members': list(service.members),
            'threshold': service.threshold,
            'limits': dataclasses.asdict(service.limits),
        }
        if service.in_browser:
            content['in_browser'] = {**service.in_browser.about(), 'smoothing': service.smoothing}
        return json_line(content)

    async def _health(self, _: Request, __: Body) -> Response:
        if self._desk.stuck:
            raise Refusal(503, 'one picture has been read for far too long', 'start the server anew')
        return json_line({'kind': 'health', 'status': 'ok'})

    async def _tell_metrics(self, _: Request, __: Body) -> Response:
        return Response(self._metrics.text(), media_type=self._metrics.content_type)

    async def _describe(self, _: Request, __: Body) -> Response:
        return Response(openapi.to_json(self._described), media_type='application/json')


async def _elsewhere(_: Request, __: Body) -> Response:
    raise Refusal(404, 'this server reads no pictures', 'its page reads them in the browser, where they stay')


def _session(request: Request) -> str:
    """The name of the live session; '' for a single picture."""
    stray = set(request.query_params) - {'session'}
    if stray:
        raise Refusal(400, f'unknown parameter {sorted(stray)[0][:40]!r}', 'session is the only one')
    session = request.query_params.get('session', '')
    if 'session' in request.query_params and not _SESSION.fullmatch(session):
        raise Refusal(400, 'session is no name', '8 to 64 letters, digits, - and _ are one; make it up at random')
    return session


def _file(content: bytes, kind: str) -> Callable[[Request, Body], Awaitable[Response]]:
    async def answer(_: Request, __: Body) -> Response:
        return Response(content, media_type=kind, headers={'Cache-Control': 'no-cache'})

    return answer


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return Refusal(404, 'there is nothing here', f'/ is the page, {DOCS} describes the API').response
    allowed = (error.headers or {}).get('Allow', '')
    refusal = Refusal(error.status_code, f'{request.method} is not for this path', f'use {allowed}', error.headers)
    return refusal.response


async def _failure(request: Request, error: Exception) -> Response:
    """A fault of the program, or a machine without memory; Starlette raises it again, for the log."""
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return Refusal(503, 'the server is out of memory', 'try a smaller picture', {'Retry-After': '5'}).response
    return Refusal(500, 'the server failed', 'its log says how').response
