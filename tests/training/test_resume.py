"""Runs in processes of their own that are killed and launched again."""

import json
import os
import random
import signal

from tests.launches import MODEL, assert_ended_alike, finish, kill_at_random, launch, log, steps, words

SHORT = MODEL | {'train__steps': 60}
KILLS = ((signal.SIGKILL, 1), (signal.SIGKILL, 10), (signal.SIGTERM, 18), *((signal.SIGKILL, n) for n in (25, 35, 45)))


def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert finish(launch(whole, SHORT)) == 0
    for number, code in kill_at_random(broken, random.Random(0), KILLS, SHORT):
        if number == signal.SIGTERM:
            assert code == 143
            stopped = words(broken).splitlines()[-1]
            assert stopped.startswith('stopped at step ')
            assert stopped.endswith('the checkpoint is written, the same command goes on from it')
        else:
            assert code == -signal.SIGKILL
    assert finish(launch(broken, SHORT)) == 0
    assert_ended_alike(broken, whole, SHORT['train__steps'])
    logged = [line['step'] for line in log(broken)]
    assert logged == sorted(set(logged))
    assert steps(broken) == steps(whole)
    scores = lambda workdir: json.loads((workdir / 'scores.json').read_text())['validation']['ensemble']
    for figure in ('accuracy', 'nll', 'ece', 'confusion'):
        assert scores(broken)[figure] == scores(whole)[figure]

    before = {name: os.stat(whole / 'checkpoints' / str(name)).st_mtime_ns for name in steps(whole)}
    record = (whole / 'metrics.jsonl').read_text()
    assert finish(launch(whole, SHORT)) == 0
    assert {name: os.stat(whole / 'checkpoints' / str(name)).st_mtime_ns for name in steps(whole)} == before
    assert (whole / 'metrics.jsonl').read_text() == record


def test_a_learning_rate_out_of_reason_ends_in_one_line_and_the_last_good_checkpoint_loads(tmp_path):
    changes = MODEL | {
        'optimizer__name': 'sgd',
        'optimizer__learning_rate': 1e30,
        'schedule__name': 'constant',
        'checkpoint__every_steps': 1,
        'train__max_bad_steps': 4,
    }
    workdir = tmp_path / 'wild'
    assert finish(launch(workdir, changes)) == 2
    last = words(workdir).splitlines()[-1]
    assert last.startswith('fer_jax.train: error: loss or gradients were not finite in ')
    assert 'steps in a row, 2 to ' in last
    assert 'learning_rate' in last

    from fer_jax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(str(workdir))
    assert checkpoints.steps()
    checkpoints._verify(checkpoints.steps()[-1])
