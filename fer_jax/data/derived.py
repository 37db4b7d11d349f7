"""Training images made out of others: which become what, and the CSV that `config.data.extra` reads.

Shape letter: N images that become new ones.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.data.dataset import Split
from fer_jax.errors import UserError

COLUMNS = ('path', 'label', 'source', 'source_label', 'run', 'step', 'sha256')


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Training images that become new ones in one way, in order.

    Attributes:
        name: of the folder that the new ones go to, such as `neutral_to_happiness`.
        rows: int64 [N], which images of the training split.
        source_label, label: the emotion of those and of the new ones.
        run: what makes them: the workdir of a pair; '' for augmented copies.
        steps: int64 [N]: the pair's checkpoint; of copies, how many the image had before.
        available: how many images there were to choose from.
    """

    name: str
    rows: np.ndarray
    source_label: str
    label: str
    run: str
    steps: np.ndarray
    available: int


@dataclasses.dataclass(frozen=True)
class Way:
    """A translator, without what it needs to translate: from one emotion to another, by a checkpoint of a run."""

    source: str
    target: str
    run: str
    step: int


def plan_translations(
    split: Split, class_names: Sequence[str], ways: Sequence[Way], count: int, seed: int
) -> list[Part]:
    """Chooses `count` images to translate, no image twice in the same way.

    They are spread evenly over the ways; one that has too few images gives all it has, and the others share the rest.
    Within a way the images come in the order of `shuffled`, so that fewer of them are the first of more.

    Raises:
        UserError: if there are fewer.
    """
    rows_of = {way.source: shuffled(split, class_names.index(way.source), seed) for way in ways}
    available = [len(rows_of[way.source]) for way in ways]
    if count > sum(available):
        have = ', '.join(f'{way.source} to {way.target} {n:,}' for way, n in zip(ways, available, strict=True))
        raise UserError(
            f'--count={count}: there are {sum(available):,} images to translate ({have}) and none is translated twice '
            'alike; ask for fewer, or give more pairs or emotions'
        )
    return [
        Part(
            f'{way.source}_to_{way.target}',
            rows_of[way.source][:share],
            way.source,
            way.target,
            way.run,
            np.full(share, way.step),
            most,
        )
        for way, share, most in zip(ways, spread(count, available), available, strict=True)
    ]


def plan_copies(split: Split, class_names: Sequence[str], counts: Mapping[str, int], seed: int) -> list[Part]:
    """Chooses as many images of each class as `counts` says, each again only after all of its class.

    Raises:
        UserError: if a class is not there, or has no images.
    """
    parts = []
    for name, count in counts.items():
        rows = shuffled(split, class_names.index(name), seed) if name in class_names else ()
        if not len(rows):
            raise UserError(f'copies of {name} are wanted, and the training split has no image of it')
        order = np.arange(count)
        parts.append(Part(name, rows[order % len(rows)], name, name, '', order // len(rows), len(rows)))
    return parts


def spread(count: int, available: Sequence[int]) -> list[int]:
    """`count` spread as evenly as these allow, which are as many at least; the first get what does not divide."""
    given = [0] * len(available)
    while left := count - sum(given):
        roomy = [place for place, most in enumerate(available) if given[place] < most]
        each = max(left // len(roomy), 1)
        for place in roomy[:left]:
            given[place] += min(each, available[place] - given[place])
    return given


def shuffled(split: Split, label: int, seed: int) -> np.ndarray:
    """The rows of a class in the order of the SHA-256 of seed and id: removing some moves none of the others."""
    rows = np.flatnonzero(split.labels == label)
    draws = [hashlib.sha256(f'{seed}\t{identity}'.encode()).digest() for identity in split.ids[rows]]
    return rows[sorted(range(len(rows)), key=draws.__getitem__)]


def picture_path(part: str, number: int) -> str:
    """Where the picture lies below the CSV's folder."""
    return f'images/{part}/{number:06d}.png'


def write_csv(
    path: str | os.PathLike[str], parts: Sequence[Part], ids: np.ndarray, digests: Mapping[str, Sequence[str]]
) -> None:
    """Writes the CSV of all parts; see `COLUMNS`.

    Args:
        ids: of the training split.
        digests: of each part's pictures, so that other pictures make another file.
    """
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        for part in parts:
            for number, (row, step, digest) in enumerate(zip(part.rows, part.steps, digests[part.name], strict=True)):
                place = picture_path(part.name, number)
                writer.writerow((place, part.label, ids[row], part.source_label, part.run, step, digest[:16]))


def count_labels(path: str | os.PathLike[str]) -> dict[str, int]:
    """How many images of each label a CSV of translations has, labels in alphabetical order.

    Raises:
        UserError: if it is not there, or is not such a file.
    """
    if not os.path.isfile(path):
        raise UserError(f'no file {path}; `translate` writes one')
    try:
        with open(path, newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ())[: len(COLUMNS) - 1] != COLUMNS[:-1]:  # earlier ones have no hash
                raise UserError(f'{path} is not a CSV that `translate` wrote: those begin with {",".join(COLUMNS)}')
            counts = Counter(row['label'] for row in reader)
    except (ValueError, csv.Error) as error:
        raise UserError(f'{path} cannot be read as CSV ({error})') from None
    if not counts:
        raise UserError(f'{path} lists no images')
    return dict(sorted(counts.items()))
