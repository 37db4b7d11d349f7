"""What every source of faces becomes: arrays per split, with ids, class names and a manifest."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.errors import UserError

# The canonical vocabulary: AffectNet's eight emotions in alphabetical order. A data set uses a subset, in this order.
EMOTIONS = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')
LABEL_EXTRAS = ('true_label', 'blend_emotion')  # entries of Split.extra that are indices of classes, -1 for none
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, in a fixed order.

    Attributes:
        images: uint8 [N, H, W, C], C is 1 (grey) or 3 (RGB).
        labels: int32 [N], indices into `Dataset.class_names`.
        ids: str [N], unique within the data set.
        pixel_hashes: str [N], equal exactly where the source images are equal pixel for pixel.
        extra: further arrays of length N, such as `subject` (str) or, for synthetic faces, `intensity`.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    pixel_hashes: np.ndarray
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: np.ndarray) -> Split:
        """The examples where `keep` (bool [N] or indices) says so, in their order."""
        return Split(
            self.images[keep],
            self.labels[keep],
            self.ids[keep],
            self.pixel_hashes[keep],
            {name: values[keep] for name, values in self.extra.items()},
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits by name (`train`, `validation`, `test`), their class names, and where they came from.

    `manifest` is a JSON object: at least `dataset`, `source`, `class_names` and `counts` per split and class.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    manifest: Mapping[str, Any]

    @property
    def manifest_hash(self) -> str:
        """SHA-256 (first 16 hex digits) of what the manifest says of the examples.

        Of prepared data: name, class names and `checksum`, which covers split, id, class and pixels of every example;
        so the same examples keep their hash whatever else a later `prepare` writes. Of other data: all of it.
        """
        told = {name: self.manifest[name] for name in ('dataset', 'class_names', 'checksum') if name in self.manifest}
        told = told if 'checksum' in told else self.manifest
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 (first 32 hex digits) of an image's shape and pixels; equal images have equal hashes."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def class_counts(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    """How many examples each class has; classes without any are there with 0."""
    counts = np.bincount(labels, minlength=len(class_names))
    return {name: int(count) for name, count in zip(class_names, counts, strict=True)}


def drop_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Removes classes from every split alike; the remaining ones keep their order and get new indices.

    Raises:
        UserError: if a name is not a class of the data set, or fewer than two classes would remain.
    """
    for name in names:
        if name not in dataset.class_names:
            close = difflib.get_close_matches(name, dataset.class_names, 1)
            hint = f'; did you mean {close[0]!r}?' if close else '.'
            raise UserError(f'{dataset.name} has no class {name!r}{hint} Its classes: {", ".join(dataset.class_names)}')
    kept = [name for name in dataset.class_names if name not in names]
    if len(kept) < 2:
        raise UserError(f'dropping {", ".join(names)} leaves fewer than two classes')
    new_index = np.array([kept.index(name) if name in kept else -1 for name in dataset.class_names], np.int32)
    splits = {}
    for split, examples in dataset.splits.items():
        examples = examples.select(new_index[examples.labels] >= 0)
        # Further labels may name a class that is gone, or none: -1.
        further = {
            name: np.where(values < 0, -1, new_index[values]).astype(np.int32)
            for name, values in examples.extra.items()
            if name in LABEL_EXTRAS
        }
        splits[split] = dataclasses.replace(
            examples, labels=new_index[examples.labels], extra={**examples.extra, **further}
        )
    return dataclasses.replace(dataset, class_names=tuple(kept), splits=splits)


def remove_training_twins(dataset: Dataset, which: str) -> Dataset:
    """Removes exact duplicates from the training split; evaluation splits stay whole.

    Args:
        which: `none`; `evaluation`: training images that also are in validation or test; `all`: those, and
            all but the first copy within training.
    """
    if which not in ('none', 'evaluation', 'all'):
        raise UserError(f'config.data.remove_twins is {which!r}; it can be none, evaluation or all')
    if which == 'none':
        return dataset
    train = dataset.splits['train']
    others = [split.pixel_hashes for name, split in dataset.splits.items() if name != 'train']
    keep = ~np.isin(train.pixel_hashes, np.concatenate(others))
    if which == 'all':
        first = np.zeros(len(train), bool)
        first[np.unique(train.pixel_hashes, return_index=True)[1]] = True
        keep &= first
    return dataclasses.replace(dataset, splits={**dataset.splits, 'train': train.select(keep)})
