"""What the server answers: one line of JSON, also where it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from fer_jax.apps.records import SCHEMA


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one server takes.

    size: bytes of an upload.
    pixels: of a picture, as its header says.
    faces: that are read in one picture, the surest.
    seconds: from a request's beginning to its answer, waiting included.
    requests: that are read, wait or are worked on at once.
    """

    size: int = 16_000_000
    pixels: int = 64_000_000
    faces: int = 64
    seconds: float = 20.0
    requests: int = 8


class Refusal(Exception):
    """A request that is not answered as wished.

    Args:
        status: the HTTP code.
        wrong: what is wrong, in words.
        right: what would be right.
        headers: that go with it.
    """

    def __init__(self, status: int, wrong: str, right: str, headers: Mapping[str, str] | None = None):
        super().__init__(f'{wrong}; {right}')
        self.status, self.wrong, self.right, self.headers = status, wrong, right, headers

    @property
    def response(self) -> Response:
        content = {'kind': 'error', 'status': self.status, 'wrong': self.wrong, 'right': self.right}
        return json_line(content, self.status, self.headers)


def json_line(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The content as one line of JSON, with the schema's number, never kept by a cache."""
    text = json.dumps({'schema': SCHEMA, **content}, ensure_ascii=False, allow_nan=False) + '\n'
    headers = {'Cache-Control': 'no-store', **(headers or {})}
    return Response(text.encode(), status, headers, 'application/json')
