"""What is read live: a camera or a screen, of which only the newest picture counts."""

from __future__ import annotations

import contextlib
import re
from typing import Protocol

import numpy as np

from fer_jax.errors import UserError

Area = tuple[int, int, int, int]  # left, top, width, height on the screen, in pixels
_KINDS = ('webcam', 'screen')


class SourceEnded(Exception):
    """The source gives no more pictures; the message says why."""


class Source(Protocol):
    """A camera or a screen that is read; a context.

    name: its kind.
    area: of the screen; None of a camera.
    """

    name: str
    area: Area | None

    def newest(self, seconds: float) -> tuple[int, float, np.ndarray] | None:
        """The newest picture's number, when it came (`time.monotonic`), and it, uint8 [H, W, 3]; none comes twice.

        Numbers rise, by more than one where pictures were left out.

        Returns:
            None if none has come within so many seconds.

        Raises:
            SourceEnded: if none will come.
        """


def is_live(word: str) -> bool:
    """Whether a word names a camera or a screen, and no file: `webcam`, `webcam:…`, `screen`, `screen:…`."""
    return word.partition(':')[0] in _KINDS


def open_source(word: str) -> contextlib.AbstractContextManager[Source]:
    """The camera or screen that a word names.

    Raises:
        UserError: if there is none such, or it cannot be read; the message says what would be right.
    """
    kind, colon, place = word.partition(':')
    if colon and not place:
        raise UserError(f'{word}: nothing follows the colon; {kind} alone is the first')
    if kind == 'webcam':
        from fer_jax.apps.camera import Camera

        return Camera(place)
    from fer_jax.apps.screen import Screen

    return Screen(place)


def numbers(place: str) -> tuple[int, ...]:
    """The whole numbers between commas; none if there is anything else."""
    return tuple(map(int, place.split(','))) if re.fullmatch(r'-?\d+(,-?\d+)*', place) else ()
