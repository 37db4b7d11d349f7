"""Folds and cuts: which images are trained on, chosen on and tested, with what belongs together kept on one side.

Who goes where is a pure function of the seed, the ids, the labels and what belongs together, made of integers and
SHA-256: neither the order of the rows nor the version of a library moves an image. scikit-learn's StratifiedGroupKFold
deals alike, but draws other folds since its pull request 32540; a run that goes on would then test what it has seen.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped

from fer_jax.data.dataset import SPLITS, Dataset, Split
from fer_jax.errors import UserError

LabelsN = Int[np.ndarray, 'N']
PartsN = Int[np.ndarray, 'N']
UnitsN = Shaped[np.ndarray, 'N']

FOLD_BY = ('image', 'sequence', 'subject')
_WHO_KNOWS = {
    'sequence': 'CK+48 folders and the original CK+ release do (ckextended.csv does not)',
    'subject': 'CK+48 folders, the original CK+ release and a CSV with a subject column do (ckextended.csv does not)',
}
_SCALE = 10**9  # of shares, which are whole numbers here


def apply_folds(dataset: Dataset, folds: int, fold: int, by: str, validation: bool, seed: int) -> Dataset:
    """Replaces the splits of a data set by those of one fold of a cross-validation.

    All the splits that the data came with are pooled first: every image of a cross-validation is tested once, and a
    split that someone else drew (as the Usage column of ckextended.csv) would leave some out. Each split is in the
    order of its ids.

    Args:
        folds: how many.
        fold: the one that is tested, from 0.
        by: what stays together, one of FOLD_BY.
        validation: whether the fold after the tested one is validation; if not, it is trained on too, and the
            data set has no validation split.
        seed: of the folds.

    Raises:
        UserError: if there cannot be such folds.
    """
    check_folds(folds, fold, validation)
    whole = pool_splits(dataset)
    fold_N = assign_folds(dataset.name, whole, folds, by, seed)
    role_N = np.full(len(whole), 'train', object)
    role_N[fold_N == fold] = 'test'
    if validation:
        role_N[fold_N == (fold + 1) % folds] = 'validation'
    order_N = np.argsort(whole.ids, kind='stable')
    names = [name for name in SPLITS if validation or name != 'validation']
    splits = {name: whole.select(order_N[role_N[order_N] == name]) for name in names}
    return dataclasses.replace(dataset, splits=splits)


def check_folds(folds: int, fold: int, validation: bool) -> None:
    """Refuses numbers of folds that cannot be, before any data is read.

    Raises:
        UserError: if there are too few folds, or no such fold.
    """
    fewest = 3 if validation else 2
    if folds < fewest:
        more = ': one for training, one for validation, one for test' if validation else ''
        raise UserError(f'config.data.folds is {folds}; at least {fewest} are wanted{more}')
    if not 0 <= fold < folds:
        raise UserError(f'config.data.fold is {fold}; of {folds} folds it can be 0 to {folds - 1}')


def assign_folds(name: str, whole: Split, folds: int, by: str, seed: int) -> PartsN:
    """The fold of each image.

    Args:
        name: of the data set, for messages.

    Raises:
        UserError: if the images do not name what should stay together, or there is too little of it.
    """
    units_N = units_of(name, whole, by)
    found = len(np.unique(units_N))
    if found < folds:
        raise UserError(f'{name} has {found} {by}s, too few for config.data.folds={folds}')
    return divide(whole.labels, units_N, (1,) * folds, seed)


def resplit_training(dataset: Dataset, cut: Sequence[str], by: str, seed: int) -> Dataset:
    """Cuts the training split anew.

    Two shares, or one whole number of images per class, make train and validation; if the data has no test split, its
    own validation then becomes test. So nothing is chosen on the images whose accuracy is published, as for AffectNet,
    which has no public test split; where that is balanced, as there, a number per class makes a validation
    that is too. Three shares make train, validation and test; what else the data has is not read.

    Args:
        cut: as config.data.resplit has it: ('.9', '.1'), ('.8', '.1', '.1') or ('250',).
        by: what stays together, one of FOLD_BY.
        seed: of the cut.

    Raises:
        UserError: if the shares, or the splits that the data has, do not allow it.
    """
    wanted = ','.join(cut)
    per_class, shares = _read_cut(cut)
    own = {name: split for name, split in dataset.splits.items() if len(split)}
    train = own.pop('train', None)
    if train is None:
        raise UserError(f'{dataset.name} has no training split, which config.data.resplit={wanted} would cut')
    if len(shares) < 3 and len(own) == 2:
        raise UserError(
            f'config.data.resplit is {wanted}, but {dataset.name} has a validation and a test split of its own; '
            'leave it empty, or give three shares to cut the training split alone'
        )
    units_N = units_of(dataset.name, train, by)
    if per_class:
        part_N = _draw_per_class(dataset, train, per_class, by, seed)
    elif len(np.unique(units_N)) < len(shares):
        raise UserError(f'{dataset.name} has too few training {by}s for config.data.resplit={wanted}')
    else:
        part_N = divide(train.labels, units_N, shares, seed)
    order_N = np.argsort(train.ids, kind='stable')
    parts = [train.select(order_N[part_N[order_N] == part]) for part in range(len(shares) or 2)]
    kept = [] if len(shares) == 3 else list(own.values())
    return dataclasses.replace(dataset, splits=dict(zip(SPLITS, parts + kept, strict=False)))


def units_of(name: str, split: Split, by: str) -> UnitsN:
    """What must stay together: the id, sequence or subject of each image.

    Raises:
        UserError: if `by` is none of FOLD_BY, or images do not name theirs.
    """
    if by not in FOLD_BY:
        close = difflib.get_close_matches(by, FOLD_BY, 1)
        hint = f'; did you mean {close[0]}?' if close else ''
        raise UserError(f'config.data.fold_by is {by!r}; it can be {", ".join(FOLD_BY)}{hint}')
    if by == 'image':
        return split.ids
    units_N = np.asarray(split.extra.get(by, np.full(len(split), '')))
    missing = int((units_N == '').sum())
    if missing:
        raise UserError(
            f'{name}: {missing:,} of {len(split):,} images name no {by}, which config.data.fold_by={by} needs; '
            f'{_WHO_KNOWS[by]}; with config.data.fold_by=image they are drawn one by one'
        )
    return units_N


def divide(labels_N: LabelsN, units_N: UnitsN, shares: Sequence[float], seed: int) -> PartsN:
    """Deals units into parts so that every part has its share of every class, as nearly as whole units allow.

    Units go one by one, those with the most of rare classes first and otherwise as SHA-256 of the seed and their
    name orders them, each into the part p that has least for its share s: the one with the smallest increase
    of the sum over classes of (count_pk / total_k) ** 2 / s_p. For single images this is the method of
    Sainte-Laguë per class.

    Args:
        labels_N: classes.
        units_N: str; images with the same one go to the same part.
        shares: one per part, in any unit.

    Returns:
        The part of each image.
    """
    names, index_N = np.unique(units_N, return_inverse=True)
    counts_UK = np.zeros((len(names), int(labels_N.max()) + 1), np.int64)
    np.add.at(counts_UK, (index_N, labels_N), 1)
    # Python's integers from here on: exact at any size.
    weights = [(_SCALE // max(int(total), 1)) ** 2 for total in counts_UK.sum(0)]
    scarcity = [round(_SCALE * sum(shares) / share) for share in shares]
    content = [tuple((k, count) for k, count in enumerate(row) if count) for row in counts_UK.tolist()]
    rarest = lambda unit: (-sum(count * math.isqrt(weights[k]) for k, count in unit), unit)
    rank = {unit: place for place, unit in enumerate(sorted(set(content), key=rarest))}
    draw = [hashlib.sha256(f'{seed}\t{name}'.encode()).digest() for name in names.tolist()]
    order = sorted(range(len(names)), key=lambda u: (rank[content[u]], draw[u]))
    filled, part_U = [[0] * len(weights) for _ in shares], np.zeros(len(names), np.int64)
    for unit, alike in itertools.groupby(order, key=content.__getitem__):
        size, step = sum(count for _, count in unit), 2 * sum(count**2 * weights[k] for k, count in unit)
        increase = [sum((2 * has[k] + count) * count * weights[k] for k, count in unit) for has in filled]
        heap = [(increase[part] * scarce, sum(filled[part]) * scarce, part) for part, scarce in enumerate(scarcity)]
        heapq.heapify(heap)
        for index in alike:
            cost, filling, part = heap[0]
            part_U[index] = part
            heapq.heapreplace(heap, (cost + step * scarcity[part], filling + size * scarcity[part], part))
            for k, count in unit:
                filled[part][k] += count
    return part_U[index_N]


def pool_splits(dataset: Dataset) -> Split:
    """All images of a data set in one split; of the extra arrays, those that every split has."""
    first, *others = [split for split in dataset.splits.values() if len(split)]
    shared = [name for name in first.extra if all(name in split.extra for split in others)]
    join = lambda values: np.concatenate(list(values))
    stored = hasattr(first.images, 'join')  # StoredImages, of which nothing is read here
    images = [split.images for split in others]
    return Split(
        images=first.images.join(*images) if stored else join([first.images, *images]),
        labels=join(split.labels for split in (first, *others)),
        ids=join(split.ids for split in (first, *others)),
        pixel_hashes=join(split.pixel_hashes for split in (first, *others)),
        extra={name: join(split.extra[name] for split in (first, *others)) for name in shared},
    )


def _read_cut(entries: Sequence[str]) -> tuple[int, tuple[float, ...]]:
    """The number per class (0 for none) and the shares (none for a number) that config.data.resplit asks for."""
    if len(entries) == 1 and entries[0].isdecimal() and int(entries[0]):
        return int(entries[0]), ()
    try:
        shares = tuple(float(entry) for entry in entries)
    except ValueError:
        shares = ()
    if len(shares) not in (2, 3) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f'config.data.resplit is {",".join(entries)}; two or three shares that add up to 1 are wanted, such as '
            '.9,.1, or one whole number of images per class'
        )
    return 0, shares


def _draw_per_class(dataset: Dataset, train: Split, count: int, by: str, seed: int) -> PartsN:
    """1 for `count` images of each class, those whose SHA-256 with the seed is smallest; 0 for the others."""
    if by != 'image':
        raise UserError(
            f'config.data.resplit={count} draws images one by one, which config.data.fold_by={by} does not allow; '
            'give shares, such as .9,.1, or config.data.fold_by=image'
        )
    part_N = np.zeros(len(train), np.int64)
    for k, name in enumerate(dataset.class_names):
        members = np.flatnonzero(train.labels == k)
        if len(members) <= count:
            raise UserError(f'config.data.resplit={count}: {dataset.name} has {len(members)} training images of {name}')
        draws = [hashlib.sha256(f'{seed}\t{identity}'.encode()).digest() for identity in train.ids[members].tolist()]
        part_N[members[sorted(range(len(members)), key=draws.__getitem__)[:count]]] = 1
    return part_N
