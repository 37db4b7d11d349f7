"""How well each method of the audit finds labels that were made wrong: a row per method, noise and rate, over seeds.

    python benchmarks/audit.py --data=synthetic [--rates=.1,.2,.3] [--kinds=symmetric,confusion] [--seeds=0,1,2]
        [--methods=NAME,…] [--pairs=DIR,…] [--folds=3] [--output=DIR] [--table] [--config.KEY=VALUE …]

A cell is a rate, a kind and a seed, which is that of the noise and of the networks. Cells that are done are not done
again, and one that was interrupted goes on. Confusion noise has the odds of a classifier that is trained on the clean
labels first. `ssim` joins the methods with --pairs; `random` flags the true share. --table only prints what is there.
The networks of a cell are removed when it is done; its files and audit.json stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fer_jax import runtime, train
from fer_jax.audit import Options, audit
from fer_jax.config import load_config
from fer_jax.reports.tables import duration, markdown_table, mean_and_interval
from fer_jax.training.stopping import Stopped

CONFIGS = {'synthetic': 'configs/audit/synthetic.py', 'fer2013': 'configs/audit/fer2013.py'}
DEFAULT = 'confident_learning,self_confidence,margin,aum,random'
SCORES = ('auroc', 'average_precision', 'precision', 'recall', 'f1', 'true_rate', 'relabel_accuracy')
COLUMNS = (
    'noise',
    'rate',
    'method',
    'AUROC',
    'per seed',
    'average precision',
    'precision',
    'recall',
    'F1',
    'F1 at the true rate',
    'relabel accuracy',
    'trained',
    'judged',
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, does the cells that are missing and prints the tables; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', required=True, choices=CONFIGS)
    parser.add_argument('--rates', default='.1,.2,.3')
    parser.add_argument('--kinds', default='symmetric,confusion')
    parser.add_argument('--seeds', default='0,1,2')
    parser.add_argument('--methods', default='', help=f'default: {DEFAULT}, and ssim with --pairs')
    parser.add_argument('--pairs', default='', help='directories of trained pairs, {rate}, {kind} and {seed} filled in')
    parser.add_argument('--folds', type=int, default=3)
    parser.add_argument('--output', default='checkpoints/benchmarks/audit')
    parser.add_argument('--table', action='store_true', help='print what is there, and train nothing')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    config = load_config(CONFIGS[flags.data], [word for word in argv if word.startswith('--config.')])
    methods = (flags.methods or DEFAULT + (',ssim' if flags.pairs else '')).split(',')
    output = Path(flags.output) / flags.data
    cells = [
        (kind, float(rate), int(seed))
        for seed in flags.seeds.split(',')
        for kind in flags.kinds.split(',')
        for rate in flags.rates.split(',')
    ]
    if not flags.table:
        runtime.configure()
        for number, cell in enumerate(cells, 1):
            print(f'cell {number} of {len(cells)}: {cell}', file=sys.stderr)
            try:
                _do(config, cell, methods, flags, output)
            except Stopped as stopped:
                signal_number, step = stopped.args
                sys.exit(f'stopped at step {step} by signal {signal_number}; the same command goes on from there')
    print(report(output, cells, methods))


def _do(config: ConfigDict, cell: tuple[str, float, int], methods: Sequence[str], flags, output: Path) -> None:
    kind, rate, seed = cell
    directory = _directory(output, cell)
    missing = [name for name in methods if name not in _read(directory).get('methods', {})]
    if not missing:
        return
    noise = {'rate': rate, 'kind': kind, 'seed': seed}
    if kind == 'confusion':
        noise['confusion'] = _confusions(config, output / 'clean')
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.seed = seed
        config.data.noise.update(noise)
    pairs = tuple(name.format(rate=rate, kind=kind, seed=seed) for name in flags.pairs.split(',') if name)
    automatic = [name for name in missing if name != 'random']
    if automatic:
        audit(config, automatic, str(directory), Options(pairs=pairs, folds=flags.folds))
    if 'random' in missing:
        audit(config, ['random'], str(directory), Options(share=rate, seed=seed))
    shutil.rmtree(directory / 'runs', ignore_errors=True)


def _confusions(config: ConfigDict, workdir: Path) -> str:
    """scores.json of a classifier on clean labels, trained if it is not there yet."""
    train.train(config, str(workdir))
    return str(workdir / 'scores.json')


def report(output: Path, cells: Sequence[tuple[str, float, int]], methods: Sequence[str]) -> str:
    """The tables: over all classes, and AUROC per class."""
    rows, per_class, names, machines = [], [], [], set()
    for kind, rate in dict.fromkeys(cell[:2] for cell in cells):
        for method in methods:
            told = []
            for cell in (cell for cell in cells if cell[:2] == (kind, rate)):
                read = _read(_directory(output, cell))
                if method in read.get('methods', {}):
                    told.append(read['methods'][method])
                    names = read['manifest']['class_names']
                    machines.add(
                        f'{read["devices"]["count"]} x {read["devices"]["kind"]}, jax {read["versions"]["jax"]}'
                    )
            if told:
                head = [kind, f'{100 * rate:g} %', method]
                rows.append(head + _cells(told))
                values = [[of['detection']['per_class'][name]['auroc'] for name in names] for of in told]
                found = np.array(values, float)  # None, of a class without a wrong label, is no number
                per_class.append(head + [f'{value:.3f}' for value in found.mean(0)])
    if not rows:
        return f'nothing is there yet in {output}'
    text = markdown_table(COLUMNS, rows, right=range(3, len(COLUMNS)))
    text += '\nAUROC per class of the label, mean over seeds:\n\n'
    text += markdown_table(['noise', 'rate', 'method', *names], per_class, right=range(3, 3 + len(names)))
    cpu = f'{len(os.sched_getaffinity(0))} cores of {platform.processor() or platform.machine()}'
    return f'{text}\n{"; ".join(sorted(machines))}; {cpu}\n'


def _cells(told: Sequence[dict]) -> list[str]:
    found = {name: [_score(of['detection'], name) for of in told] for name in SCORES}
    mean, half = mean_and_interval(found['auroc'])
    cells = [f'{mean:.4f}' + ('' if half is None else f' ± {half:.4f}'), ' '.join(f'{v:.4f}' for v in found['auroc'])]
    for name in SCORES[1:]:
        there = [value for value in found[name] if value is not None]
        cells.append(f'{np.mean(there):.3f}' if there else '-')
    return cells + [duration(float(np.mean([of[name] for of in told]))) for name in ('training_seconds', 'seconds')]


def _score(detection: dict, name: str) -> float | None:
    if name == 'true_rate':
        return detection['true_rate']['f1']
    return detection[name] if name in detection else detection['flags'][name]


def _directory(output: Path, cell: tuple[str, float, int]) -> Path:
    kind, rate, seed = cell
    return output / f'{kind}_{100 * rate:g}_seed{seed}'


def _read(directory: Path) -> dict:
    path = directory / 'audit.json'
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == '__main__':
    main()
