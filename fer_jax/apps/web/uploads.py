"""Uploads: read into memory under limits, told by content, made pixels. Nothing of them is written to disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from fer_jax.apps.web.answers import Limits, Refusal
from fer_jax.data.files import printable
from fer_jax.data.pixels import FORMATS, NotAPicture, TooManyPixels, decode_picture

WANTED = f'a picture ({", ".join("PNM" if name == "PPM" else name for name in FORMATS)}) is wanted'
_UNDAMAGED = 'an undamaged picture is wanted'
_HOW = 'send the picture as the body, or as the one file of a form (multipart/form-data)'
_FORM_BYTES = 16_384  # what a form may add to its file
_NAME_LETTERS = 200
_DRAIN_SECONDS = 2.0
_BEGINNINGS = {
    b'%PDF': 'a PDF document',
    b'PK\x03\x04': 'a zip archive or an office document',
    b'\x1f\x8b': 'a gzip archive',
    b'\x1aE\xdf\xa3': 'a Matroska or WebM film',
    b'\x7fELF': 'a program',
    b'MZ': 'a program',
}
_PICTURES = (b'\x89PNG', b'\xff\xd8\xff', b'GIF8', b'BM', b'II*\0', b'MM\0*', b'RIFF', b'P4', b'P5', b'P6')
_BRANDS = {b'heic': 'HEIC', b'heix': 'HEIC', b'mif1': 'HEIF', b'avif': 'AVIF'}


class Body:
    """A request's body, read once, in memory."""

    def __init__(self, receive: Receive):
        self._receive, self._more = receive, True

    async def read(self, most: int) -> bytes:
        """All of it.

        Raises:
            Refusal: if it has more bytes than `most`.
            ClientDisconnect: if the client has gone.
        """
        data = bytearray()
        async for chunk in self._chunks():
            if len(data) + len(chunk) > most:
                raise too_large(most)
            data += chunk
        return bytes(data)

    async def drain(self, most: int) -> None:
        """Takes what is still coming, up to `most` bytes and for two seconds, and forgets it.

        A client that is still sending when the server closes the connection may never read why it was refused.
        """
        taken = 0
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for chunk in self._chunks():
                    taken += len(chunk)
                    if taken > most:
                        return

    async def _chunks(self) -> AsyncIterator[bytes]:
        while self._more:
            message = await self._receive()
            if message['type'] == 'http.disconnect':
                self._more = False
                raise ClientDisconnect
            self._more = message.get('more_body', False)
            yield message.get('body', b'')


async def read_upload(request: Request, body: Body, limits: Limits) -> tuple[str, bytes]:
    """The upload's name ('' where it has none; printable, without folders) and its bytes.

    Raises:
        Refusal: if it is too large, or no form as it should be.
        ClientDisconnect: if the client has gone.
    """
    kind, options = parse_options_header(request.headers.get('content-type', ''))
    form = kind.lower() == b'multipart/form-data'
    most = limits.size + _FORM_BYTES if form else limits.size
    declared = request.headers.get('content-length', '')
    if declared.isdecimal() and int(declared) > most:
        raise too_large(limits.size)
    data = await body.read(most)
    name = ''
    if form:
        name, data = _file_of(data, options.get(b'boundary', b''))
    if len(data) > limits.size:
        raise too_large(limits.size)
    if not data:
        raise Refusal(400, 'nothing was uploaded', _HOW)
    name = printable(name.replace('\\', '/').rsplit('/', 1)[-1])
    return name[:_NAME_LETTERS], data


def to_pixels(data: bytes, limits: Limits) -> np.ndarray:
    """The picture as `fer_jax.data.pixels.decode_picture` gives it; not for threads.

    Raises:
        Refusal: if it is none, is damaged or has too many pixels.
    """
    try:
        return decode_picture(data, limits.pixels)
    except NotAPicture:
        if data.startswith(_PICTURES):
            raise Refusal(422, 'the picture is damaged from its first bytes on', _UNDAMAGED) from None
        raise Refusal(415, f'this is {_guess(data)}', WANTED) from None
    except TooManyPixels:
        raise Refusal(
            413, f'the picture has more than {limits.pixels:,} pixels', f'up to {limits.pixels:,} are read'
        ) from None
    except ValueError as error:
        raise Refusal(422, printable(str(error)), _UNDAMAGED) from None


def too_large(most: int) -> Refusal:
    """What is said of an upload of more than so many bytes."""
    return Refusal(413, f'the upload has more than {most:,} bytes', f'up to {most:,} are read')


def _guess(data: bytes) -> str:
    """What bytes that are no picture seem to be."""
    text = data[:1024].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if b'<svg' in text:
        return 'SVG, a drawing that can hold programs'
    if text.startswith((b'<!doctype html', b'<html')) or b'<script' in text:
        return 'a page of HTML'
    if data[4:8] == b'ftyp':
        brand = _BRANDS.get(data[8:12])
        return f'{brand}, which is not read here (save it as JPEG)' if brand else 'a film'
    for beginning, what in _BEGINNINGS.items():
        if data.startswith(beginning):
            return what
    return 'no picture'


def _file_of(body: bytes, boundary: bytes) -> tuple[str, bytes]:
    """Name and bytes of the one file in a form."""
    reader = _FormReader()
    try:
        parser = MultipartParser(boundary, reader.callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Refusal(400, f'the form cannot be read: {printable(str(error))}', _HOW) from None
    if not boundary or not reader.ended:
        raise Refusal(400, 'the form has no end', _HOW)
    if len(reader.files) != 1:
        raise Refusal(400, f'the form has {len(reader.files) or "no"} files', _HOW)
    (file,) = reader.files
    return file


class _FormReader:
    """Collects a form's files out of python_multipart's events; other fields are passed over."""

    def __init__(self):
        self.files: list[tuple[str, bytes]] = []
        self.ended = False
        self._field, self._value, self._disposition = bytearray(), bytearray(), b''
        self._name: str | None = None
        self._data = bytearray()
        add = lambda buffer: lambda data, start, end: buffer.extend(data[start:end])
        self.callbacks: Any = {
            'on_part_begin': self._begin,
            'on_header_field': add(self._field),
            'on_header_value': add(self._value),
            'on_header_end': self._header,
            'on_headers_finished': self._headers,
            'on_part_data': add(self._data),
            'on_part_end': self._end,
            'on_end': self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._name = b'', None
        self._data.clear()

    def _header(self) -> None:
        if self._field.lower() == b'content-disposition':
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b'filename' in options:
            self._name = options[b'filename'].decode('utf-8', 'replace')

    def _end(self) -> None:
        if self._name is not None:
            self.files.append((self._name, bytes(self._data)))

    def _finish(self) -> None:
        self.ended = True
