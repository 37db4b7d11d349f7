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
# The columns of FER+'s votes (Barsoum et al. 2016); after these come `unknown` and `NF`, no face.
VOTED = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt')
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, in a fixed order.

    Attributes:
        images: uint8 [N, H, W, C], C is 1 (grey) or 3 (RGB): an array, or what indexes like one and reads then
            (`fer_jax.data.stored.StoredImages`, whose `select` and `join` read nothing).
        labels: int32 [N], indices into `Dataset.class_names`.
        ids: str [N], unique within the data set.
        pixel_hashes: str [N], equal exactly where the source images are equal pixel for pixel.
        extra: further arrays of length N, such as `subject` (str), `votes` (float [N, 10]), `targets` (float [N, K],
            what training aims at in place of the label) or, for synthetic faces, `intensity`.
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
            self.images.select(keep) if hasattr(self.images, 'select') else self.images[keep],
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
        so the same examples keep their hash whatever else a later `prepare` writes. Of other data: all of it but
        `changes`, what was made of the training split since (see `fer_jax.data.change_files`).
        """
        told = {name: self.manifest[name] for name in ('dataset', 'class_names', 'checksum') if name in self.manifest}
        told = told if 'checksum' in told else {key: told for key, told in self.manifest.items() if key != 'changes'}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def held_out(self) -> dict[str, str]:
        """The name of its split by the id of every image that is not trained on."""
        others = {name: split for name, split in self.splits.items() if name != 'train'}
        return {identity: name for name, split in others.items() for identity in split.ids.tolist()}


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 (first 32 hex digits) of an image's shape and pixels; equal images have equal hashes."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def class_counts(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    """How many examples each class has; classes without any are there with 0."""
    counts = np.bincount(labels, minlength=len(class_names))
    return {name: int(count) for name, count in zip(class_names, counts, strict=True)}


def examples_checksum(splits: Mapping[str, Split], class_names: Sequence[str]) -> str:
    """SHA-256 over split, id, class name and pixel hash of every example, in order."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        for identity, label, pixels in zip(split.ids, split.labels, split.pixel_hashes, strict=True):
            digest.update(f'{name}\t{identity}\t{class_names[label]}\t{pixels}\n'.encode())
    return digest.hexdigest()


