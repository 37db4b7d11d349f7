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
    launch_two,
    log,
    steps,
    stop_one_of_two,
)

pytestmark = pytest.mark.soak


def times(full):
    return max(1, round(full * float(os.environ.get('FER_JAX_SOAK', '1'))))


def test_killed_fifty_times(tmp_path):
    """Each kill falls on a random moment of a run; a run that ended before its kill begins anew, and must be right."""
    whole, chance = tmp_path / 'whole', random.Random(int.from_bytes(os.urandom(4)))
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
        assert finish(launch(broken)) == 0
        assert_ended_alike(broken, whole)
        logged = [line['step'] for line in log(broken)]
        assert logged == sorted(set(logged))
        shutil.rmtree(broken)
    print(f'{killed} kills in {runs} runs')


def test_one_of_two_stopped_twenty_times(tmp_path):
    """SIGTERM to either of two processes that train one run: both save the same step, and the run ends as unbroken."""
    whole, chance = tmp_path / 'whole', random.Random(int.from_bytes(os.urandom(4)))
    changes = MODEL | {'train__steps': 30 * times(20)}
    assert [finish(process) for process in launch_two(whole, changes)] == [0, 0]
    workdir, stops = tmp_path / 'run', []
    for _ in range(times(20)):
        stops.append(stop_one_of_two(launch_two(workdir, changes, pause=0.05), workdir, chance))
        print('stopped at', stops[-1])
    assert stops == sorted(set(stops))
    assert [finish(process) for process in launch_two(workdir, changes)] == [0, 0]
    assert_ended_alike(workdir, whole, changes['train__steps'])


def test_a_thousand_damages(tmp_path):
    checkpoints, chance = Checkpoints(str(tmp_path)), random.Random(int.from_bytes(os.urandom(4)))
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
