"""What audits and people say of training labels, carried out: images left out, labels changed. Training only.

Two forms of CSV, both with further columns: an audit's `id,flag` (1: left out) and the review page's
`id,decision,new_label` (keep, relabel, drop). Several files are read in their order, and the last word on an image
counts: a review after the audit that it reviews brings back what it keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.data.change_files import Rows, class_index, read_rows, with_training
from fer_jax.data.dataset import Dataset, Split, read_renames
from fer_jax.errors import UserError

DECISIONS = ('keep', 'relabel', 'drop')
_FIELD = 'config.data.exclude'
_KEEP, _DROP = -2, -1  # among classes to be


def exclude_suspects(dataset: Dataset, paths: Sequence[str], drop: Sequence[str], renames: Sequence[str]) -> Dataset:
    """Leaves out and relabels the training images that the files say; evaluation images stay as they are.

    Rows that would change an evaluation image, or are of a class that is left out anyway, are counted.

    Args:
        paths: CSV files, see the module.
        drop, renames: what `drop_classes` and `rename_classes` were given before: files may be older than they.

    Raises:
        UserError: for a row that cannot be meant: an id that is nowhere, a class that is none, a label that the image
            never had here.
    """
    if not paths:
        return dataset
    reader = _Reader(dataset, drop, read_renames(renames))
    files = [read_rows(path, _FIELD, ('id', 'flag'), ('id', 'decision', 'new_label')) for path in paths]
    for rows in files:
        reader.read(rows)
    train = dataset.splits['train']
    verdict_N = reader.verdict_N
    labels_N = np.where(verdict_N >= 0, verdict_N, train.labels).astype(np.int32)
    kept = dataclasses.replace(train, labels=labels_N).select(verdict_N != _DROP)
    told = {
        'files': [rows.described() for rows in files],
        'relabelled': int((labels_N != train.labels).sum()),
        'left_out': int((verdict_N == _DROP).sum()),
        'left_out_wrong': _count_wrong(train, verdict_N == _DROP),
        'evaluation': len(reader.evaluation),
        'dropped': len(reader.dropped),
        'before': len(train),
        'after': len(kept),
    }
    return with_training(dataset, kept, 'exclude', told)


def _count_wrong(train: Split, chosen_N: np.ndarray) -> int | None:
    """How many of these have a wrong label; None where the truth is not known."""
    true_N = train.extra.get('true_label')
    return None if true_N is None else int((true_N != train.labels)[chosen_N].sum())


class _Reader:
    """Gathers what files say of each training image."""

    def __init__(self, dataset: Dataset, drop: Sequence[str], renames: Mapping[str, str]):
        train = dataset.splits['train']
        self._dataset, self._drop, self._renames = dataset, drop, renames
        self._place = {identity: index for index, identity in enumerate(train.ids.tolist())}
        self._held_out = dataset.held_out()
        self._first_N = train.labels
        self.verdict_N = np.full(len(train), _KEEP)
        self.evaluation: set[str] = set()
        self.dropped: set[str] = set()

    def read(self, rows: Rows) -> None:
        seen = {}
        for number, cells in rows.rows:
            place, identity = f'{rows.path}:{number}', cells['id']
            if identity in seen:
                raise UserError(f'{place}: {identity} stands in line {seen[identity]} already')
            seen[identity] = number
            verdict = self._verdict(cells, place)
            if identity in self._place:
                index = self._place[identity]
                self._check_label(index, cells, place)
                if verdict is not None:
                    self.verdict_N[index] = verdict
            elif identity in self._held_out:
                if verdict not in (None, _KEEP):
                    self.evaluation.add(identity)
            elif cells.get('label') in self._drop:
                self.dropped.add(identity)
            else:
                raise UserError(f'{place}: {self._dataset.name} has no image {identity!r}; is the file of other data?')

    def _verdict(self, cells: Mapping[str, str], place: str) -> int | None:
        """What a row says of its image: a class, _DROP or _KEEP; None for nothing."""
        if 'decision' not in cells:
            if cells['flag'] not in ('0', '1'):
                raise UserError(f'{place}: flag is {cells["flag"]!r}; it can be 0 or 1')
            return _DROP if cells['flag'] == '1' else None
        if cells['decision'] not in DECISIONS:
            raise UserError(f'{place}: decision is {cells["decision"]!r}; it can be {", ".join(DECISIONS)}')
        if cells['decision'] != 'relabel':
            return _KEEP if cells['decision'] == 'keep' else _DROP
        if cells['new_label'] in self._drop:
            return _DROP
        return self._class(cells['new_label'], place)

    def _class(self, name: str, place: str) -> int:
        return class_index(self._renames.get(name, name), self._dataset.class_names, place)

    def _check_label(self, index: int, cells: Mapping[str, str], place: str) -> None:
        """Refuses a row about another label than the image has, or had before the files: it judges something else."""
        if not cells.get('label'):
            return
        now = self.verdict_N[index] if self.verdict_N[index] >= 0 else self._first_N[index]
        if self._class(cells['label'], place) not in (now, self._first_N[index]):
            raise UserError(
                f'{place}: {cells["id"]} is labelled {cells["label"]} there and '
                f'{self._dataset.class_names[now]} here; the file is of other labels'
            )
