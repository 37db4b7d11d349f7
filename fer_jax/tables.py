"""Files of configs/tables: reading them, choosing rows, and what their rows ask to be trained."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax import rehearsal
from fer_jax.config import as_flags, as_text, load_config, run_file
from fer_jax.data.folds import FOLD_BY, check_folds
from fer_jax.errors import UserError
from fer_jax.evaluation.folds import fold_directory
from fer_jax.runs import finished, finished_folds
from fer_jax.steps import StepJob, check_steps, filled, named_in, steps_for
from fer_jax.table import Table, TableRow


def load_table(path: str) -> Table:
    """Reads a table file.

    Args:
        path: a Python file with `get_table()`, or FILE:ARG for `get_table(ARG)`.

    Raises:
        UserError: if it is missing, has no `get_table()` that returns a Table, or has rows that cannot be.
    """
    file, _, argument = path.partition(':')
    try:
        module = run_file(file, 'table', 'get_table', 'configs/tables')
        table = module.get_table(argument) if argument else module.get_table()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a table is the user's code: whatever it raises is one line
        raise UserError(f'{path} failed: {type(error).__name__}: {error}') from error
    if not isinstance(table, Table) or not table.rows or not all(isinstance(row, TableRow) for row in table.rows):
        raise UserError(f'{path}: get_table() must return a fer_jax.table.Table with at least one TableRow')
    if not isinstance(table.prepare, Mapping):
        raise UserError(f'{path}: prepare is {table.prepare!r}; prepared directories and their flags are wanted')
    names = [row.name for row in table.rows]
    for row in table.rows:
        if names.count(row.name) > 1:
            raise UserError(f'{path}: two rows are named {row.name!r}')
        if ',' in row.name:
            raise UserError(f'{path}: row {row.name!r} has a comma, which --rows takes for the end of a name')
        _check_row(path, row)
        _check_baselines(path, row, table)
    check_steps(path, table)
    return table


def _check_row(path: str, row: TableRow) -> None:
    readings = ('single', 'ensemble') if row.fold_by else ('single', 'ensemble', 'pooled')
    for what, value, known in [
        ('reads', row.read, readings),
        ('is measured on', row.split, ('validation', 'test')),
        *(('has folds by', by, FOLD_BY) for by in row.fold_by),
    ]:
        if value not in known:
            raise UserError(f'{path}: row {row.name!r} {what} {value!r}; it can be {", ".join(known)}')
    if row.last and row.read != 'pooled':
        raise UserError(f'{path}: row {row.name!r} has last={row.last}, which only a pooled row reads')
    if row.fold_by and row.split != 'test':
        raise UserError(f'{path}: row {row.name!r} is a cross-validation, which is measured on test')


def _check_baselines(path: str, row: TableRow, table: Table) -> None:
    for name in row.baselines:
        base = next((other for other in table.rows if other.name == name), None)
        if base is None or base is row:
            raise UserError(f'{path}: row {row.name!r} is compared with {name!r}, which is no other row')
        for what in ('read', 'split'):
            if getattr(row, what) != getattr(base, what):
                raise UserError(f'{path}: rows {row.name!r} and {name!r} differ in {what}; they cannot be compared')
        if row.fold_by or base.fold_by or row.read == 'pooled':
            raise UserError(f'{path}: row {row.name!r} is compared with another; only rows of a run per seed can be')


def choose_rows(table: Table, names: str | None, seeds: str | None, ways: str | None) -> list[TableRow]:
    """The rows that the flags --rows, --seeds and --fold-by leave, with the seeds and ways that they leave.

    Raises:
        UserError: if a flag names what is not there.
    """
    rows = list(table.rows)
    if names:
        known = [row.name for row in rows]
        for name in names.split(','):
            if name not in known:
                close = difflib.get_close_matches(name, known, 1, 0.3)
                raise UserError(f'no row {name!r} in this table' + (f'; did you mean {close[0]!r}?' if close else ''))
        rows = [row for row in rows if row.name in names.split(',')]
    if seeds:
        try:
            wanted = {int(seed) for seed in seeds.split(',')}
        except ValueError:
            raise UserError(f'--seeds={seeds}: whole numbers with commas are wanted, such as 0,1') from None
        rows = [dataclasses.replace(row, seeds=tuple(s for s in row.seeds if s in wanted)) for row in rows]
        if not any(row.seeds for row in rows):
            raise UserError(f'--seeds={seeds}: no row of this table has any of these seeds')
    if ways:
        known = dict.fromkeys(way for row in rows for way in row.fold_by)
        for way in ways.split(','):
            if way not in known:
                has = f'these are made by {", ".join(known)}' if known else 'no row here is a cross-validation'
                raise UserError(f'--fold-by={ways}: no row makes folds by {way!r}; {has}')
        rows = [_folded_by(row, ways.split(',')) for row in rows if set(row.fold_by) & set(ways.split(','))]
    return rows


def _folded_by(row: TableRow, ways: Sequence[str]) -> TableRow:
    """The row with some of its ways to make folds; what is published belongs to its first."""
    left = tuple(way for way in row.fold_by if way in ways)
    published = {} if left[0] == row.fold_by[0] else {'published': None, 'source': ''}
    return dataclasses.replace(row, fold_by=left, **published)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One thing that a row asks to be trained: a run or, with `by`, a cross-validation with that kind of folds.

    Attributes:
        row, seed, by: what it is of.
        workdir: where it lives.
        data: the prepared directory that the row reads, or 'synthetic'.
        changes: field to value, on top of the row's configuration file.
        steps: what it and the table's line of it need, by name, with what these were made from.
        filtered: the row's, with directories in place of names.
    """

    row: TableRow
    seed: int
    by: str
    workdir: Path
    data: str
    changes: Mapping[str, Any]
    steps: Mapping[str, StepJob] = dataclasses.field(default_factory=dict)
    filtered: str = ''

    def needed(self) -> list[StepJob]:
        """Those steps that its training reads; `filtered` is read with the scores alone."""
        return [self.steps[name] for name in named_in([*self.row.overrides.values()])]

    @property
    def flags(self) -> list[str]:
        """The changes as flags of `train`."""
        return as_flags(self.changes)

    def config(self) -> ConfigDict:
        """The configuration that is trained.

        Raises:
            UserError: if it cannot be, or its folds do not fit the row.
        """
        config = load_config(self.row.config, self.flags)
        if config.ensemble.members > 1:
            raise UserError(
                f'row {self.row.name!r}: config.ensemble.members is {config.ensemble.members}, and a row trains a run '
                'for each of its seeds; leave it at 1, and take seeds and read="pooled"'
            )
        if self.by:
            check_folds(config.data.folds, 0, config.data.fold_validation)
        elif config.data.folds:
            raise UserError(
                f'row {self.row.name!r}: {self.row.config} has config.data.folds={config.data.folds}; '
                'the row has to say how its folds are made, such as fold_by=("image",)'
            )
        return config

    def results(self) -> dict[str, Any]:
        """scores.json, or of a cross-validation folds.json, where it is finished; else {}.

        Raises:
            UserError: if its directory holds something else that is finished.
        """
        done = finished_folds if self.by else finished
        return done(self.workdir, self.config(), f'row {self.row.name!r}')

    def runs(self) -> list[Path]:
        """The directories of its training runs."""
        folds = self.config().data.folds
        return [fold_directory(self.workdir, fold) for fold in range(folds)] if self.by else [self.workdir]

    def command(self) -> list[str]:
        """What to run, after `python -m`."""
        module = 'fer_jax.crossvalidate' if self.by else 'fer_jax.train'
        return [module, f'--config={self.row.config}', f'--workdir={self.workdir}', *self.flags]


