"""Images that occur more than once, pixel for pixel: within a split, across splits, under different labels."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from fer_jax.data.dataset import Split


@dataclasses.dataclass(frozen=True)
class Copy:
    """One member of a group of identical images; `label` is an index into the class names."""

    split: str
    id: str
    label: int


def find_duplicates(splits: Mapping[str, Split]) -> list[list[Copy]]:
    """Groups of two or more identical images, in the order of their first member."""
    groups = collections.defaultdict(list)
    for name, split in splits.items():
        for pixel_hash, identity, label in zip(split.pixel_hashes, split.ids, split.labels, strict=True):
            groups[str(pixel_hash)].append(Copy(name, str(identity), int(label)))
    return [group for group in groups.values() if len(group) > 1]


def is_conflicting(group: list[Copy]) -> bool:
    """Whether identical images carry different labels."""
    return len({copy.label for copy in group}) > 1


def summarise(groups: list[list[Copy]]) -> dict[str, Any]:
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
