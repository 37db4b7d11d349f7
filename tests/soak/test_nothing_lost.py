"""What CI does a few times, many times: launch/test.sh tests/soak -m soak. FER_JAX_SOAK=0.1 does a tenth of it."""

import os
import random
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.training.checkpoints import Checkpoints
from tests.launches import (
    MODEL,
    assert_ended_alike,
    damage_file,
    finish,
    kill_at_random,
    launch,
    launch_toy,
    launch_two,
    log,
    said,
    steps,
    stop_one_of_two,
    words,
)

pytestmark = pytest.mark.soak


def times(full):
    return max(1, round(full * float(os.environ.get('FER_JAX_SOAK', '1'))))


def test_killed_fifty_times(tmp_path):
    """Each kill falls on a random moment of a run; a run that ended before its kill begins anew, and must be right."""
    whole, chance = tmp_path / 'whole', random.Random(os.urandom(4))
    assert finish(launch(whole)) == 0
    wanted, killed, runs = times(50), 0, 0
    while killed < wanted:
        runs += 1
        broken = tmp_path / f'broken_{runs}'
        last = MODEL['train__steps'] - 5
        while killed < wanted and (at := max(steps(broken), default=0)) < last:
            step = chance.randrange(at, min(at + 15, last)) + 1
            for _, code in kill_at_random(broken, chance, [(signal.SIGKILL, step)]):
                assert code in (0, -signal.SIGKILL)
                killed += code != 0
                print(f'kill {killed} after step {step}', flush=True)
        assert finish(launch(broken)) == 0
        assert_ended_alike(broken, whole)
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


def test_one_of_two_stopped_while_they_train_a_network(tmp_path):
    workdir, whole, chance = tmp_path / 'run', tmp_path / 'whole', random.Random(os.urandom(4))
    for _ in range(times(4)):
        print('stopped at', stop_one_of_two(launch_two(workdir, pause=0.05), workdir, chance), flush=True)
    for folder in (workdir, whole):
        assert [finish(process, 900) for process in launch_two(folder)] == [0, 0]
    assert_ended_alike(workdir, whole)


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
        model, rest, position = checkpoints.restore_latest(*tree(0.0))
        assert position['step'] == 1, what
        jax.tree.map(np.testing.assert_array_equal, (model, rest), tree(1.0))