def drop_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Removes classes from every split alike; the remaining ones keep their order and get new indices.

    Raises:
        UserError: if a name is not a class of the data set, or fewer than two classes would remain.
    """
    if not names:
        return dataset
    for name in names:
        _check_class(dataset, name)
    kept = [name for name in dataset.class_names if name not in names]
    if len(kept) < 2:
        raise UserError(f'dropping {", ".join(names)} leaves fewer than two classes')
    return _with_classes(dataset, [kept.index(name) if name in kept else -1 for name in dataset.class_names], kept)


def rename_classes(dataset: Dataset, renames: Sequence[str]) -> Dataset:
    """Gives classes other names, in every split alike; classes that then have one name are one class.

    Names of the canonical vocabulary stand in its order, others after them.

    Args:
        renames: `OLD=NEW`, all at once: `a=b, b=a` swaps two.

    Raises:
        UserError: if one is not of that form, OLD is not a class or is named twice, or one class would remain.
    """
    mapping = read_renames(renames)
    if not mapping:
        return dataset
    for old in mapping:
        _check_class(dataset, old)
    become = [mapping.get(name, name) for name in dataset.class_names]
    names = sorted(dict.fromkeys(become), key=lambda name: (*EMOTIONS, name).index(name))
    if len(names) < 2:
        raise UserError(f'config.data.rename={",".join(renames)} leaves fewer than two classes')
    return _with_classes(dataset, [names.index(name) for name in become], names)


def read_renames(renames: Sequence[str]) -> dict[str, str]:
    """`OLD=NEW` entries as a dict.

    Raises:
        UserError: if one is not of that form, or OLD is named twice.
    """
    mapping = {}
    for entry in renames:
        old, new = (part.strip() for part in entry.partition('=')[::2])
        if not old or not new:
            raise UserError(f'config.data.rename has {entry!r}; OLD=NEW is wanted, such as contempt=disgust')
        if old in mapping:
            raise UserError(f'config.data.rename names {old!r} twice')
        mapping[old] = new
    return mapping


def limit_classes(dataset: Dataset, limits: Sequence[str], seed: int) -> Dataset:
    """Thins classes of the training split; evaluation splits stay whole.

    Which images stay is a pure function of seed and ids: those whose SHA-256 of both is smallest. So a lower limit
    keeps a part of what a higher one keeps, and images taken out for another reason move none of the others.

    Args:
        limits: `CLASS=N`: at most N training images of that class.

    Raises:
        UserError: if one is not of that form, or names no class.
    """
    train = dataset.splits['train']
    keep = np.ones(len(train), bool)
    for entry in limits:
        name, count = (part.strip() for part in entry.partition('=')[::2])
        if not name or not count.isdecimal() or not int(count):
            raise UserError(f'config.data.limit has {entry!r}; CLASS=N is wanted, such as happiness=30000')
        _check_class(dataset, name)
        members = np.flatnonzero(train.labels == dataset.class_names.index(name))
        draws = [hashlib.sha256(f'{seed}\t{identity}'.encode()).digest() for identity in train.ids[members]]
        keep[members[sorted(range(len(members)), key=draws.__getitem__)[int(count) :]]] = False
    if keep.all():
        return dataset
    return dataclasses.replace(dataset, splits={**dataset.splits, 'train': train.select(keep)})


def add_soft_targets(dataset: Dataset, drop: Sequence[str] = (), renames: Sequence[str] = ()) -> Dataset:
    """Adds `targets` (float32 [N, K]) to the training split: each image's votes, shared over the classes in use.

    As FER+'s own code does in every mode (src/ferplus.py there), an emotion's single vote is struck out. Votes for
    `unknown`, for no face and for classes that are not in use are left out too; those for merged classes are summed.
    An image without a vote that counts aims at its label alone.

    Args:
        drop, renames: what `drop_classes` and `rename_classes` were given before, on which the votes follow.

    Raises:
        UserError: if the training split has no `votes`.
    """
    train = dataset.splits['train']
    shares_NK = votes_per_class(dataset, drop, renames)
    totals_N1 = shares_NK.sum(1, keepdims=True)
    one_hot_NK = np.eye(len(dataset.class_names), dtype=np.float32)[train.labels]
    targets_NK = np.where(totals_N1 > 0, shares_NK / np.maximum(totals_N1, 1e-9), one_hot_NK)
    train = dataclasses.replace(train, extra={**train.extra, 'targets': targets_NK})
    return dataclasses.replace(dataset, splits={**dataset.splits, 'train': train})


def votes_per_class(
    dataset: Dataset, drop: Sequence[str] = (), renames: Sequence[str] = (), fewest: int = 2
) -> np.ndarray:
    """The annotators' votes on the training images, float32 [N, K], those for other classes left out.

    Args:
        drop, renames: as in `add_soft_targets`.
        fewest: of votes for an emotion; fewer count as none (Barsoum et al. 2016 leave single ones out).

    Raises:
        UserError: if the training split has no `votes`.
    """
    votes_NV = dataset.splits['train'].extra.get('votes')
    if votes_NV is None or votes_NV.shape[1:] != (len(VOTED) + 2,):
        raise UserError(
            f'config.data.soft_labels needs the votes of annotators (so does vote_entropy), which {dataset.name} does '
            'not have; FER+ has them: python -m fer_jax.prepare --dataset=ferplus'
        )
    votes_NV = np.where(votes_NV >= fewest, votes_NV, 0)
    mapping = read_renames(renames)
    votes_NK = np.zeros((len(votes_NV), len(dataset.class_names)), np.float32)
    for column, emotion in enumerate(VOTED):
        name = mapping.get(emotion, emotion)
        if emotion not in drop and name in dataset.class_names:
            votes_NK[:, dataset.class_names.index(name)] += votes_NV[:, column]
    return votes_NK


def _check_class(dataset: Dataset, name: str) -> None:
    if name not in dataset.class_names:
        close = difflib.get_close_matches(name, dataset.class_names, 1)
        hint = f'; did you mean {close[0]!r}?' if close else '.'
        there = ', '.join(f'"{known}"' if ',' in known else known for known in dataset.class_names)
        quotes = '; a flag names those with a comma in these quotes' if '"' in there else ''
        raise UserError(f'{dataset.name} has no class {name!r}{hint} Its classes: {there}{quotes}')


def _with_classes(dataset: Dataset, new_index: Sequence[int], class_names: Sequence[str]) -> Dataset:
    """The examples whose class has a new index (not -1), under it."""
    new_index = np.array(new_index, np.int32)
    splits = {}
    for split, examples in dataset.splits.items():
        if (new_index < 0).any():
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
    return dataclasses.replace(dataset, class_names=tuple(class_names), splits=splits)


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
    keep = np.ones(len(train), bool)
    for name, split in dataset.splits.items():
        if name != 'train':
            keep &= ~np.isin(train.pixel_hashes, split.pixel_hashes)
    if which == 'all':
        first = np.zeros(len(train), bool)
        first[np.unique(train.pixel_hashes, return_index=True)[1]] = True
        keep &= first
    return dataclasses.replace(dataset, splits={**dataset.splits, 'train': train.select(keep)})
