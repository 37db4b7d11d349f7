"""FER2013's record: networks trained from nothing, others taught by them, PrivateTest read once at the end.

    python benchmarks/record.py [--workdir=checkpoints/record] [--data=data/fer2013_aligned] [--minutes=9] [--jobs=4]
        [--plan=RECIPE:SEEDS,…] [--tta=ten_crop] [--config.KEY=VALUE …]

The plan's recipes are trained in its order, each with so many seeds; those that are taught wait for all before them
that are not, which are their teachers. Each run is a `fer_jax.train` of configs/fer2013/record.py in a process of its
own, so many at once on one device: while one starts, compiles or writes, the others train. After --minutes what still
runs is told to stop, and the same command goes on from there; runs of other flags or teachers are refused. --config
flags change all runs alike, for a rehearsal on a CPU for example. When all are trained `fer_jax.evaluate` reads both
splits once for the seeds of each recipe and for all networks together; which of them stands for the record is chosen by
PublicTest.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from fer_jax import cli
from fer_jax.config import as_flags, load_config
from fer_jax.errors import UserError
from fer_jax.runs import finished

# Name: what it changes of configs/fer2013/record.py.
RECIPES = {
    'resnet18_mix': {},
    'resnet18_plain': {'train.mixup': 0.0, 'train.cutmix': 0.0},
    'vgg19_mix': {'model.name': 'vgg19'},
    'resnet18_taught': {'train.epochs': 50.0},
    'resnet10_taught': {'train.epochs': 80.0, 'model.name': 'resnet10', 'model.dropout': 0.0},
}
TAUGHT = tuple(name for name in RECIPES if name.endswith('_taught'))
PLAN = 'resnet18_mix:5,vgg19_mix:3,resnet10_taught:1'
SPLITS = ('validation', 'test')
_ENVIRONMENT = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}  # several share a device's memory
_NOT_DONE = 75  # EX_TEMPFAIL: call again
_GRACE = 20.0  # seconds to write a checkpoint in


@dataclasses.dataclass(frozen=True)
class Run:
    """A recipe with a seed.

    Attributes:
        recipe: its name.
        workdir: where it lies.
        words: the train command's flags.
        teachers: runs that have to be done first.
    """

    recipe: str
    workdir: Path
    words: tuple[str, ...]
    teachers: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        """Whether it is trained and scored.

        Raises:
            UserError: if what lies there is another run.
        """
        config_file, *changes = self.words
        config = load_config(config_file.removeprefix('--config='), changes)
        return bool(finished(self.workdir, config, 'the plan'))


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags, trains what is missing, and reports; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = cli.ArgumentParser(prog='benchmarks/record.py', description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', default='checkpoints/record', type=Path)
    parser.add_argument('--data', default='data/fer2013_aligned')
    parser.add_argument('--minutes', type=float, default=9.0, help='until all that runs is stopped')
    parser.add_argument('--plan', default=PLAN, help=f'recipes and seeds of each; of {", ".join(RECIPES)}')
    parser.add_argument('--jobs', type=int, default=4, help='runs at once')
    parser.add_argument('--tta', default='ten_crop', help='views')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    plan = read_plan(flags.plan)
    if flags.jobs < 1:
        raise UserError(f'--jobs={flags.jobs}: 1 or more are wanted')
    common = [f'--config.data.name={flags.data}', f'--config.evaluation.tta={flags.tta}']
    common += [word for word in argv if word.startswith('--config.')]
    runs = _runs(plan, flags.workdir, common)
    if not _train(runs, flags.jobs, time.monotonic() + 60 * flags.minutes):
        return _NOT_DONE
    groups = {name: [run.workdir for run in runs if run.recipe == name] for name in plan}
    if len(groups) > 1:
        groups['all'] = [run.workdir for run in runs]
    together = {  # of just these runs: more seeds are another evaluation
        name: flags.workdir / 'together' / (words if name == 'all' else f'{name}{len(groups[name])}')
        for words in ['_'.join(f'{name}{seeds}' for name, seeds in plan.items())]
        for name in groups
    }
    evaluations = [
        subprocess.Popen(
            [sys.executable, '-m', 'fer_jax.evaluate', f'--runs={",".join(map(str, groups[name]))}', '--last=1']
            + [f'--tta={flags.tta}', f'--split={",".join(SPLITS)}', f'--output={output}'],
            env=_ENVIRONMENT,
        )
        for name, output in together.items()
        if not all(split in _scores(output) for split in SPLITS)
    ]
    if any([process.wait() for process in evaluations]):  # noqa: C419 (all of them are waited for)
        return 1
    print(table({name: _scores(output) for name, output in together.items()}), flush=True)
    return 0


def read_plan(words: str) -> dict[str, int]:
    """Recipes and how many seeds of each, in their order.

    Raises:
        UserError: if there cannot be such a plan.
    """
    plan: dict[str, int] = {}
    for part in words.split(','):
        name, _, seeds = part.partition(':')
        if name not in RECIPES:
            raise UserError(f'--plan names {name!r}; there are {", ".join(RECIPES)}')
        if name in plan:
            raise UserError(f'--plan names {name} twice')
        if not seeds.isdecimal() or int(seeds) < 1:
            raise UserError(f'--plan has {part!r}; RECIPE:SEEDS is wanted, such as {name}:5')
        if name in TAUGHT and not set(plan) - set(TAUGHT):
            raise UserError(f'--plan: {name} has no teachers; name networks that are not taught before it')
        plan[name] = int(seeds)
    return plan


def table(scores: dict[str, dict]) -> str:
    """Markdown: of each recipe its seeds, their mean with its 95 % interval (Student's t), and all of them together.

    Args:
        scores: scores.json of each group of runs; of `all` no single network is told.
    """
    lines = ['| | PublicTest | PrivateTest |', '| --- | ---: | ---: |']
    for name, of_group in scores.items():
        members = [[100 * member['accuracy'] for member in of_group[split]['members']] for split in SPLITS]
        together = [of_group[split].get('ensemble') for split in SPLITS]
        if name != 'all':
            seeds = [' '.join(f'{accuracy:.2f}' for accuracy in of_split) for of_split in members]
            lines.append(f'| {name}, each | {" | ".join(seeds)} |')
            lines.append(f'| {name}, mean | {" | ".join(map(_mean, members))} |')
        if all(together):
            figures = [f'{100 * of_split["accuracy"]:.2f}' for of_split in together]
            lines.append(f'| {name}, {len(members[0])} together | {" | ".join(figures)} |')
    return '\n'.join(lines)


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f'{np.mean(values):.2f}'
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f'{np.mean(values):.2f} ± {half:.2f}'


def _runs(plan: dict[str, int], workdir: Path, common: Sequence[str]) -> list[Run]:
    runs: list[Run] = []
    for name, seeds in plan.items():
        teachers = tuple(run.workdir for run in runs if run.recipe not in TAUGHT) if name in TAUGHT else ()
        for seed in range(seeds):
            changes = {**RECIPES[name], 'seed': seed, 'train.teachers': tuple(map(str, teachers))}
            words = ('--config=configs/fer2013/record.py', *as_flags(changes), *common)
            runs.append(Run(name, workdir / name / f'seed{seed}', words, teachers))
    return runs


def _train(runs: Sequence[Run], jobs: int, until: float) -> bool:
    """Trains what is not scored yet; whether all are in time."""
    waiting = [run for run in runs if not run.done]
    with contextlib.ExitStack() as stack:
        running: dict[Run, subprocess.Popen] = {}
        while waiting or running:
            if time.monotonic() > until:
                return _stop(running)
            while waiting and len(running) < jobs and all('validation' in _scores(of) for of in waiting[0].teachers):
                run = waiting.pop(0)
                run.workdir.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(open(run.workdir / 'log.txt', 'a'))
                command = [sys.executable, '-m', 'fer_jax.train', *run.words, f'--workdir={run.workdir}']
                running[run] = subprocess.Popen(command, env=_ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
                _say(f'{run.workdir} is trained')
            time.sleep(0.2)
            for run, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                if process.returncode:
                    _stop(running)
                    sys.exit(f'{run.workdir} ended with code {process.returncode}; see {run.workdir / "log.txt"}')
                accuracy = _scores(run.workdir)['validation']['single']['accuracy']
                _say(f'{run.workdir}: {100 * accuracy:.2f} % of PublicTest')
    return True


def _say(words: str) -> None:
    print(time.strftime('%H:%M:%S'), words, flush=True)


def _stop(running: dict[Run, subprocess.Popen]) -> bool:
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    for run, process in running.items():
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        print(f'{run.workdir} is stopped; the same command goes on from its checkpoint', flush=True)
    return False


def _scores(workdir: Path) -> dict:
    path = workdir / 'scores.json'
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == '__main__':
    cli.run(main)
