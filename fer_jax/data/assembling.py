"""Candidates and the shards of their pictures put together: splits with labels and numbers, and what was rejected."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fer_jax
from fer_jax.data import findings
from fer_jax.data.dataset import SPLITS, Dataset, Split
from fer_jax.data.duplicates import MAX_DISTANCE, find_duplicates, find_near_duplicates, summarise
from fer_jax.data.preparing import NO_FACE, corner
from fer_jax.data.records import PLACES, Candidate, Reject, Source
from fer_jax.data.shards import read_shards

_OBLONG = 1.25  # from this ratio of the sides on a square is said to squeeze a picture


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a reader made of a source, before any picture was read.

    Attributes:
        candidates: by split and then in the natural order of their ids, whatever the order of the source.
        ranks: of each candidate, its place among all records of the source.
        rejects: by rank.
    """

    candidates: Sequence[Candidate]
    ranks: Sequence[int]
    rejects: Mapping[int, Reject]

    def key(self, settings: Mapping[str, Any]) -> str:
        """16 hex digits that change with the settings (JSON) and with the candidates, their order included."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for candidate in self.candidates:
            digest.update(repr((candidate.location, candidate.id, candidate.box)).encode('utf-8', 'backslashreplace'))
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Assembly:
    """What became of a source.

    Attributes:
        splits: those that have examples; their images are StoredPictures.
        hashes: by split, perceptual hashes, uint64 [N].
        image_shape: height, width and most channels, or None if the pictures differ in height or width.
        channels: the most of any picture.
        oblong: how many are longer than wide, or wider than long, by more than a quarter.
        faces: counts of pictures by whether a face was found in them: `found`, `kept_without` and `rejected_without`.
        rejects: in the order of the source.
    """

    splits: Mapping[str, Split]
    hashes: Mapping[str, np.ndarray]
    image_shape: tuple[int, int, int] | None
    channels: int
    oblong: int
    faces: Mapping[str, int]
    rejects: Sequence[Reject]


def list_source(source: Source, progress: Callable[[Iterable], Iterable]) -> Listing:
    """Reads a source without its pictures; `progress` wraps the loop."""
    ranked, rejects, ids = [], {}, set()
    for rank, record in enumerate(progress(source.read())):
        if isinstance(record, Reject):
            rejects[rank] = record
            continue
        if record.id in ids or record.split not in SPLITS or record.emotion not in source.class_names:
            raise RuntimeError(f'the reader gave {record.location} the id {record.id!r} in {record.split}')
        ids.add(record.id)
        ranked.append((rank, record))
    if len(ranked) + len(rejects) != source.total:
        raise RuntimeError(f'{len(ranked)} candidates and {len(rejects)} rejected are not {source.total}')
    ranked.sort(key=lambda pair: (SPLITS.index(pair[1].split), _natural(pair[1].id)))
    return Listing([candidate for _, candidate in ranked], [rank for rank, _ in ranked], rejects)


def assemble(source: Source, listing: Listing, folder: Path, counts: Sequence[int]) -> Assembly:
    """Joins the candidates with the shards in `folder`, which hold `counts` of them each."""
    columns, pictures = read_shards(folder, counts)
    rejects = dict(listing.rejects)
    split_of = _cut(source, listing.candidates, columns['reason'])
    rows_of = collections.defaultdict(list)
    for row, (candidate, rank, reason) in enumerate(
        zip(listing.candidates, listing.ranks, columns['reason'].tolist(), strict=True)
    ):
        if reason:
            rejects[rank] = Reject(candidate.location, reason)
        else:
            rows_of[split_of.get(candidate.id, candidate.split)].append(row)
    kept = np.concatenate([np.array(rows_of[name], int) for name in SPLITS])
    shapes = np.unique(columns['shape'][kept], axis=0)
    sizes = np.unique(shapes[:, :2], axis=0)
    channels = int(shapes[:, 2].max(initial=0))
    splits, hashes = {}, {}
    for name in (name for name in SPLITS if rows_of[name]):
        rows = np.array(rows_of[name])
        candidates = [listing.candidates[row] for row in rows]
        splits[name] = Split(
            pictures.select(rows),
            np.array([source.class_names.index(candidate.emotion) for candidate in candidates], np.int32),
            np.array([candidate.id for candidate in candidates], str),
            columns['pixel_hash'][rows],
            _extra(candidates, columns['move'][rows]),
        )
        hashes[name] = columns['perceptual_hash'][rows]
    return Assembly(
        splits,
        hashes,
        (int(sizes[0, 0]), int(sizes[0, 1]), channels) if len(sizes) == 1 else None,
        channels,
        int(_is_oblong(columns['shape'][kept]).sum()),
        {
            'found': int(columns['found'].sum()),
            'kept_without': int((~columns['found'][kept]).sum()),
            'rejected_without': int((columns['reason'] == NO_FACE).sum()),
        },
        [reject for _, reject in sorted(rejects.items())],
    )


def store(
    source: Source,
    assembly: Assembly,
    directory: Path,
    settings: Mapping[str, Any],
    progress: Callable[..., Iterable],
) -> Dataset:
    """Writes the prepared form, rejects.csv, duplicates.csv and overview.png; returns what was written.

    Args:
        settings: for the manifest: what the output depends on, `dataset` and `source` among it.
        progress: wraps a loop; takes also words for it and its length.
    """
    from fer_jax.data import overview, prepared  # matplotlib takes a second to import

    identical = find_duplicates(assembly.splits)
    near = find_near_duplicates(assembly.splits, assembly.hashes)
    names = settings['dataset'], source.class_names
    manifest = {
        **prepared.describe(*names, assembly.splits, assembly.image_shape, assembly.channels),
        **settings,
        'faces': assembly.faces if settings['align'] else None,
        'oblong': assembly.oblong,
        'total': source.total,
        'accepted': sum(map(len, assembly.splits.values())),
        'rejected': len(assembly.rejects),
        'skipped': len(source.skipped),
        'duplicates': summarise(identical),
        'near_duplicates': {'distance': MAX_DISTANCE, **summarise(near)},
        'fer_jax_version': fer_jax.__version__,
    }
    made = Dataset(*names, assembly.splits, manifest)
    prepared.store_prepared(
        made,
        directory,
        lambda items, name: progress(items, f'writing {name}', len(assembly.splits[name])),
        {name: map(split.images.encoded, range(len(split))) for name, split in assembly.splits.items()},
    )
    findings.write_rejects(assembly.rejects, directory / 'rejects.csv')
    findings.write_duplicates({'exact': identical, 'near': near}, source.class_names, directory / 'duplicates.csv')
    overview.draw_overview(made, directory / 'overview.png', identical, near)
    return made


def _is_oblong(shapes: np.ndarray) -> np.ndarray:
    sides = shapes[:, :2]
    return sides.max(1) > _OBLONG * sides.min(1)


def _cut(source: Source, candidates: Sequence[Candidate], reasons: np.ndarray) -> Mapping[str, str]:
    """By id, the splits of those whose split is decided only now."""
    if source.cut is None:
        return {}
    there = (candidate for candidate, reason in zip(candidates, reasons, strict=True) if not reason)
    return source.cut(
        (candidate.id, candidate.emotion, candidate.subject) for candidate in there if candidate.split == 'train'
    )


def _extra(candidates: Sequence[Candidate], moves: np.ndarray) -> dict[str, np.ndarray]:
    extra = {'subject': np.array([candidate.subject for candidate in candidates], str)}
    if any(candidate.sequence for candidate in candidates):
        extra['sequence'] = np.array([candidate.sequence for candidate in candidates], str)
    for name in candidates[0].numbers:
        extra[name] = np.stack([candidate.numbers[name] for candidate in candidates])
        if name in PLACES:
            extra[name] = _moved(extra[name], candidates, moves)
    return extra


def _moved(places: np.ndarray, candidates: Sequence[Candidate], moves: np.ndarray) -> np.ndarray:
    """Places [N, P, 2] in whole pictures, in the pixels of what is stored of them; `moves` as in shards."""
    corners = np.array([corner(candidate.box) if candidate.box else (0, 0) for candidate in candidates])
    moved = (places - corners[:, None]) @ moves[:, :, :2].swapaxes(1, 2) + moves[:, None, :, 2]
    return moved.astype(places.dtype)


def _natural(identity: str) -> tuple:
    """Sorts Training_9 before Training_10; compares digits as text, since ids may have thousands of them."""
    words = re.split('([0-9]+)', identity)
    numbers = (word.lstrip('0') for word in words[1::2])
    return tuple(zip(words[::2], [*((len(word), word) for word in numbers), (0, '')], strict=True)), identity
