"""`python -m fer_jax.crossvalidate`: trains a configuration once per fold, tests every image once, and reports.

    python -m fer_jax.crossvalidate --config=FILE[:ARG] --workdir=DIR [--folds=0,3] [--config.KEY=VALUE …]

Fold K is a run of its own in DIR/foldK; the same command goes on where it stopped. Folds do not need each other: with
--folds, several processes, each on its own device, share a DIR, and the one that ends last writes folds.json, report.md
and figures there (see fer_jax.evaluation.folds).
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fer_jax import cli, experiment, runtime, train
from fer_jax.config import load_config
from fer_jax.data.folds import assign_folds, check_folds, pool_splits, units_of
from fer_jax.errors import UserError
from fer_jax.evaluation import folds as fold_files
from fer_jax.reports.folds import folds_table, write_folds_report
from fer_jax.reports.tables import duration
from fer_jax.runs import finished_fold, fold_config
from fer_jax.training.stopping import Stopped


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and cross-validates; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = cli.ArgumentParser(prog='fer_jax.crossvalidate', description=__doc__.splitlines()[0])
    parser.add_argument('--config', required=True, metavar='FILE[:ARG]', help='a file of configs/')
    parser.add_argument('--workdir', required=True, metavar='DIR', help='where the folds live; the same one goes on')
    parser.add_argument('--folds', metavar='N[,N…]', help='train only these, counted from 0')
    parser.add_argument('--config.KEY', metavar='VALUE', dest='_', help='changes one field, as --config.seed=1')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    changes = [word for word in argv if word.startswith('--config.')]
    for word in changes:
        if word.startswith('--config.data.fold='):
            raise UserError(
                f'{word}: this command trains every fold; --folds={word.partition("=")[2]} trains only that one'
            )
    config = load_config(flags.config, changes)
    if config.task != 'classify':
        raise UserError(f'{flags.config} trains config.task={config.task}; a cross-validation is of a classifier')
    chosen = _choose(flags.folds, config.data.folds)
    runtime.configure()
    try:
        crossvalidate(config, flags.workdir, chosen)
    except Stopped as stopped:
        number, step = stopped.args
        print(f'stopped at step {step}; the checkpoint is written, the same command goes on from it', file=sys.stderr)
        return 128 + number
    return 0


def crossvalidate(config: ConfigDict, workdir: str, chosen: Sequence[int]) -> None:
    """Trains the chosen folds, from where they stand, and reports once every fold is there.

    Raises:
        UserError: for anything in the configuration, the data or the workdir that does not fit.
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f'--workdir={workdir} is a file; a directory is wanted')
    check_folds(config.data.folds, 0, config.data.fold_validation)
    if config.train.teachers:
        raise UserError(
            'config.train.teachers have learned what other folds test; leave them out: --config.train.teachers=()'
        )
    _keep_assignment(assignment_of(config), workdir)
    directories = [fold_files.fold_directory(workdir, fold) for fold in range(config.data.folds)]
    done = lambda fold: finished_fold(Path(workdir), config, fold, 'this configuration')
    left = [fold for fold in chosen if not done(fold)]
    seconds = [fold_files.training_seconds(directories[fold]) for fold in chosen if fold not in left]
    for fold in left:
        _announce(f'fold {chosen.index(fold) + 1} of {len(chosen)}', directories[fold], seconds, len(chosen))
        start = time.monotonic()
        train.train(fold_config(config, fold), str(directories[fold]))
        seconds.append(time.monotonic() - start)
    missing = [str(fold) for fold in range(config.data.folds) if not done(fold)]
    if missing:
        print(f'folds {", ".join(missing)} of {workdir} are still to be trained; then the same command reports on all')
        return
    folds = fold_files.write_folds_json(workdir)
    report = write_folds_report(workdir)
    print(folds_table(folds))
    print(f'report: {report}   pictures: {os.path.join(workdir, "figures")}')


def assignment_of(config: ConfigDict) -> fold_files.Assignment:
    """Which fold tests each image of the data set, or training split, that the configuration names.

    Raises:
        UserError: if there cannot be such folds.
    """
    data = config.data
    dataset = experiment.load_foldable(config)
    whole = pool_splits(dataset)
    part_N = assign_folds(dataset.name, whole, data.folds, data.fold_by, data.split_seed)
    order_N = np.argsort(whole.ids, kind='stable')
    units_N = units_of(dataset.name, whole, data.fold_by)
    return fold_files.Assignment(whole.ids[order_N], units_N[order_N], part_N[order_N])


def _choose(text: str | None, folds: int) -> list[int]:
    if folds < 2:
        raise UserError(f'config.data.folds is {folds}; give --config.data.folds=10, or another number of folds')
    if text is None:
        return list(range(folds))
    try:
        chosen = sorted({int(word) for word in text.split(',')})
    except ValueError:
        raise UserError(f'--folds={text}: whole numbers with commas are wanted, such as 0,3') from None
    if not 0 <= chosen[0] <= chosen[-1] < folds:
        raise UserError(f'--folds={text}: of {folds} folds there are 0 to {folds - 1}')
    return chosen


def _keep_assignment(assignment: fold_files.Assignment, workdir: str) -> None:
    """Writes folds.csv, or refuses a workdir whose folds are others: a run would test what it has been trained on."""
    path = os.path.join(workdir, fold_files.FOLDS_CSV)
    if not os.path.exists(path):
        os.makedirs(workdir, exist_ok=True)
        fold_files.write_assignment(path, assignment)
    elif fold_files.read_assignment(path) != assignment:
        raise UserError(
            f'{path} assigns the images to other folds than this configuration and this data do; '
            'choose another --workdir, or give the same configuration to go on'
        )


def _announce(words: str, directory: Path, seconds: Sequence[float], count: int) -> None:
    """Says which fold begins and, once one has been timed, when all will be done."""
    if sum(seconds):
        wait = float(np.mean(seconds)) * (count - len(seconds))
        end = datetime.datetime.now() + datetime.timedelta(seconds=wait)
        words += f', about {duration(wait)} to go, done at {end:%H:%M}' + (f' on {end:%d %B}' if wait > 43200 else '')
    print(f'{words}: {directory}', file=sys.stderr)


if __name__ == '__main__':
    cli.run(main)
