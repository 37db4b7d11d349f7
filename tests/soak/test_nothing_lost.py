"""What CI does a few times, many times: launch/test.sh tests/soak -m soak. FER_JAX_SOAK=0.1 does a tenth of it."""

import os
import random
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.training.checkpoints import Checkpoints
from tests.launches import (
    MODEL,
    PAIR,
    assert_ended_alike,
    damage_file,
    finish,
    kill_at_random,
    launch,
    launch_toy,
    launch_two,
    log,
    restore_latest,
    said,
    steps,
    stop_one_of_two,
    wait_for,
    words,
)

pytestmark = pytest.mark.soak

LONG_PAIR = PAIR | {
    'train__steps': 60,
    'log_every_steps': 4,
    'evaluation__every_steps': 12,
    'checkpoint__every_steps': 5,
}


def times(full):
    return max(1, round(full * float(os.environ.get('FER_JAX_SOAK', '1'))))


@pytest.mark.parametrize(('changes', 'kills'), [(MODEL, 50), (LONG_PAIR, 10)], ids=['classifier', 'pair'])
def test_killed_again_and_again(tmp_path, changes, kills):
    """Each kill falls on a random moment of a run; a run that ended before its kill begins anew, and must be right."""
    whole, chance = tmp_path / 'whole', random.Random(os.urandom(4))
    assert finish(launch(whole, changes)) == 0
    wanted, killed, runs = times(kills), 0, 0
    while killed < wanted:
        runs += 1
        broken = tmp_path / f'broken_{runs}'
        last = changes['train__steps'] - 5
        while killed < wanted and (at := max(steps(broken), default=0)) < last:
            step = chance.randrange(at, min(at + 15, last)) + 1
            for _, code in kill_at_random(broken, chance, [(signal.SIGKILL, step)], changes):
                assert code in (0, -signal.SIGKILL)
                killed += code != 0
                print(f'kill {killed} after step {step}', flush=True)
        assert finish(launch(broken, changes)) == 0
        assert_ended_alike(broken, whole, changes['train__steps'])
        logged = [line['step'] for line in log(broken)]
        assert logged == sorted(set(logged))
        shutil.rmtree(broken)
    print(f'{killed} kills in {runs} runs')


def test_one_of_two_stopped_twenty_times(tmp_path):
    """SIGTERM to either of two processes that train the toy: both save the same step, and the end is as unbroken."""
    workdir, whole, chance, stops = tmp_path / 'run', tmp_path / 'whole', random.Random(os.urandom(4)), []
    for _ in range(times(20)):
        stops.append(stop_one_of_two(launch_toy(workdir, 2, 2, total=10_000, pause=0.02), workdir, chance))
        print('stopped at', stops[-1], flush=True)
        assert said(r'stopped at step (\d+)', words(workdir, 1)) == [str(step) for step in stops]
    assert stops == sorted(set(stops))
    end = stops[-1] + 5
    for folder in (workdir, whole):
        assert [finish(process, 900) for process in launch_toy(folder, 2, 2, total=end)] == [0, 0]
    assert_ended_alike(workdir, whole, end)


@pytest.mark.parametrize(('changes', 'devices'), [(MODEL, 1), (LONG_PAIR, 4)], ids=['classifier', 'pair'])
def test_one_of_two_stopped_and_one_killed_while_they_train(tmp_path, changes, devices):
    workdir, whole, chance = tmp_path / 'run', tmp_path / 'whole', random.Random(os.urandom(4))
    for _ in range(times(3)):
        stopped = stop_one_of_two(launch_two(workdir, changes, 0.05, devices), workdir, chance)
        print('stopped at', stopped, flush=True)
    left = shutil.copytree(workdir, tmp_path / 'left')
    processes = launch_two(workdir, changes, 0.05, devices)
    wait_for(workdir, steps(workdir)[-1] + 1, processes[0])
    os.kill(processes[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    assert [finish(process) for process in processes] == [75, -signal.SIGKILL]
    print(f'the other ended after {time.monotonic() - killed:.1f} s', flush=True)
    assert time.monotonic() - killed < 5
    for folder in (workdir, whole):
        assert [finish(process, 900) for process in launch_two(folder, changes, devices=devices)] == [0, 0]
    assert_ended_alike(workdir, whole, changes['train__steps'])
    # What two processes have saved, one takes up alone.
    assert finish(launch(left, changes)) == 0
    assert [line['step'] for line in log(left)] == [line['step'] for line in log(whole)]


def test_a_thousand_damages(tmp_path):
    checkpoints, chance = Checkpoints(str(tmp_path)), random.Random(os.urandom(4))
    tree = lambda value: ({'w': jnp.full((16, 8), value)}, {'m': jnp.full((3,), value, jnp.bfloat16)})
    for step in (1, 2):
        checkpoints.save(*tree(float(step)), {'step': step, 'member': True, 'metrics': {}})
        checkpoints.wait()
    newest = os.path.join(checkpoints.directory, '2')
    kept = shutil.copytree(newest, tmp_path / 'kept')
    for _ in range(times(1000)):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(kept, newest)
        what = damage_file(newest, chance)
        model, rest, position = restore_latest(checkpoints, *tree(0.0))
        assert position['step'] == 1, what
        jax.tree.map(np.testing.assert_array_equal, (model, rest), tree(1.0))
