"""Images that occur more than once: pixel for pixel or nearly, within a split or across, under one label or several."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from fer_jax.data.dataset import Split

# Bits of 64 in which near duplicates may differ. Of the pairs of different FER2013 images at distances 2, 4, 6 and 8
# (400, 776, 1,143 and 2,439), 60 each were looked at: 0, 0, 11 and 38 showed different photographs. What is found
# up to 4 are brightened, sharpened, watermarked and slightly shifted copies. False pairs grow with the square of
# the number of images, so of AffectNet's 290,000 some will be false. Frames of one video are near duplicates too.
MAX_DISTANCE = 4
_BITS = 64


@dataclasses.dataclass(frozen=True)
class Copy:
    """One member of a group; `label` is an index into the class names, `index` into the split."""

    split: str
    id: str
    label: int
    index: int


def find_duplicates(splits: Mapping[str, Split]) -> list[list[Copy]]:
    """Groups of two or more identical images, in the order of their first member."""
    groups = collections.defaultdict(list)
    for pixels, copy in _copies(splits):
        groups[pixels].append(copy)
    return [group for group in groups.values() if len(group) > 1]


def find_near_duplicates(splits: Mapping[str, Split], hashes: Mapping[str, np.ndarray]) -> list[list[Copy]]:
    """Groups of images that are not all identical, and each within MAX_DISTANCE of another one of the group.

    Args:
        hashes: by split, uint64 [N] as `perceptual_hash` gives them.
    """
    from scipy.sparse import coo_array  # worker processes import this module and have no use for these
    from scipy.sparse.csgraph import connected_components

    rows = list(_copies(splits))
    values = np.concatenate([hashes[name] for name in splits])
    distinct, of_value = np.unique(values, return_inverse=True)
    pairs = near_pairs(distinct)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(distinct),) * 2)
    of_group = connected_components(graph, directed=False)[1][of_value]
    groups = collections.defaultdict(list)
    for number, row in zip(of_group.tolist(), rows, strict=True):
        groups[number].append(row)
    return [[copy for _, copy in group] for group in groups.values() if len({pixels for pixels, _ in group}) > 1]


def perceptual_hash(image: np.ndarray) -> int:
    """64 bits that change little with brightness, size and compression: imagehash.phash of uint8 [H, W, C]."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return int.from_bytes(np.packbits(imagehash.phash(picture).hash).tobytes())


def near_pairs(hashes: np.ndarray, distance: int = MAX_DISTANCE) -> np.ndarray:
    """All pairs of different places in uint64 [N] whose values differ in at most `distance` bits, as int [P, 2].

    Two such values agree in at least one of `distance` + 1 bands of their bits, so only those that share a band are
    compared: 290,000 hashes take seconds, not the hours of all pairs.
    """
    edges = np.linspace(0, _BITS, distance + 2).astype(int)
    found = [np.empty((0, 2), int)]
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind='stable')
        for places in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            found.extend(_pairs_among(hashes, places, distance))
    return np.unique(np.concatenate(found), axis=0)


def is_conflicting(group: Sequence[Copy]) -> bool:
    """Whether the images of a group carry different labels."""
    return len({copy.label for copy in group}) > 1


def summarise(groups: Sequence[Sequence[Copy]]) -> dict[str, Any]:
    """Counts what training on, and testing with, these copies means.

    Returns:
        `groups`; `spare_copies`: images that could go without losing a distinct one; `conflicting_groups`;
        `twins_in_train` and `twins_in_train_other_label`: per evaluation split, its images that training holds
        too, and those that training holds under other labels only; `groups_in_validation_and_test`.
    """
    twins = {'validation': 0, 'test': 0}
    relabelled = {'validation': 0, 'test': 0}
    for group in groups:
        train_labels = {copy.label for copy in group if copy.split == 'train'}
        for copy in group:
            if copy.split in twins and train_labels:
                twins[copy.split] += 1
                relabelled[copy.split] += copy.label not in train_labels
    return {
        'groups': len(groups),
        'spare_copies': sum(len(group) - 1 for group in groups),
        'conflicting_groups': sum(map(is_conflicting, groups)),
        'twins_in_train': twins,
        'twins_in_train_other_label': relabelled,
        'groups_in_validation_and_test': sum(
            {'validation', 'test'} <= {copy.split for copy in group} for group in groups
        ),
    }


def _copies(splits: Mapping[str, Split]):
    for name, split in splits.items():
        for index, (pixels, identity, label) in enumerate(
            zip(split.pixel_hashes, split.ids, split.labels, strict=True)
        ):
            yield str(pixels), Copy(name, str(identity), int(label), index)


def _pairs_among(hashes: np.ndarray, places: np.ndarray, distance: int):
    """Pairs among the places of one band; in blocks, since one band may hold most of a data set."""
    for start in range(0, len(places) if len(places) > 1 else 0, 1024):
        block = places[start : start + 1024]
        later = places[start:]
        near = np.bitwise_count(hashes[block, None] ^ hashes[later]) <= distance
        rows, columns = np.nonzero(np.triu(near, 1))
        if len(rows):
            yield np.sort(np.stack([block[rows], later[columns]], 1), 1)
