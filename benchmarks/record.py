"""FER2013's record: recipes tried on PublicTest, the best of them with several seeds, PrivateTest read once at the end.

    python benchmarks/record.py [--workdir=checkpoints/record] [--data=data/fer2013_aligned] [--minutes=9] [--seeds=5]
        [--jobs=3] [--tta=ten_crop] [--recipes=NAME,…] [--config.KEY=VALUE …]

Each run is a `fer_jax.train` of configs/fer2013/record.py in a process of its own, so many at once on one device: while
one starts, compiles or writes, the others train. After --minutes what still runs is told to stop, and the same command
goes on from there. --config flags change all runs alike, for a rehearsal on a CPU for example. The recipe is chosen by
PublicTest alone (seed 0, by --tta); then `fer_jax.evaluate` reads PrivateTest for all seeds and their ensemble at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

# Name: what it changes of configs/fer2013/record.py.
RECIPES = {
    'resnet18_mix': {},
    'resnet18_plain': {'train.mixup': 0.0, 'train.cutmix': 0.0},
    'vgg19_mix': {'model.name': 'vgg19'},
}
_NOT_DONE = 75  # EX_TEMPFAIL: call again
_GRACE = 20.0  # seconds to write a checkpoint in


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, trains what is missing, and reports; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', default='checkpoints/record', type=Path)
    parser.add_argument('--data', default='data/fer2013_aligned')
    parser.add_argument('--minutes', type=float, default=9.0, help='until all that runs is stopped')
    parser.add_argument('--seeds', type=int, default=5, help='of the best recipe')
    parser.add_argument('--jobs', type=int, default=3, help='runs at once')
    parser.add_argument('--tta', default='ten_crop', help='views, in choosing and in the end')
    parser.add_argument('--recipes', default=','.join(RECIPES), help='that are tried')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    recipes = flags.recipes.split(',')
    if unknown := [name for name in recipes if name not in RECIPES]:
        parser.error(f'--recipes names {unknown[0]}; there are {", ".join(RECIPES)}')
    if flags.seeds < 1 or flags.jobs < 1:
        parser.error('--seeds and --jobs are 1 or more')
    common = [f'--config.data.name={flags.data}', f'--config.evaluation.tta={flags.tta}']
    common += [word for word in argv if word.startswith('--config.')]
    until = time.monotonic() + 60 * flags.minutes
    first = {flags.workdir / name / 'seed0': _command(name, 0, common) for name in recipes}
    if not _train(first, flags.jobs, until):
        return _NOT_DONE
    found = {name: _validation(flags.workdir / name / 'seed0') for name in recipes}
    for name, accuracy in found.items():
        print(f'{name}: PublicTest {100 * accuracy:.2f} %', flush=True)
    best = max(recipes, key=found.__getitem__)
    runs = {flags.workdir / best / f'seed{seed}': _command(best, seed, common) for seed in range(flags.seeds)}
    if not _train(runs, flags.jobs, until):
        return _NOT_DONE
    together = flags.workdir / best / 'together'
    for split in ('validation', 'test'):
        if split not in _scores(together):
            given = [f'--runs={",".join(map(str, runs))}', f'--split={split}', f'--output={together}']
            command = [sys.executable, '-m', 'fer_jax.evaluate', *given, f'--tta={flags.tta}']
            if code := subprocess.run(command).returncode:
                return code
    print(table(_scores(together), best, list(runs)), flush=True)
    return 0


def table(scores: dict, recipe: str, runs: Sequence[Path]) -> str:
    """Markdown: each seed, their mean with its 95 % interval (Student's t), and all together."""
    lines = ['| | PublicTest | PrivateTest |', '| --- | ---: | ---: |']
    members = [[100 * member['accuracy'] for member in scores[split]['members']] for split in ('validation', 'test')]
    for run, *accuracies in zip(runs, *members, strict=True):
        lines.append(f'| {recipe}, {run.name} | ' + ' | '.join(f'{accuracy:.2f}' for accuracy in accuracies) + ' |')
    lines.append('| mean | ' + ' | '.join(map(_mean, members)) + ' |')
    together = [100 * scores[split]['ensemble']['accuracy'] for split in ('validation', 'test')]
    lines.append('| all together | ' + ' | '.join(f'{accuracy:.2f}' for accuracy in together) + ' |')
    return '\n'.join(lines)


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f'{np.mean(values):.2f}'
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f'{np.mean(values):.2f} ± {half:.2f}'


def _command(recipe: str, seed: int, common: Sequence[str]) -> list[str]:
    changes = [f'--config.{name}={value}' for name, value in {**RECIPES[recipe], 'seed': seed}.items()]
    return ['--config=configs/fer2013/record.py', *changes, *common]


def _train(runs: dict[Path, list[str]], jobs: int, until: float) -> bool:
    """Trains what is not scored yet; whether all are in time."""
    waiting = [(workdir, words) for workdir, words in runs.items() if 'validation' not in _scores(workdir)]
    environment = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}  # several share a device's memory
    with contextlib.ExitStack() as stack:
        running: dict[Path, subprocess.Popen] = {}
        while waiting or running:
            if time.monotonic() > until:
                return _stop(running)
            while waiting and len(running) < jobs:
                workdir, words = waiting.pop(0)
                workdir.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(open(workdir / 'log.txt', 'a'))
                command = [sys.executable, '-m', 'fer_jax.train', *words, f'--workdir={workdir}']
                running[workdir] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
                print(f'{time.strftime("%H:%M:%S")} {workdir} is trained', flush=True)
            time.sleep(0.2)
            for workdir, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[workdir]
                if process.returncode:
                    _stop(running)
                    sys.exit(f'{workdir} ended with code {process.returncode}; see {workdir / "log.txt"}')
                print(f'{time.strftime("%H:%M:%S")} {workdir}: {100 * _validation(workdir):.2f} %', flush=True)
    return True


def _stop(running: dict[Path, subprocess.Popen]) -> bool:
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    for workdir, process in running.items():
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        print(f'{workdir} is stopped; the same command goes on from its checkpoint', flush=True)
    return False


def _scores(workdir: Path) -> dict:
    path = workdir / 'scores.json'
    return json.loads(path.read_text()) if path.exists() else {}


def _validation(workdir: Path) -> float:
    return _scores(workdir)['validation']['single']['accuracy']


if __name__ == '__main__':
    sys.exit(main())
