"""How well each method of the audit finds labels that were made wrong: a row per method, noise and rate, over seeds.

    python benchmarks/audit.py --data=synthetic [--rates=.1,.2,.3] [--kinds=symmetric,confusion] [--seeds=0,1,2]
        [--methods=NAME,…] [--pairs=FILE[:ARG]] [--folds=3] [--output=DIR] [--table] [--config.KEY=VALUE …]

A cell is a rate, a kind and a seed, which is that of the noise and of the networks. Cells that are done are not done
again, and one that was interrupted goes on; after each OUTPUT/DATA/table.md has what is there. Confusion noise has the
odds of a classifier that is trained on the clean labels first. `ssim` joins the methods with --pairs, a configuration
of pairs, which are trained on each cell's labels; `random` flags the true share. --table only prints what is there.
The networks of a cell are removed when it is done; its files and audit.json stay.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fer_jax import cli, run_json, runtime, several, train
from fer_jax.audit import Options, audit
from fer_jax.audit_methods import METHODS
from fer_jax.config import default_config, load_config
from fer_jax.data.noise import KINDS
from fer_jax.errors import UserError
from fer_jax.evidence import audited_config
from fer_jax.reports.audit import MEASURES, measures
from fer_jax.reports.tables import duration, markdown_table, mean_and_interval
from fer_jax.runs import other_fields
from fer_jax.training.stopping import Stopped

CONFIGS = {'synthetic': 'configs/audit/synthetic.py', 'fer2013': 'configs/audit/fer2013.py'}
DEFAULT = 'confident_learning,self_confidence,margin,aum,consensus,random'
COLUMNS = ('noise', 'rate', 'method', 'scored', 'AUROC', 'per seed', *list(MEASURES)[1:], 'trained', 'judged')
_OF_CLASSIFIERS = ('normalize', 'crop', 'soft_labels')  # fields of `config.data` that a pair refuses


@dataclasses.dataclass(frozen=True)
class Cell:
    """Labels made wrong: of which kind, how many, by which seed; and the directory of what is found."""

    kind: str
    rate: float
    seed: int
    directory: Path

    def configure(self, config: ConfigDict) -> ConfigDict:
        """The configuration whose labels are wrong so."""
        config = audited_config(config).unlock()
        config.seed = self.seed
        config.data.noise.update({'rate': self.rate, 'kind': self.kind, 'seed': self.seed})
        if self.kind == 'confusion':
            config.data.noise.confusion = str(self.directory.parent / 'clean' / 'scores.json')
        return config.lock()

    @property
    def pairs_json(self) -> Path:
        """The configuration of the pairs that `ssim` goes by."""
        return self.directory / 'pairs.json'

    def read(self) -> dict:
        """audit.json, or {}."""
        path = self.directory / 'audit.json'
        return json.loads(path.read_text()) if path.exists() else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, does the cells that are missing and prints the tables; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = cli.ArgumentParser(prog='benchmarks/audit.py', description=__doc__.splitlines()[0])
    parser.add_argument('--data', required=True, choices=CONFIGS)
    parser.add_argument('--rates', default='.1,.2,.3')
    parser.add_argument('--kinds', default=','.join(KINDS))
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--methods', default='', help=f'default: {DEFAULT}, and ssim with --pairs')
    parser.add_argument(
        '--pairs', default='', metavar='FILE[:ARG]', help='of configs/, trained on the labels of a cell'
    )
    parser.add_argument('--folds', type=int, default=3)
    parser.add_argument('--output', default='checkpoints/benchmarks/audit')
    parser.add_argument('--table', action='store_true', help='print what is there, and train nothing')
    parser.add_argument('--config.KEY', metavar='VALUE', dest='_', help='changes one field, as --config.train.epochs=4')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    config = load_config(CONFIGS[flags.data], [word for word in argv if word.startswith('--config.')])
    methods = (flags.methods or DEFAULT + (',ssim' if flags.pairs else '')).split(',')
    output = Path(flags.output) / flags.data
    cells = list(_cells(flags, output, methods))
    for cell in cells:
        _refuse_another(cell, config, flags)
    if not flags.table:
        runtime.configure()
        for number, cell in enumerate(cells, 1):
            print(f'cell {number} of {len(cells)}: {cell.directory}', file=sys.stderr)
            try:
                _do(config, cell, methods, flags)
            except Stopped as stopped:
                signal_number, step = stopped.args
                print(f'stopped at step {step}; the same command goes on from there', file=sys.stderr)
                return 128 + signal_number
            aside = output / 'table.md.partial'
            aside.write_text(report(cells, methods))
            os.replace(aside, output / 'table.md')
    print(report(cells, methods) or f'nothing is there yet in {output}')
    return 0


def _cells(flags: argparse.Namespace, output: Path, methods: Sequence[str]) -> Iterator[Cell]:
    """All that the flags ask for, every noise and rate of one seed before the next seed."""
    for flag, given, known in (('methods', methods, METHODS), ('kinds', flags.kinds.split(','), KINDS)):
        for name in given:
            if name not in known:
                raise UserError(f'--{flag}: there is no {name!r}; there are {", ".join(known)}')
    if 'ssim' in methods and not (flags.pairs or flags.table):
        raise UserError('ssim goes by pairs; give --pairs=FILE, such as configs/gan_study/pairs.py:fer2013')
    try:
        rates, seeds = [float(text) for text in flags.rates.split(',')], [int(text) for text in flags.seeds.split(',')]
    except ValueError as error:
        raise UserError(
            f'--rates={flags.rates} --seeds={flags.seeds}: numbers with commas are wanted ({error})'
        ) from None
    if not all(0 < rate < 1 for rate in rates):
        raise UserError(f'--rates={flags.rates}: shares of the labels are wanted, such as .1,.2')
    for seed in seeds:
        for kind in flags.kinds.split(','):
            for rate in rates:
                yield Cell(kind, rate, seed, output / f'{kind}_{100 * rate:g}_seed{seed}')


def _refuse_another(cell: Cell, config: ConfigDict, flags: argparse.Namespace) -> None:
    """Refuses a cell that is there of another configuration: the table would take it for this one's."""
    read = cell.read()
    others = [*other_fields(read['config'], cell.configure(config))] if read else []
    others += [('folds', of['folds']['count'], flags.folds) for of in read.get('methods', {}).values() if 'folds' in of]
    if flags.pairs and cell.pairs_json.exists():
        wanted = _pairs_of(cell.configure(config), flags.pairs)
        others += other_fields(json.loads(cell.pairs_json.read_text()), wanted)
    for name, there, here in others:
        if there != here:
            raise UserError(
                f'{cell.directory} was done with {name}={there!r}, and now it would be {here!r}; choose another '
                '--output, or give the same flags'
            )


