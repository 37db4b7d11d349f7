"""What a reader hands over: a source, and from it candidates, whose pictures are not read yet, and rejects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

PLACES = ('landmarks',)  # entries of Candidate.numbers that are places in the picture, [..., 2]


@dataclasses.dataclass(frozen=True, slots=True)
class FilePicture:
    """A picture file: on disk, or the first entry of the zip at `path` that `open_members` calls `member`."""

    path: Path
    member: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class PixelText:
    """Space-separated grey values of a CSV cell, row by row."""

    text: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """One row or file that a reader has recognised; worker processes read its picture, so it can be pickled.

    Attributes:
        location: where it stands, for people: 'train.csv:17' or 'train/angry/1.jpg'.
        split: train, validation or test.
        emotion: name of its class, one of `Source.class_names`.
        id: unique in the source.
        picture: where its pixels are.
        subject: the person, where known.
        sequence: the recording, where known; unique in the data set, not only within the subject.
        box: left, top, width and height of the face in the pixels of the upright picture; cut out first.
        numbers: further values such as valence, arousal, landmarks or votes; the same names, shapes and types
            for every candidate of a source. Those named in PLACES are x and y in the pixels of the upright picture
            and move with what is cut out and aligned; the others are kept as they are.
    """

    location: str
    split: str
    emotion: str
    id: str
    picture: FilePicture | PixelText
    subject: str = ''
    sequence: str = ''
    box: tuple[float, float, float, float] | None = None
    numbers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reject:
    """One row or file that cannot be used, and why."""

    location: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ReaderOptions:
    """What the user asked of a reader; one that does not know an option refuses it with a UserError.

    Attributes:
        classes: 8, 7 or 5 of AffectNet's emotions; 0: all that the source has.
        split: shares of train, validation and test into which the source's training part is cut anew, stratified;
            (): the source's own splits.
        seed: of that cut.
        votes: FER+'s fer2013new.csv.
    """

    classes: int = 0
    split: tuple[float, ...] = ()
    seed: int = 0
    votes: Path | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A source that has been recognised and counted, but not read yet.

    Attributes:
        path: the file or directory that holds the examples (for a directory around one zip: the zip).
        form: how it is laid out, in words.
        class_names: the classes it can hold: the emotions in the order of EMOTIONS, others after them.
        image_shape: height, width and channels that every picture must have; None: any.
        total: rows or files that `read` turns into a Candidate or a Reject each.
        skipped: names of what is no example: hidden files, blank lines, files beside the data.
        fingerprint: computes SHA-256 (hex) and size in bytes of what `read` and the pictures' reading read.
        read: yields `total` candidates and rejects, the same ones whenever it is called.
        cut: from id, class and subject of each training candidate whose picture can be used to the split that it then
            belongs to; None where the candidates' own splits stay.
        remarks: what the user should mind, a line each.
    """

    path: Path
    form: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    total: int
    skipped: tuple[str, ...]
    fingerprint: Callable[[], tuple[str, int]]
    read: Callable[[], Iterator[Candidate | Reject]]
    cut: Callable[[Iterable[tuple[str, str, str]]], Mapping[str, str]] | None = None
    remarks: tuple[str, ...] = ()
