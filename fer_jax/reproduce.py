"""`python -m fer_jax.reproduce`: trains what a table still lacks, and prints it beside the published numbers."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax import cli, rehearsal
from fer_jax.at_once import Failure, Work, device_slots, run_at_once
from fer_jax.clusters import visible_gpus
from fer_jax.data.aside import written_aside
from fer_jax.data.folds import FOLD_BY
from fer_jax.errors import UserError
from fer_jax.prepare import settings_of
from fer_jax.steps import make_steps
from fer_jax.table import Table
from fer_jax.table_results import in_markdown, wrapped
from fer_jax.tables import Job, choose_rows, jobs_of, load_table


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and reproduces; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.reproduce', description=__doc__)
    parser.add_argument('--table', required=True, metavar='FILE[:ARG]', help='a file of configs/tables')
    parser.add_argument('--source', metavar='PATH', help='the data as obtained, prepared first if it is not yet')
    parser.add_argument('--output', metavar='DIR', help='where the runs live; default checkpoints/tables/NAME')
    parser.add_argument('--rows', metavar='NAME[,NAME…]', help='only these rows')
    parser.add_argument('--seeds', metavar='N[,N…]', help="only these of each row's seeds")
    parser.add_argument('--fold-by', metavar='WAY[,WAY…]', help=f'only these kinds of folds ({", ".join(FOLD_BY)})')
    parser.add_argument('--no-train', action='store_true', help='print the table from the runs that are there')
    words = 'two steps per run on a few drawn faces (or on --source): shows that the way is open, and is no result'
    parser.add_argument('--rehearse', action='store_true', help=words)
    words = 'processes that train side by side, on every GPU in turn or on the CPU; each has a log'
    parser.add_argument('--at-once', type=int, default=1, metavar='N', help=words)
    flags = parser.parse_args(argv)
    if flags.at_once < 1:
        raise UserError(f'--at-once={flags.at_once}: a number of processes is wanted, 1 or more')
    table = load_table(flags.table)
    rows = choose_rows(table, flags.rows, flags.seeds, flags.fold_by)
    folder = 'rehearsals' if flags.rehearse else 'tables'
    name = flags.table.rpartition('/')[2].replace('.py', '').replace(':', '_')
    output = Path(flags.output or os.path.join('checkpoints', folder, name))
    of_row = [jobs_of(row, output, flags.rehearse, table) for row in rows]
    jobs = list({(job.workdir, *job.flags): job for job in _by_seed(of_row)}.values())
    path = output / ('rehearsal.md' if flags.rehearse else 'table.md')
    write = functools.partial(_write, path, table, of_row, output, f'--table={flags.table}', rehearse=flags.rehearse)
    for job in jobs:
        job.config()  # what is wrong in it is said before anything trains
    everything = flags.rows or flags.rehearse or visible_gpus(os.environ)
    left_out = [job for job in jobs if job.row.wants_gpu and not everything]
    jobs = [job for job in jobs if job not in left_out]
    failed: dict[str, Failure] = {}
    if not flags.no_train:
        for name in dict.fromkeys(job.data for job in jobs if job.data != 'synthetic'):
            prepared = rehearsal.prepared(name, output) if flags.rehearse else Path(name)
            if not (prepared / 'manifest.json').exists():
                _prepare(table, name, prepared, _source(table, flags.source, output, flags.rehearse))
            else:
                if not flags.rehearse:
                    _refuse_other_preparation(table, name)
                if flags.source:
                    print(f'{prepared} is prepared already; --source is not read', file=sys.stderr)
            _refuse_missing_units(prepared, [job for job in jobs if job.data == name])
        for name in dict.fromkeys(job.row.name for job in left_out):
            print(
                f'{name!r} wants a GPU and is not trained here; --rows={name!r} does so all the same', file=sys.stderr
            )
        if flags.at_once > 1:
            failed = _train_at_once(jobs, flags.at_once, write)
        else:
            _train_in_turn(jobs, write)
    text = write(run=None if flags.no_train else lambda command: _run(command))
    print(text)
    print(f'written to {path}')
    for name, why in failed.items():
        print(f'fer_jax.reproduce: error: {name}: {why}', file=sys.stderr)
    return min((2 if why.code == 2 else 1 for why in failed.values()), default=0)


def _train_in_turn(jobs: Sequence[Job], write: Callable[[], object]) -> None:
    for number, job in enumerate(jobs, 1):
        make_steps(job.steps, lambda command: _run(command), lambda words: print(words, file=sys.stderr))
        if not job.results():
            print(f'{_kind(job)} {number} of {len(jobs)}: {job.workdir}', file=sys.stderr)
            _run(job.command())
            write()  # what there is: the whole may take days


def _train_at_once(jobs: Sequence[Job], count: int, write: Callable[[], object]) -> dict[str, Failure]:
    """The same with so many processes at a time, which share the GPUs' memory as they need it; what failed, and why."""
    steps = {step.directory: step for job in jobs for step in job.steps.values()}
    steps = {place: step for place, step in steps.items() if not step.is_done()}
    works = [
        Work(
            f'step {place}',
            step.command(),
            f'{place}.log',
            [f'step {one.directory}' for one in step.inputs if one.directory in steps],
            done=step.note_done,
        )
        for place, step in steps.items()
    ]
    of_workdir: dict[Path, list[str]] = {}
    for job in jobs:
        if not job.results():
            before = of_workdir.setdefault(job.workdir, [])  # of another row, which reads other splits of the same run
            name = f'{_kind(job)} {job.workdir}' + ', more splits' * len(before)
            after = [f'step {step.directory}' for step in job.needed() if step.directory in steps] + before
            needless = lambda job=job: bool(job.results())
            works.append(Work(name, job.command(), str(job.workdir / 'log.txt'), after, needless, write))
            before.append(name)
    memory = {'XLA_PYTHON_CLIENT_PREALLOCATE': os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')}
    slots = [slot | memory for slot in device_slots()]
    received, failed = run_at_once(
        works,
        [slots[number % len(slots)] for number in range(count)],
        lambda words: print(words, file=sys.stderr, flush=True),
    )
    if received:
        print('stopped; the same command goes on from there', file=sys.stderr)
        sys.exit(128 + received)
    return failed


def _kind(job: Job) -> str:
    return 'cross-validation' if job.by else 'run'


def _write(path: Path, *given: Any, **more: Any) -> str:
    """Writes `in_markdown` of what is given, aside first, and returns it."""
    text = in_markdown(*given, **more)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + '.partial')
    aside.write_text(text)
    os.replace(aside, path)
    return text


