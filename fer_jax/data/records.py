"""What a reader hands over: a source, and from it examples and rejects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
    """One readable face: where it stood, split, canonical emotion, uint8 [H, W, C], an id unique in the source."""

    location: str
    split: str
    emotion: str
    image: np.ndarray
    id: str
    subject: str = ''


@dataclasses.dataclass(frozen=True)
class Reject:
    """One row or file that cannot be used, and why."""

    location: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A source that has been recognised and counted, but not read yet.

    Attributes:
        path: the file or directory that holds the examples (for a directory around one zip: the zip).
        form: how it is laid out, in words.
        class_names: the emotions it can hold, in the order of EMOTIONS.
        image_shape: height, width and channels of every example.
        total: rows or files that `read` turns into an Example or a Reject each.
        skipped: names of what is no example: hidden files, blank lines, files beside the data.
        fingerprint: computes SHA-256 (hex) and size in bytes of what `read` reads.
        read: yields `total` examples and rejects.
    """

    path: Path
    form: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    total: int
    skipped: tuple[str, ...]
    fingerprint: Callable[[], tuple[str, int]]
    read: Callable[[], Iterator[Example | Reject]]
