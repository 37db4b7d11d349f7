"""What stands before every answer: headers that tell browsers what the page may do, who may ask, and the counts."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_jax.apps.web.answers import Refusal
from fer_jax.apps.web.metrics import Metrics

HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'no-referrer',
    'Permissions-Policy': 'camera=(self), display-capture=(self), microphone=(), geolocation=(), payment=(), usb=()',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
}


# Where the page reads pictures itself: WebAssembly, and with no other site's content about, memory that threads share.
HEADERS_IN_BROWSER = HEADERS | {
    'Content-Security-Policy': HEADERS['Content-Security-Policy'].replace(
        "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'"
    ),
    'Cross-Origin-Embedder-Policy': 'require-corp',
}


class Guard:
    """Wraps an application: `headers` on every answer, whatever made it, and every answer counted."""

    def __init__(self, app: ASGIApp, metrics: Metrics, headers: Mapping[str, str] = HEADERS):
        self._app, self._metrics, self._headers = app, metrics, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), 499  # nginx's code for a client that has gone

        async def guarded(message: Message) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        finally:
            self._metrics.count(scope['path'], status, time.perf_counter() - began)


def check_token(request: Request, token: bytes) -> None:
    """Refuses who does not know the token (b'': there is none), in the same time whatever they guess."""
    if not token:
        return
    scheme, _, given = request.headers.get('authorization', '').partition(' ')
    right = hmac.compare_digest(given.strip().encode('latin-1', 'replace'), token)
    if scheme.lower() != 'bearer' or not right:
        wrong = 'the token is wrong' if given else 'a token is needed'
        raise Refusal(401, wrong, 'send the header Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'})


def check_origin(request: Request) -> None:
    """Refuses what a page of another site has a browser send: it would spend this machine's time."""
    if request.headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
        raise Refusal(403, 'another site asks', "only this server's own page, or a program, may")
