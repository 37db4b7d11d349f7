"""What a file of configs/tables returns: rows, and the steps that they read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row of a file of configs/tables.

    Attributes:
        name: what the row shows; rows with the same config and overrides share their runs.
        config: configuration file.
        overrides: field to value.
        read: `single` (the best member by validation), `ensemble` (the members of one run), or `pooled` (the members
            of all seeds' runs in one ensemble).
        seeds: one run each, or with `fold_by` one cross-validation.
        published: in per cent, or None; `source` says where it stands.
        split: the split that `published` was measured on; on `validation` ours too is chosen on what it is read on.
        fold_by: () for a run on the data's own splits. Otherwise the row is a cross-validation of config.data.folds
            folds, made in each of these ways (image, sequence, subject) and shown side by side; `published` belongs
            to the first.
        last: members of each seed's run in a `pooled` row, its last so many; 0 takes config.evaluation.last.
        wants_gpu: without a GPU it is trained only where --rows names it: it would take days.
        baselines: the rows against which this one's effect is shown, seed by seed.
        filtered: an audit of the validation split, such as `{ssim_validation}/audit.csv`, without whose flagged images
            validation accuracy is shown a second time, marked as such, beside that on all of them.

    Values of `overrides`, and `filtered`, may name directories of the table's steps, as `{ssim}/audit.csv`.
    """

    name: str
    config: str
    read: str
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    published: float | None = None
    source: str = ''
    split: str = 'test'
    fold_by: tuple[str, ...] = ()
    last: int = 0
    wants_gpu: bool = False
    baselines: tuple[str, ...] = ()
    filtered: str = ''


@dataclasses.dataclass(frozen=True)
class TableStep:
    """What rows of a table read, and the command that makes it, once and before the first row that needs it.

    Attributes:
        name: a word; rows and later steps write `{name}` for its directory.
        command: module and flags, in which `{here}` is its own directory and `{seed}` the seed.
        per_seed: every seed of the rows has its own; otherwise there is one, and the seed in its command is 0.
        rehearsal: flags added in a rehearsal, the last word on what they say; what shortens a row is added to commands
            with --config by itself.
    """

    name: str
    command: Sequence[str]
    per_seed: bool = False
    rehearsal: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of configs/tables returns one from `get_table()`.

    Attributes:
        title: of the table.
        dataset: of `prepare --dataset`, unless `prepare` says otherwise.
        obtain: what to obtain and from whom, for those who do not have it.
        rows: in order.
        place: where the data as obtained is looked for when no --source is given.
        prepare: prepared directories that rows read, and the flags of `prepare` that make them, but for --source and
            --output; data/DATASET is there by itself, with --dataset=DATASET.
        notes: what a reader of the table has to know, such as what the published numbers were chosen on.
        steps: in an order in which they can be made.
    """

    title: str
    dataset: str
    obtain: str
    rows: Sequence[TableRow]
    place: str = ''
    prepare: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    notes: str = ''
    steps: Sequence[TableStep] = ()