def _by_seed(of_row: Sequence[Sequence[Job]]) -> list[Job]:
    """Every row's first seed before any row's second."""
    jobs = [job for jobs in of_row for job in jobs]
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    return sorted(jobs, key=lambda job: seeds.index(job.seed))


def _source(table: Table, given: str | None, output: Path, rehearsed: bool) -> str | None:
    if given is None and rehearsed:
        drawn = output / 'source'
        if not drawn.exists():
            with written_aside(drawn) as aside:  # drawing that was interrupted leaves no part to be prepared
                _run(['fer_jax.rehearsal', f'--dataset={table.dataset}', f'--output={aside}'], JAX_PLATFORMS='cpu')
        return str(drawn)
    return table.place if given is None and table.place and os.path.exists(table.place) else given


def _prepare(table: Table, name: str, prepared: Path, source: str | None) -> None:
    """Prepares from `source` what the rows read in the directory `name`, or says how to obtain it."""
    known = _known(table)
    if name not in known:
        raise UserError(f'{name} is not there, and the table does not say how to prepare it')
    if source is None:
        how = {
            'obtain': table.obtain,
            'then': (f'put it in {table.place}, or give' if table.place else 'give')
            + ' --source=PATH, and run the same command again',
            'now': 'the same command with --rehearse goes the whole way on a few drawn faces',
        }
        lines = [wrapped(text, 110, f'  {what:<8}', ' ' * 10) for what, text in how.items()]
        raise UserError('\n'.join([f'{prepared} is not there yet', *lines]))
    _run(['fer_jax.prepare', *known[name], f'--source={source}', f'--output={prepared}'])


def _known(table: Table) -> dict[str, Sequence[str]]:
    return {f'data/{table.dataset}': (f'--dataset={table.dataset}',), **table.prepare}


def _refuse_other_preparation(table: Table, name: str) -> None:
    """Refuses prepared data with other classes or another cut than the published numbers are of.

    A form whose faces are not cut out yet may be aligned where the table asks for nothing.
    """
    flags = _known(table).get(name)
    if flags is None:
        return
    with open(os.path.join(name, 'manifest.json')) as file:
        manifest = json.load(file)
    wanted = settings_of(flags)
    pairs = {'dataset': (manifest['dataset'], wanted['dataset'])}
    pairs |= {word: (manifest['options'].get(word), wanted['options'][word]) for word in ('classes', 'split')}
    if wanted['align']:
        pairs['align'] = (manifest['align'], wanted['align'])
    for what, (there, here) in pairs.items():
        if there != here:
            raise UserError(
                f'{name} was prepared with {what} {json.dumps(there)}, and this table wants {json.dumps(here)}; '
                f'prepare it anew with {" ".join(flags)} --overwrite'
            )


def _refuse_missing_units(prepared: Path, jobs: Sequence[Job]) -> None:
    """Folds by subject of data that names no subjects: said now, not after the folds by image have been trained."""
    for by in dict.fromkeys(job.by for job in jobs if job.by not in ('', 'image')):
        for path in sorted(prepared.glob('index-*.npz')):
            with np.load(path) as index:
                named = by in index.files and (index[by] != '').any()
                if len(index['label']) and not named:
                    others = ','.join(dict.fromkeys(job.by for job in jobs if job.by not in ('', by)))
                    raise UserError(
                        f'{prepared} was prepared from a form that names no {by}s, so there can be no folds by {by}; '
                        f'prepare another form, or take --fold-by={others or "image"}'
                    )


def _run(command: Sequence[str], **environment: str) -> None:
    """Runs a module to its end; what stops this process stops it too, and lets it save its checkpoint."""
    process = subprocess.Popen([sys.executable, '-m', *command], env=os.environ | environment)
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


if __name__ == '__main__':
    cli.run(main)
