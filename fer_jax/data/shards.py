"""Pictures on their way into the prepared form: a few hundred at a time, each such shard committed by rename.

A shard is two files: the encoded pictures one after another, and an index with one row per candidate, rejected ones
included. The index comes last: where it can be read, the shard is whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fer_jax.data.dataset import pixel_hash
from fer_jax.data.duplicates import perceptual_hash
from fer_jax.data.pixels import decode_stored, encode_png

SHARD_FORMAT = 2

_TYPES = {
    'reason': str,  # why it is rejected; '' for an accepted one
    'end': np.int64,  # of its bytes; they begin where those of the row before end
    'shape': np.int32,  # [N, 3]
    'pixel_hash': str,
    'perceptual_hash': np.uint64,
    'found': bool,  # whether a face was found in it, where one was looked for
    'move': np.float64,  # [N, 2, 3], from places in the picture as it was read to those in the stored one
}
_UNMOVED = np.eye(2, 3)


class ShardWriter:
    """Takes pictures and rejects in order; `commit` makes them a shard. A context manager."""

    def __init__(self, folder: Path, number: int):
        self._places = _places(folder, number)
        # An orphan of a killed run may still be writing the same shard.
        self._aside = tuple(path.with_name(f'{path.name}.{os.getpid()}') for path in self._places)
        self._file = self._aside[0].open('wb')
        self._rows: list[tuple] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def add(
        self, image: np.ndarray, jpeg: bytes | None = None, *, found: bool = False, move: np.ndarray = _UNMOVED
    ) -> None:
        """Takes uint8 [H, W, C], to be stored as `jpeg`, which holds just these pixels, or else as PNG."""
        self._file.write(encode_png(image) if jpeg is None else jpeg)
        hashes = pixel_hash(image), perceptual_hash(image)
        self._rows.append(('', self._file.tell(), image.shape, *hashes, found, move))

    def reject(self, reason: str) -> None:
        self._rows.append((reason, self._file.tell(), (0, 0, 0), '', 0, False, _UNMOVED))

    def commit(self) -> None:
        """Raises OSError if the disk is full or fails."""
        columns = zip(*self._rows, strict=True)
        index = {name: np.array(column, _TYPES[name]) for name, column in zip(_TYPES, columns, strict=True)}
        _close(self._file)
        self._aside[0].replace(self._places[0])
        file = self._aside[1].open('wb')
        with file:
            np.savez(file, **index)
            _close(file)
        self._aside[1].replace(self._places[1])


class StoredPictures:
    """Pictures in shards, by number: `Split.images` for what reads few of them."""

    def __init__(self, folder: Path, shard: np.ndarray, start: np.ndarray, end: np.ndarray):
        """`shard`, `start` and `end`, each int [N]: the shard's number and the place of the picture's bytes in it."""
        self._folder = folder
        self._places = shard, start, end

    def __len__(self) -> int:
        return len(self._places[0])

    def __getitem__(self, index: int) -> np.ndarray:
        return decode_stored(self.encoded(index))

    def select(self, rows: np.ndarray) -> StoredPictures:
        """Some of them, by number."""
        return StoredPictures(self._folder, *(values[rows] for values in self._places))

    def encoded(self, index: int) -> bytes:
        """The bytes of a PNG or JPEG file."""
        shard, start, end = (int(values[index]) for values in self._places)
        with _places(self._folder, shard)[0].open('rb') as file:
            file.seek(start)
            return file.read(end - start)


def read_index(folder: Path, number: int, count: int) -> dict[str, np.ndarray] | None:
    """The index of a shard of `count` candidates; None if it is not there, or not whole."""
    try:
        with _places(folder, number)[1].open('rb') as file, np.load(file) as columns:
            index = {name: columns[name] for name in _TYPES}
        whole = len(index['end']) == count and _places(folder, number)[0].stat().st_size == index['end'][-1]
    except Exception:  # a power cut leaves anything; what cannot be read is made again
        return None
    return index if whole else None


def read_shards(folder: Path, counts: Sequence[int]) -> tuple[dict[str, np.ndarray], StoredPictures]:
    """All shards, which hold `counts` candidates each: the columns of their indices, and the pictures, row by row."""
    indices = [read_index(folder, number, count) for number, count in enumerate(counts)]
    columns = {name: np.concatenate([index[name] for index in indices]) for name in _TYPES}
    start = np.concatenate([np.concatenate([[0], index['end'][:-1]]) for index in indices])
    return columns, StoredPictures(folder, np.repeat(np.arange(len(counts)), counts), start, columns['end'])


def _places(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f'{number:06d}.pictures', folder / f'{number:06d}.npz'


def _close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
