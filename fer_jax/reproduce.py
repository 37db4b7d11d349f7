"""`python -m fer_jax.reproduce`: trains what a table still lacks, and prints it beside the published numbers."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax import cli
from fer_jax.config import Table, TableRow, flatten, load_config
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.evaluation.scores import read_scores
from fer_jax.reports.tables import Row, results_table


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and reproduces; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.reproduce', description=__doc__)
    parser.add_argument('--table', required=True, metavar='FILE', help='a file of configs/tables')
    parser.add_argument('--source', metavar='PATH', help='the data as obtained, prepared first if it is not yet')
    parser.add_argument('--output', metavar='DIR', help='where the runs live; default checkpoints/tables/NAME')
    parser.add_argument('--rows', metavar='NAME[,NAME…]', help='only these rows')
    parser.add_argument('--seeds', metavar='N[,N…]', help="only these of each row's seeds")
    parser.add_argument('--no-train', action='store_true', help='print the table from the runs that are there')
    flags = parser.parse_args(argv)
    table = load_table(flags.table)
    rows = _choose(table, flags.rows, flags.seeds)
    output = Path(flags.output or os.path.join('checkpoints', 'tables', Path(flags.table).stem))
    runs = {}
    for seed in _seeds(rows):
        for row in rows:
            if seed in row.seeds:
                load_config(row.config, _overrides(row, seed))  # what is wrong in it is said before anything trains
                runs.setdefault(_workdir(row, seed, output), (row, seed))
    if not flags.no_train:
        _ensure_data(table, flags.source)
        for number, (row, seed) in enumerate(runs.values(), 1):
            _train(row, seed, output, f'run {number} of {len(runs)}')
    written = [_read_row(row, output, flags.table, not flags.no_train) for row in rows]
    text = f'# {table.title}\n\n{results_table(written)}\n'
    output.mkdir(parents=True, exist_ok=True)
    (output / 'table.md').write_text(text)
    print(text)
    print(f'written to {output / "table.md"}')
    return 0


def load_table(path: str) -> Table:
    """Reads a table file.

    Raises:
        UserError: if it is missing or has no `get_table()` that returns a Table.
    """
    if not os.path.isfile(path):
        raise UserError(f'no table {path}; those of the project lie in configs/tables')
    spec = importlib.util.spec_from_file_location('fer_jax_table', path)
    if spec is None:
        raise UserError(f'{path} is not a Python file with get_table()')
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        table = module.get_table()
    except (Exception, SystemExit) as error:  # a table is the user's code: whatever it raises is one line
        raise UserError(f'{path} failed: {type(error).__name__}: {error}') from error
    if not isinstance(table, Table) or not table.rows or not all(isinstance(row, TableRow) for row in table.rows):
        raise UserError(f'{path}: get_table() must return a fer_jax.config.Table with at least one TableRow')
    names = [row.name for row in table.rows]
    for row in table.rows:
        if row.read not in ('single', 'ensemble', 'pooled'):
            raise UserError(f'{path}: row {row.name!r} reads {row.read!r}; it can be single, ensemble or pooled')
        if names.count(row.name) > 1:
            raise UserError(f'{path}: two rows are named {row.name!r}')
        if ',' in row.name:
            raise UserError(f'{path}: row {row.name!r} has a comma, which --rows takes for the end of a name')
    return table


def _choose(table: Table, names: str | None, seeds: str | None) -> list[TableRow]:
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
    return rows


def _seeds(rows: Sequence[TableRow]) -> list[int]:
    return list(dict.fromkeys(seed for row in rows for seed in row.seeds))


def _ensure_data(table: Table, source: str | None) -> None:
    prepared = os.path.join('data', table.dataset)
    if table.dataset == 'synthetic':
        return
    if os.path.exists(os.path.join(prepared, 'manifest.json')):
        return
    if source is None:
        raise UserError(
            f'{table.dataset} is not prepared in {prepared}; give --source=PATH to what you obtained: {table.obtain}'
        )
    command = [sys.executable, '-m', 'fer_jax.prepare', f'--dataset={table.dataset}', f'--source={source}']
    _run([*command, f'--output={prepared}'])


def _overrides(row: TableRow, seed: int) -> list[str]:
    changes = dict(row.overrides) | {'seed': seed, 'evaluation.splits': 'validation,test'}
    return [f'--config.{name}={value}' for name, value in changes.items()]


def _workdir(row: TableRow, seed: int, output: Path) -> Path:
    name = Path(row.config).name.replace('.py', '').replace(':', '_')
    changes = [f'{field.rsplit(".", 1)[-1]}={value}' for field, value in row.overrides.items()]
    return output / '_'.join([name, *changes]) / f'seed{seed}'


def _train(row: TableRow, seed: int, output: Path, words: str) -> None:
    workdir = _workdir(row, seed, output)
    if _finished(row, seed, output):
        return
    print(f'{words}: {workdir}', file=sys.stderr)
    command = [sys.executable, '-m', 'fer_jax.train', f'--config={row.config}', f'--workdir={workdir}']
    _run([*command, *_overrides(row, seed)])


def _run(command: list[str]) -> None:
    """Runs a command to its end; what stops this process stops it too, and lets it save its checkpoint."""
    process = subprocess.Popen(command)
    old = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:  # the terminal has sent it to the command as well, which saves and ends
                continue
    finally:
        signal.signal(signal.SIGTERM, old)
    if code:
        sys.exit(code if code > 0 else 128 - code)


def _finished(row: TableRow, seed: int, output: Path) -> dict[str, Any]:
    """The scores of a run, if it is the one that the row describes and has been read on test; else {}.

    Raises:
        UserError: if the directory holds a run of another configuration or other data.
    """
    workdir = _workdir(row, seed, output)
    scores = _scores(workdir)
    if 'test' not in scores:
        return {}
    described = json.loads((workdir / 'config.json').read_text())
    wanted, there = flatten(load_config(row.config, _overrides(row, seed))), flatten(ConfigDict(described['config']))
    for name, value in wanted.items():
        found = there.get(name)
        if (tuple(found) if isinstance(found, list) else found) != value:
            raise UserError(
                f'{workdir} was trained with config.{name}={found!r}; row {row.name!r} now has {value!r}: '
                'move that directory away, or give another --output'
            )
    manifest = os.path.join(wanted['data.name'], 'manifest.json')
    if os.path.exists(manifest):
        with open(manifest) as file:
            now = Dataset('', (), {}, json.load(file)).manifest_hash
        if now != described['manifest_hash']:
            raise UserError(f'{workdir} was trained on other data than {wanted["data.name"]} now holds; move it away')
    return scores


def _scores(workdir: Path) -> dict[str, Any]:
    path = workdir / 'scores.json'
    return read_scores(path) if path.exists() else {}


def _pooled(row: TableRow, output: Path, seeds: Sequence[int], evaluate: bool) -> dict[str, Any]:
    """Scores of all seeds' members in one ensemble; made once for the same members."""
    workdirs = [_workdir(row, seed, output) for seed in seeds]
    wanted = [member['step'] for workdir in workdirs for member in _scores(workdir)['test']['members']]
    pooled = output / 'pooled' / ('_'.join([workdirs[0].parent.name, *map(str, seeds)]))
    complete = lambda: all(
        [member['step'] for member in _scores(pooled).get(split, {}).get('members', [])] == wanted
        for split in ('validation', 'test')
    )
    if evaluate and not complete():
        settings = load_config(row.config, _overrides(row, seeds[0])).evaluation
        for split in ('validation', 'test'):
            runs = ','.join(map(str, workdirs))
            command = [sys.executable, '-m', 'fer_jax.evaluate', f'--runs={runs}', f'--split={split}']
            _run([*command, f'--last={settings.last}', f'--tta={settings.tta}', f'--output={pooled}'])
    return _scores(pooled) if complete() else {}


