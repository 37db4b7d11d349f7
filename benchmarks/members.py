"""Members trained together against the same runs in turn: steps, and whole runs from start to report.

    python benchmarks/members.py [--networks=shallow_cnn,wider_cnn] [--members=9] [--ways=threads,turn,vmap] [--pairs=5]
        [--steps=8] [--runs] [--epochs=2]

Each way is a process of its own, since threads of a program are settled when a process starts; they take turns, and
who waits sleeps. First every way has to give the losses that the runs have alone. A pair is the runs one after the
other, as a single run takes its steps (on all cores), and the same steps by a way; the table has the medians of the
times, and of the pairs' ratios with their range. --runs measures whole commands instead, on a small synthetic set:
`fer_jax.train` once per seed, against once with config.ensemble.members.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np

NETWORKS = ('shallow_cnn', 'wider_cnn')
IMAGES, SIDE, CLASSES = 4096, 48, 6
_SAME_STEPS = 3


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, measures and prints; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default=','.join(NETWORKS), help='files of configs/fer2013')
    parser.add_argument('--members', type=int, default=9)
    parser.add_argument('--ways', default='threads,turn,vmap')
    parser.add_argument('--pairs', type=int, default=5)
    parser.add_argument('--steps', type=int, default=8, help='of each member in a measurement')
    parser.add_argument('--runs', action='store_true', help='whole commands instead of steps')
    parser.add_argument('--epochs', type=float, default=2, help='of a whole command')
    parser.add_argument('--work', default='', help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # the ways share a GPU's memory
    if flags.work:
        _work(flags.work, flags.networks, flags.members, flags.steps)
        return
    rows = []
    for network in flags.networks.split(','):
        measure = measure_runs if flags.runs else measure_steps
        rows += measure(network, flags)
    import machine  # with PyTorch, which the ways' own processes leave out

    print(f'{machine.headline(f"{flags.members} members, medians of {flags.pairs} pairs")}\n')
    print('| network | together by | in turn | together | ratio (range) |')
    print('| --- | --- | ---: | ---: | ---: |')
    for network, way, alone, together, ratios in rows:
        span = f'{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
        print(f'| `{network}` | {way} | {alone} | {together} | {span} |')


def measure_steps(network: str, flags: argparse.Namespace) -> list[tuple]:
    """A row for each way: images/s over all members."""
    rows = []
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(_worker(way, network, flags)) for way in ('alone', *flags.ways.split(','))}
        expected = _ask(workers['alone'], 'losses')
        for way in flags.ways.split(','):
            np.testing.assert_allclose(_ask(workers[way], 'losses'), expected, rtol=_rounding())
            seconds = []
            for pair in range(flags.pairs):
                order = ('alone', way) if pair % 2 == 0 else (way, 'alone')
                found = {name: _ask(workers[name], 'time') for name in order}
                seconds.append((found['alone'], found[way]))
            alone, together = np.array(seconds).T
            rate = lambda times: f'{flags.members * flags.steps * 128 / np.median(times):,.0f} images/s'
            rows.append((network, way, rate(alone), rate(together), alone / together))
    return rows


def _rounding() -> float:
    """Relative, of losses after three steps: a GPU multiplies float32 in TF32."""
    return 1e-5 if jax.default_backend() == 'cpu' else 1e-3


@contextlib.contextmanager
def _worker(way: str, network: str, flags: argparse.Namespace):
    given = [f'--networks={network}', f'--members={flags.members}', f'--steps={flags.steps}', f'--work={way}']
    process = subprocess.Popen(
        [sys.executable, __file__, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _ask(worker: subprocess.Popen, what: str):
    print(what, file=worker.stdin, flush=True)
    answer = worker.stdout.readline()
    if not answer:
        sys.exit('a way ended; what it said is above')
    return json.loads(answer)


def _work(way: str, network: str, members: int, steps: int) -> None:
    """Answers each line of stdin with a line: the first losses of every member, or the seconds of all its steps."""
    from fer_jax import runtime

    runtime.configure()
    from fer_jax.data.workers import usable_cores
    from fer_jax.training.dispatch import steps_per_dispatch
    from fer_jax.training.together import advancing, steps_on_threads

    on_threads = steps_on_threads(members, usable_cores())
    dispatch = on_threads if way == 'threads' else steps_per_dispatch(0, jax.default_backend())
    step, feed, placement, start = _make(network, members, dispatch)
    how = (step, feed, placement, range(members), dispatch, usable_cores())
    groups = [[member] for member in range(members)] if way == 'alone' else [range(members)]
    with advancing('turn' if way == 'alone' else way, *how) as (advance, _):
        for line in sys.stdin:
            count, at_once = (_SAME_STEPS, 1) if line.strip() == 'losses' else (steps, dispatch)
            states = start()
            began = time.perf_counter()
            losses = np.zeros((members, count))
            for group in groups:
                losses[group] = _train_group(advance, states, group, count, at_once)
            seconds = time.perf_counter() - began
            print(json.dumps(losses.tolist() if line.strip() == 'losses' else seconds), flush=True)


def _train_group(advance, states: list, group: Sequence[int], count: int, dispatch: int) -> np.ndarray:
    """Sums of losses of each member and dispatch; they are read at the end, so that nothing waits for them."""
    trained = [member in group for member in range(len(states))]
    told = [[] for _ in group]
    for now in range(0, count, dispatch):
        states, sums = advance(states, now, min(dispatch, count - now), trained)
        for of_member, member in zip(told, group, strict=True):
            of_member.append(sums[member]['loss'])
    found = np.array([[float(loss) for loss in of_member] for of_member in told])
    return np.pad(found, [(0, 0), (0, count - found.shape[1])])


def _make(network: str, members: int, dispatch: int):
    import functools

    from fer_jax import experiment
    from fer_jax.config import load_config
    from fer_jax.data.dataset import Split
    from fer_jax.data.feed import ResidentFeed
    from fer_jax.data.preprocess import Preprocessing
    from fer_jax.training import classify
    from fer_jax.training.mesh import make_placement
    from fer_jax.training.optimizer import OptimizerOptions, make_optimizer

    config = load_config(f'configs/fer2013/{network}.py')
    task = classify.Task(
        model=experiment.make_model(config, CLASSES),
        optimizer=make_optimizer(OptimizerOptions(**config.optimizer), lambda _: config.optimizer.learning_rate),
        preprocessing=Preprocessing(SIDE, 1, config.data.crop, config.data.normalize),
        augmentation=experiment.make_augmentation(config),
        label_smoothing=config.train.label_smoothing,
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, SIDE, SIDE, 1)).astype(np.uint8)
    labels = random.integers(0, CLASSES, IMAGES).astype(np.int32)
    split = Split(images, labels, np.arange(IMAGES).astype(str), np.arange(IMAGES).astype(str))
    placement = make_placement(128, jax.devices()[:1])
    feed = ResidentFeed(split, 0, 128, dispatch, everywhere=placement.replicated, cut=placement.split(1))
    states = [jax.device_get(classify.init_state(task, jax.random.key(seed))) for seed in range(members)]
    return (
        functools.partial(classify.train_step, task),
        feed,
        placement,
        lambda: [placement.everywhere(state) for state in states],
    )


def measure_runs(network: str, flags: argparse.Namespace) -> list[tuple]:
    """One row: minutes of whole commands."""
    seconds = []
    for pair in range(flags.pairs):
        with tempfile.TemporaryDirectory() as folder:
            order = (1, flags.members) if pair % 2 == 0 else (flags.members, 1)
            found = {}
            for members in order:
                began = time.perf_counter()
                for seed in range(flags.members if members == 1 else 1):
                    _train(network, f'{folder}/{members}_{seed}', seed, members, flags.epochs)
                found[members] = time.perf_counter() - began
            seconds.append((found[1], found[flags.members]))
    alone, together = np.array(seconds).T
    words = lambda times: f'{np.median(times):,.0f} s'
    return [(network, 'whole commands', words(alone), words(together), alone / together)]


def _train(network: str, workdir: str, seed: int, members: int, epochs: float) -> None:
    changes = {'data.name': 'synthetic', 'data.drop': '', 'data.synthetic.num_train': IMAGES, 'seed': seed}
    changes |= {'train.steps': round(epochs * IMAGES / 128), 'schedule.name': 'cosine', 'ensemble.members': members}
    changes |= {'evaluation.every_steps': 0, 'checkpoint.snapshot_steps': 0, 'data.order_seed': 0}
    flags = [f'--config.{name}={value}' for name, value in changes.items()]
    command = [sys.executable, '-m', 'fer_jax.train', f'--config=configs/fer2013/{network}.py', f'--workdir={workdir}']
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])


if __name__ == '__main__':
    main()
