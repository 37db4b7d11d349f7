"""Cutting the training part of a source into train, validation and test: stratified, by ids and a seed alone.

What is cut are the pictures that could be read: cut before, rejects would thin the parts of a small class unevenly.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np

from fer_jax.data.dataset import SPLITS
from fer_jax.data.records import Candidate, Reject, Source
from fer_jax.errors import UserError

DEFAULT_SHARES = (0.8, 0.1, 0.1)


def cut_anew(source: Source, splits: Collection[str], shares: Sequence[float], seed: int) -> Source:
    """The same source with its training part cut into the three splits; no shares leave it as it is.

    What the source itself has as validation or test stays where the cut makes no such part; else it is rejected, since
    two protocols would be mixed.

    Args:
        splits: those that the source itself has.
        shares: of train, validation and test.

    Raises:
        UserError: if the shares are not three numbers from 0 that sum to 1, with some for training, or there is no
            training part.
    """
    if not shares:
        return dataclasses.replace(source, form=source.form + _advice(splits))
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[0] <= 0:
        raise UserError(
            f'the split {_percent(shares)} is not three shares of train, validation and test that sum to 100, '
            'the first above 0'
        )
    if 'train' not in splits:
        raise UserError(f'there is no training part to cut in {source.form}')
    made = {name for name, share in zip(SPLITS, shares, strict=True) if share > 0}
    return dataclasses.replace(
        source,
        form=f'{source.form}; {_describe(shares, splits, seed)}',
        read=functools.partial(_read_without, source.read, made),
        cut=functools.partial(cut, shares=tuple(shares), seed=seed),
    )


def _advice(splits: Collection[str]) -> str:
    """Words for the form of a source whose own splits lack validation: how to get one."""
    if 'validation' in splits or 'train' not in splits:
        return ''
    return '; it has no validation part: --split=90/10/0 cuts one from train'


def _describe(shares: Sequence[float], splits: Collection[str], seed: int) -> str:
    """The cut in words."""
    made = ' and '.join(
        name for name, share in zip(SPLITS[1:], shares[1:], strict=True) if share > 0 and name in splits
    )
    left_out = f"; the source's own {made} left out" if made else ''
    part = 'its training part' if len(splits) > 1 else 'all of it'
    return f'{part} cut {_percent(shares)} % into {"/".join(SPLITS)} (stratified, seed {seed}){left_out}'


def _percent(shares: Sequence[float]) -> str:
    return '/'.join(f'{100 * share:g}' for share in shares)


def cut(examples: Iterable[tuple[str, str, str]], shares: Sequence[float], seed: int) -> dict[str, str]:
    """The split of every id.

    Without subjects each class is cut to the nearest whole number of examples, in the order of a hash of seed and id.
    With subjects nobody is in two splits; they are dealt out largest first, each to the split that then lacks the
    most examples of their classes (the step that lowers the squared distance to the wished counts the most).

    Args:
        examples: id, class and subject ('' where unknown) of each.
        shares: of train, validation and test.
    """
    examples = sorted(examples, key=lambda example: _key(seed, example[0]))
    if any(subject for _, _, subject in examples):
        return _cut_subjects(examples, shares, seed)
    of_class = collections.defaultdict(list)
    for identity, name, _ in examples:
        of_class[name].append(identity)
    split_of = {}
    for ids in of_class.values():
        # Rounding before the cut keeps .8 + .1 from becoming .9000000000000001.
        ends = [round(round(end, 9) * len(ids)) for end in np.cumsum(shares)]
        for split, start, end in zip(SPLITS, (0, *ends), ends, strict=False):
            split_of.update(dict.fromkeys(ids[start:end], split))
    return split_of


def _cut_subjects(examples: Sequence[tuple[str, str, str]], shares: Sequence[float], seed: int) -> dict[str, str]:
    class_names = sorted({name for _, name, _ in examples})
    groups = collections.defaultdict(list)
    for identity, name, subject in examples:
        groups[subject or f'\0{identity}'].append((identity, class_names.index(name)))
    counts = {
        key: np.bincount([index for _, index in group], minlength=len(class_names)) for key, group in groups.items()
    }
    lacking = np.outer(shares, sum(counts.values()))
    allowed = np.where(np.array(shares) > 0, 0.0, -np.inf)
    split_of = {}
    for key in sorted(groups, key=lambda key: (-len(groups[key]), _key(seed, key))):
        which = int(np.argmax(lacking @ counts[key] + allowed))
        lacking[which] -= counts[key]
        split_of.update(dict.fromkeys((identity for identity, _ in groups[key]), SPLITS[which]))
    return split_of


def _key(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f'{seed}\0{identity}'.encode()).digest()


def _read_without(
    read: Callable[[], Iterator[Candidate | Reject]], made: Collection[str]
) -> Iterator[Candidate | Reject]:
    """Rejects what the source itself has in those splits."""
    for record in read():
        if isinstance(record, Candidate) and record.split != 'train' and record.split in made:
            record = Reject(record.location, f'left out: {record.split} is cut from the training part')
        yield record