def jobs_of(row: TableRow, output: Path, rehearse: bool = False, table: Table | None = None) -> list[Job]:
    """What a row asks to be trained, one per seed and way of making folds.

    Args:
        output: where the runs of the table live; rows with the same config and overrides share theirs.
        rehearse: only the first seed, for a few steps, on what is prepared below `output`.
        table: the row's, if it has steps.

    Raises:
        UserError: if the row's configuration cannot be.
    """
    jobs, base = [], load_config(row.config, as_flags(row.overrides))
    data, chosen = base.data.name, 'validation' in base.evaluation.splits or row.split == 'validation'
    splits = ('validation',) * chosen + ('test',) * (row.split == 'test')
    named = named_in([*row.overrides.values(), row.filtered])
    for seed in row.seeds[:1] if rehearse else row.seeds:
        steps = steps_for(table, named, seed, output, rehearse) if named and table else {}
        places = {name: step.directory for name, step in steps.items()}
        for by in row.fold_by or ('',):
            changes = dict(row.overrides) | ({'data.fold_by': by} if by else {})
            workdir = output / _directory_name(row.config, changes) / f'seed{seed}'
            changes = {name: _filled(value, places) for name, value in changes.items()}
            changes |= {'seed': seed} | ({} if by else {'evaluation.splits': splits})
            changes |= rehearsal.changes(base, output) if rehearse else {}
            jobs.append(Job(row, seed, by, workdir, data, changes, steps, filled(row.filtered, places)))
    return jobs


def _directory_name(config: str, changes: Mapping[str, Any]) -> str:
    parts = [Path(config).name.replace('.py', '').replace(':', '_')]
    parts += [f'{field.rsplit(".", 1)[-1]}={as_text(value)}' for field, value in changes.items()]
    return '_'.join(parts).replace('/', '-').replace('{', '').replace('}', '')


def _filled(value: Any, places: Mapping[str, Path]) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_filled(part, places) for part in value)
    return filled(value, places) if isinstance(value, str) else value
