"""From candidates to shards of encoded pictures: read, checked, cut out, perhaps aligned, hashed, encoded."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.data.files import PictureFiles
from fer_jax.data.pixels import decode_unchanged, parse_pixels
from fer_jax.data.records import Candidate, PixelText
from fer_jax.data.shards import ShardWriter, read_index
from fer_jax.data.workers import DIED, each_alone, in_order

SHARD_SIZE = 256  # candidates; what a kill makes each worker lose
NO_FACE = 'no face found'
CRASHES = 'reading it ends the process that does so: its decoder crashes, or needs more memory than there is'

_ALIGNED_AT_ONCE = 16
_SMALL = 64 * 64  # pixels up to which our PNG is decoded several times faster than a JPEG of the same picture
_MAX_BYTES = 64 << 20
_MOST_PIXELS = 1 << 22  # of what waits to be aligned, hundreds of pictures at a time
_FILES = PictureFiles()  # of this process

Shape = tuple[int, int, int]
Align = Callable[[list[np.ndarray]], list[Any]]


def read_face(candidate: Candidate, image_shape: Shape | None, files: PictureFiles) -> tuple[np.ndarray, bytes | None]:
    """The pixels of a candidate, its box cut out: uint8 [H, W, C], C is 1 for grey.

    Args:
        image_shape: what it must have; None: anything. Grey passes for colour.

    Returns:
        The pixels, and the bytes of the file if it is a JPEG of just these pixels and worth keeping, else None.

    Raises:
        ValueError: if it cannot be used; the message says why.
    """
    picture = candidate.picture
    if isinstance(picture, PixelText):
        image, jpeg = parse_pixels(picture.text, picture.height, picture.width), None
    else:
        data = files.read(picture, _MAX_BYTES)
        image, unchanged = decode_unchanged(data)
        jpeg = data if unchanged and image.shape[0] * image.shape[1] > _SMALL else None
    if candidate.box is not None:
        whole = image.shape
        image = _cut_out(image, candidate.box)
        jpeg = jpeg if image.shape == whole else None
    if image_shape is not None:
        height, width, channels = image_shape
        if image.shape[:2] != (height, width):
            raise ValueError('{1}x{0} pixels instead of {3}x{2}'.format(*image.shape[:2], height, width))
        if image.shape[2] > channels:
            raise ValueError('a colour picture instead of a grey one')
    return image, jpeg


@dataclasses.dataclass(frozen=True)
class Plan:
    """Shards of the candidates, in order: those of which `missing` has the numbers are not in `folder` yet."""

    folder: Path
    shards: Sequence[Sequence[Candidate]]
    missing: Sequence[int]
    was_cut_short: bool  # an earlier run ended within a shard, in whatever way

    @property
    def counts(self) -> list[int]:
        return [len(shard) for shard in self.shards]

    @property
    def done(self) -> int:
        """Candidates whose shards are there."""
        return sum(self.counts) - sum(len(self.shards[number]) for number in self.missing)


def plan_shards(candidates: Sequence[Candidate], folder: Path) -> Plan:
    """Cuts the candidates into shards and looks which of them are in `folder` already."""
    shards = _cut(candidates, SHARD_SIZE)
    missing = [number for number, shard in enumerate(shards) if read_index(folder, number, len(shard)) is None]
    return Plan(folder, shards, missing, any(folder.glob('*.pictures.*')))


def prepare_pictures(
    plan: Plan,
    *,
    image_shape: Shape | None,
    align: Align | None = None,
    keep_missing: bool = True,
    workers: int = 1,
    progress: Callable[[int], Any] = lambda _: None,
) -> None:
    """Makes the missing shards.

    A picture that ends its process is found and rejected. In this process, where one shard is made, that needs a
    second run: an earlier one that was cut short may have been ended by a picture, and so leads to processes.

    Args:
        image_shape: what pictures must have before they are aligned; None: anything.
        align: takes up to 16 images and gives for each an object with `image`, the uint8 [H, W, C] that takes its
            place, `found`, whether there is a face in it, and `move`, float [2, 3], from places in the one to those
            in the other; called in this process.
        keep_missing: what becomes of images without a face: kept as `align` gives them, or rejected.
        workers: how many processes read and encode.
        progress: is called with a number of candidates whenever that many more are done.
    """
    workers = max(1, min(workers, len(plan.missing)))  # a small set is done before the first process is up
    with _FILES:
        if align is None:
            jobs = ((plan.folder, number, plan.shards[number], image_shape) for number in plan.missing)
            made = in_order(make_shard, jobs, workers, _rescue_shard, plan.was_cut_short)
            with contextlib.closing(made) as counts:
                for count in counts:
                    progress(count)
            return
        batches = {number: _cut(plan.shards[number], _ALIGNED_AT_ONCE) for number in plan.missing}
        jobs = ((batch, image_shape) for number in plan.missing for batch in batches[number])
        read = in_order(read_faces, jobs, workers, _rescue_faces, plan.was_cut_short)
        with contextlib.closing(read) as outcomes:
            for number in plan.missing:
                own = itertools.islice(outcomes, len(batches[number]))
                _make_aligned_shard(plan.folder, number, own, align, keep_missing, progress)


def make_shard(
    folder: Path,
    number: int,
    candidates: Sequence[Candidate],
    image_shape: Shape | None,
    crashing: Collection[int] = (),
) -> int:
    """Reads, checks and encodes the pictures of one shard; returns how many candidates that were.

    Args:
        crashing: places among the candidates that are rejected as CRASHES, unread.
    """
    with ShardWriter(folder, number) as shard:
        for place, candidate in enumerate(candidates):
            try:
                if place in crashing:
                    raise ValueError(CRASHES)
                image, jpeg = read_face(candidate, image_shape, _FILES)
            except ValueError as error:
                shard.reject(str(error))
            else:
                shard.add(image, jpeg)
        shard.commit()
    return len(candidates)


def read_faces(candidates: Sequence[Candidate], image_shape: Shape | None) -> list[tuple[np.ndarray, int] | str]:
    """What `made_smaller` gives for each candidate, or the reason why it cannot be used."""
    outcomes = []
    for candidate in candidates:
        try:
            outcomes.append(made_smaller(read_face(candidate, image_shape, _FILES)[0]))
        except ValueError as error:
            outcomes.append(str(error))
    return outcomes


def _rescue_shard(folder: Path, number: int, candidates: Sequence[Candidate], image_shape: Shape | None) -> int:
    """What `make_shard` does, where a picture ended its process."""
    read = each_alone(_try_face, ((candidate, image_shape) for candidate in candidates))
    crashing = [place for place, outcome in enumerate(read) if outcome is DIED]
    (made,) = in_order(make_shard, [(folder, number, candidates, image_shape, crashing)], 1, apart=True)
    return made


def _rescue_faces(candidates: Sequence[Candidate], image_shape: Shape | None) -> list[tuple[np.ndarray, int] | str]:
    """What `read_faces` gives, where a picture ended its process."""
    read = each_alone(read_faces, (([candidate], image_shape) for candidate in candidates))
    return [CRASHES if outcome is DIED else outcome[0] for outcome in read]


def _try_face(candidate: Candidate, image_shape: Shape | None) -> None:
    """For whoever wants to know whether the process survives it."""
    with contextlib.suppress(ValueError):
        read_face(candidate, image_shape, _FILES)


def made_smaller(image: np.ndarray) -> tuple[np.ndarray, int]:
    """A picture of more than 4 megapixels by a whole factor smaller (mean of squares), and that factor; else 1."""
    factor = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _MOST_PIXELS))
    if factor == 1:
        return image, 1
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).reduce(factor)
    return np.asarray(picture).reshape(picture.height, picture.width, -1), factor


def _make_aligned_shard(
    folder: Path,
    number: int,
    batches: Iterable[list[tuple[np.ndarray, int] | str]],
    align: Align,
    keep_missing: bool,
    progress: Callable[[int], Any],
) -> None:
    with ShardWriter(folder, number) as shard:
        for outcomes in batches:
            images = [outcome[0] for outcome in outcomes if not isinstance(outcome, str)]
            faces = iter(align(images) if images else ())
            for outcome in outcomes:
                if isinstance(outcome, str):
                    shard.reject(outcome)
                    continue
                face = next(faces)
                if face.found or keep_missing:
                    shard.add(face.image, found=face.found, move=face.move / (outcome[1], outcome[1], 1))
                else:
                    shard.reject(NO_FACE)
            progress(len(outcomes))
        shard.commit()


def _cut(candidates: Sequence[Candidate], length: int) -> list[Sequence[Candidate]]:
    return [candidates[start : start + length] for start in range(0, len(candidates), length)]


def corner(box: tuple[float, float, float, float]) -> tuple[int, int]:
    """Left and top of what is cut out for a box, in whole pixels of the picture."""
    return round(max(box[0], 0.0)), round(max(box[1], 0.0))


def _cut_out(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The part of the image [H, W, C] within left, top, width, height; what lies outside the image is left out."""
    if not all(map(math.isfinite, box)):
        raise ValueError(f'the face box {box} is not finite')
    height, width, _ = image.shape
    left, top = corner(box)
    right, bottom = round(min(box[0] + box[2], width)), round(min(box[1] + box[3], height))
    if right <= left or bottom <= top:
        shown = ', '.join(f'{value:g}' for value in box)
        raise ValueError(f'the face box ({shown}) lies outside the picture of {width}x{height} pixels')
    return np.ascontiguousarray(image[top:bottom, left:right])