def _do(config: ConfigDict, cell: Cell, methods: Sequence[str], flags: argparse.Namespace) -> None:
    missing = [name for name in methods if name not in cell.read().get('methods', {})]
    runs, pairs = cell.directory / 'runs', cell.directory / 'pairs'
    if missing and cell.kind == 'confusion':
        clean = config.copy_and_resolve_references().unlock()
        clean.evaluation.splits = ('validation',)
        train.train(clean.lock(), str(cell.directory.parent / 'clean'))
    config = cell.configure(config)
    if 'ssim' in missing:
        wanted = _pairs_of(config, flags.pairs)
        cell.directory.mkdir(parents=True, exist_ok=True)
        run_json.write_json(str(cell.pairs_json), wanted.to_dict())
        several.train_in_turn(wanted, str(pairs), train.train)
    if 'random' in missing:  # before the others, whose figures audit.md then has
        audit(config, ['random'], str(cell.directory), Options(share=cell.rate, seed=cell.seed))
    automatic = [name for name in missing if name != 'random']
    if automatic:
        trained = (str(pairs),) if 'ssim' in missing else ()
        audit(config, automatic, str(cell.directory), Options(pairs=trained, folds=flags.folds))
    for networks in (runs, pairs):
        shutil.rmtree(networks, ignore_errors=True)


def _pairs_of(config: ConfigDict, file: str) -> ConfigDict:
    """The pairs of a file, on the data and under the seed of a configuration."""
    pairs = load_config(file, []).unlock()
    pairs.seed = config.seed
    pairs.data = ConfigDict(config.data.to_dict())
    pairs.data.update({name: default_config().data[name] for name in _OF_CLASSIFIERS})
    return pairs.lock()


def report(cells: Sequence[Cell], methods: Sequence[str]) -> str:
    """The tables: over all classes, and AUROC per class; '' where nothing is there yet."""
    rows, per_class, names, machines = [], [], [], set()
    for kind, rate in dict.fromkeys((cell.kind, cell.rate) for cell in cells):
        audits = [read for cell in cells if (cell.kind, cell.rate) == (kind, rate) and (read := cell.read())]
        for read in audits:
            names = read['manifest']['class_names']
            machines.add(f'{read["devices"]["count"]} x {read["devices"]["kind"]}, jax {read["versions"]["jax"]}')
        for method in methods:
            told = [read['methods'][method] for read in audits if method in read['methods']]
            if told:
                head = [kind, f'{100 * rate:g} %', method]
                rows.append(head + _over_seeds(told))
                classes = [[of['detection']['per_class'][name]['auroc'] for of in told] for name in names]
                per_class.append(head + [_mean(values) for values in classes])
    if not rows:
        return ''
    text = markdown_table(COLUMNS, rows, right=range(3, len(COLUMNS)))
    text += '\nAUROC per class of the label, mean over seeds:\n\n'
    text += markdown_table(['noise', 'rate', 'method', *names], per_class, right=range(3, 3 + len(names)))
    cpu = f'{len(os.sched_getaffinity(0))} cores of {platform.processor() or platform.machine()}'
    return f'{text}\n{"; ".join(sorted(machines))}; {cpu}\n'


def _over_seeds(told: Sequence[dict]) -> list[str]:
    found = [measures(of) for of in told]
    first = [of['AUROC'] for of in found if of['AUROC'] is not None]
    mean, half = mean_and_interval(first) if first else (np.nan, None)
    cells = [f'{100 * np.mean([of["scored"] / of["images"] for of in told]):.0f} %']
    cells += [f'{mean:.4f}' + ('' if half is None else f' ± {half:.4f}'), ' '.join(f'{value:.4f}' for value in first)]
    cells += [_mean([of[name] for of in found]) for name in list(MEASURES)[1:]]
    return cells + [duration(float(np.mean([of[name] for of in told]))) for name in ('training_seconds', 'seconds')]


def _mean(values: Sequence[float | None]) -> str:
    """Of the seeds where there is one: a class without a wrong label has no AUROC."""
    there = [value for value in values if value is not None]
    return f'{np.mean(there):.3f}' if there else '-'


if __name__ == '__main__':
    cli.run(main)