def _read_row(row: TableRow, output: Path, table: str, evaluate: bool) -> Row:
    found = {seed: _finished(row, seed, output) for seed in row.seeds}
    seeds = [seed for seed, scores in found.items() if scores]
    workdirs = [_workdir(row, seed, output) for seed in seeds]
    described = [json.loads((workdir / 'config.json').read_text()) for workdir in workdirs]
    if row.read == 'pooled':
        pooled = _pooled(row, output, seeds, evaluate) if seeds else {}
        scores, part = [pooled] if pooled else [], 'ensemble'
    else:
        scores, part = [found[seed] for seed in seeds], row.read
    devices = {f'{entry["devices"]["count"]} x {entry["devices"]["kind"]}' for entry in described}
    return Row(
        name=row.name,
        accuracies={split: [entry[split][part]['accuracy'] for entry in scores] for split in ('validation', 'test')},
        seeds=seeds,
        published=row.published,
        source=row.source,
        seconds=sum(_seconds(workdir) for workdir in workdirs) if workdirs else None,
        device=', '.join(sorted(devices)),
        manifest=', '.join(sorted({entry['manifest_hash'] for entry in described})),
        command=f"python -m fer_jax.reproduce --table={table} --rows='{row.name}'",
    )


def _seconds(workdir: Path) -> float:
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return json.loads(lines[-1])['seconds'] if lines else 0.0


if __name__ == '__main__':
    cli.run(main)
