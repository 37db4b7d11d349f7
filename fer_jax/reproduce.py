"""`python -m fer_jax.reproduce`: trains what a table still lacks, and prints it beside the published numbers."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_jax import cli
from fer_jax.config import Table, TableRow
from fer_jax.errors import UserError
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
    if not flags.no_train:
        _ensure_data(table, flags.source)
        runs = list(dict.fromkeys((_run_key(row), seed) for seed in _seeds(rows) for row in rows if seed in row.seeds))
        for number, (key, seed) in enumerate(runs, 1):
            _train(json.loads(key), seed, output, f'run {number} of {len(runs)}')
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
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        table = module.get_table()
    except Exception as error:  # a table is the user's code: whatever it raises is one line
        raise UserError(f'{path} failed: {type(error).__name__}: {error}') from error
    for row in table.rows:
        if row.read not in ('single', 'ensemble', 'pooled'):
            raise UserError(f'{path}: row {row.name!r} reads {row.read!r}; it can be single, ensemble or pooled')
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


def _run_key(row: TableRow) -> str:
    return json.dumps({'config': row.config, 'overrides': dict(row.overrides)}, sort_keys=True)


def _workdir(run: dict, seed: int, output: Path) -> Path:
    changes = [f'{name.rsplit(".", 1)[-1]}={value}' for name, value in run['overrides'].items()]
    return output / '_'.join([Path(run['config']).stem, *changes]) / f'seed{seed}'


def _train(run: dict, seed: int, output: Path, words: str) -> None:
    workdir = _workdir(run, seed, output)
    if 'test' in _scores(workdir):
        return
    print(f'{words}: {workdir}', file=sys.stderr)
    changes = run['overrides'] | {'seed': seed, 'evaluation.splits': 'validation,test'}
    overrides = [f'--config.{name}={value}' for name, value in changes.items()]
    _run([sys.executable, '-m', 'fer_jax.train', f'--config={run["config"]}', f'--workdir={workdir}', *overrides])


def _run(command: list[str]) -> None:
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code if code > 0 else 128 - code)


def _scores(workdir: Path) -> dict[str, Any]:
    path = workdir / 'scores.json'
    return json.loads(path.read_text()) if path.exists() else {}


def _pooled(row: TableRow, output: Path, seeds: Sequence[int], evaluate: bool) -> dict[str, Any]:
    """Scores of all seeds' members in one ensemble; made once."""
    run = json.loads(_run_key(row))
    workdirs = [str(_workdir(run, seed, output)) for seed in seeds]
    pooled = output / 'pooled' / ('_'.join([Path(workdirs[0]).parent.name, *map(str, seeds)]))
    if evaluate and 'test' not in _scores(pooled):
        settings = json.loads((Path(workdirs[0]) / 'config.json').read_text())['config']['evaluation']
        for split in ('validation', 'test'):
            command = [sys.executable, '-m', 'fer_jax.evaluate', f'--runs={",".join(workdirs)}', f'--split={split}']
            _run([*command, f'--last={settings["last"]}', f'--tta={settings["tta"]}', f'--output={pooled}'])
    return _scores(pooled)


def _read_row(row: TableRow, output: Path, table: str, evaluate: bool) -> Row:
    run = json.loads(_run_key(row))
    seeds = [seed for seed in row.seeds if 'test' in _scores(_workdir(run, seed, output))]
    workdirs = [_workdir(run, seed, output) for seed in seeds]
    described = [json.loads((workdir / 'config.json').read_text()) for workdir in workdirs]
    if row.read == 'pooled':
        scores = [_pooled(row, output, seeds, evaluate)] if seeds else []
        scores = [entry for entry in scores if entry]
        part = 'ensemble'
    else:
        scores, part = [_scores(workdir) for workdir in workdirs], row.read
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
    return json.loads(lines[-1])['seconds']


if __name__ == '__main__':
    cli.run(main)
