"""Makes the images of a plan (`fer_jax.data.derived`) and writes them, all at work at once, and goes on after a kill.

While the device makes images, the next ones are read and the last ones are encoded on all cores. What is written is
noted chunk by chunk with its hashes, and made anew where the two disagree. Imports no JAX: the workers need none.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_jax.data.derived import Part, picture_path
from fer_jax.data.workers import in_order, usable_cores

_TOGETHER = 512  # images that are read, made and encoded at a time


def derive_images(
    parts: Sequence[Part],
    images_NHWC: np.ndarray,
    make: Callable[[Part, int, np.ndarray], np.ndarray],
    folder: Path,
    words: str,
) -> dict[str, list[str]]:
    """Makes every part's images as PNG files below `folder`, but those that an earlier call has made there.

    Args:
        images_NHWC: uint8, of the training split: an array, or what reads when it is indexed.
        make: from a part, the number of its first image here, and uint8 [N, H, W, C], to the new images; a pure
            function of these.
        words: for the progress bar.

    Returns:
        By part, the SHA-256 of every file.
    """
    chunks = [(part, start) for part in parts for start in range(0, len(part.rows), _TOGETHER)]
    digests = {(part.name, start): _written(folder, part.name, start) for part, start in chunks}
    left = [(part, start) for part, start in chunks if not digests[part.name, start]]

    def read() -> Iterator[tuple]:
        for part, start in left:
            yield part, start, images_NHWC[part.rows[start : start + _TOGETHER]]

    def made(batches: Iterable[tuple]) -> Iterator[tuple]:
        for part, start, batch in batches:
            yield folder, part.name, start, make(part, start, batch)

    total, size = sum(len(part.rows) for part in parts), sum(len(found) for found in digests.values())
    bar = tqdm(
        total=total,
        initial=size,
        desc=words,
        unit='image',
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    )
    with bar, contextlib.closing(_ahead(made(_ahead(read())))) as jobs:
        for (part, start), found in zip(
            left, in_order(write_chunk, jobs, min(usable_cores(), max(len(left), 1))), strict=True
        ):
            digests[part.name, start] = found
            bar.update(len(found))
    by_part: dict[str, list[str]] = {part.name: [] for part in parts}
    for (name, _), found in digests.items():
        by_part[name] += found
    return by_part


def _ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The items, each computed in a thread while the one before it is in use."""
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def write_chunk(folder: Path, part: str, start: int, images_NHWC: np.ndarray) -> list[str]:
    """Writes images as PNG files, each whole or not at all, then notes their SHA-256, which it returns."""
    (folder / 'images' / part).mkdir(parents=True, exist_ok=True)
    digests = []
    for number, image in enumerate(images_NHWC, start):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, 'png')
        digests.append(hashlib.sha256(buffer.getvalue()).hexdigest())
        _write(folder / picture_path(part, number), buffer.getvalue())
    note = _note(folder, part, start)
    note.parent.mkdir(exist_ok=True)
    _write(note, json.dumps(digests).encode())
    return digests


def _written(folder: Path, part: str, start: int) -> list[str]:
    """The digests of a chunk that is written as its note says; [] where it is to be made."""
    try:
        digests = json.loads(_note(folder, part, start).read_bytes())
        for number, digest in enumerate(digests, start):
            if hashlib.sha256((folder / picture_path(part, number)).read_bytes()).hexdigest() != digest:
                return []
    except (OSError, ValueError):
        return []
    return digests


def _note(folder: Path, part: str, start: int) -> Path:
    return folder / 'notes' / f'{part}_{start:06d}.json'


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + '.partial')
    aside.write_bytes(content)
    os.replace(aside, path)
