"""Runs in processes of their own that are killed and launched again."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings

import numpy as np
import pytest

# Dropout, augmentation, the average and the plateau all have state or randomness that must survive a kill.
MODEL = {
    'model__name': 'wider_cnn',
    'data__size': 16,
    'augment__brightness': 0.2,
    'train__ema': 0.9,
    'train__steps': 120,
    'evaluation__every_steps': 12,
    'checkpoint__every_steps': 5,
    'log_every_steps': 4,
    'optimizer__learning_rate': 3e-3,
    'schedule__name': 'plateau',
    'schedule__plateau_patience': 1,
}


def train_in_process(root, workdir, changes, pause):
    """What a launch does, on one device and on rows instead of faces, with its standard error in a file."""
    sys.path.insert(0, root)
    os.environ['XLA_FLAGS'] = ''
    from fer_jax import cli, evaluate, experiment, train
    from tests import conftest

    os.environ['XLA_FLAGS'] = ''
    experiment.load_prepared = lambda _: conftest.make_dataset((120, 32, 8))
    evaluate.write_report = lambda *_, **__: None
    train.load_config = lambda *_: conftest.make_config(**changes)
    advance = train.make_advance

    def slowly(*arguments):
        step_of = advance(*arguments)
        return lambda *of_step: (time.sleep(pause), step_of(*of_step))[1]

    train.make_advance = slowly
    os.makedirs(workdir, exist_ok=True)
    with open(workdir + '.err', 'a') as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
        sys.stderr = sys.stdout = file
        sys.argv = ['fer_jax/train.py']
        cli.run(lambda: train.main(['--config=x', f'--workdir={workdir}']))


@pytest.fixture(scope='module')
def launch():
    """Forks from one process that has imported everything, since importing takes longer than such a run."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['fer_jax.train', 'tests.conftest'])

    def start(workdir, changes=MODEL, pause=0.0):
        process = context.Process(target=_entry, args=(root, str(workdir), changes, pause))
        process.start()
        return process

    return start


def _entry(*arguments):
    train_in_process(*arguments)


def finish(process):
    process.join(300)
    assert process.exitcode is not None, 'the run hangs'
    return process.exitcode


def wait_for(workdir, step, process):
    """Until a checkpoint of at least that step is complete."""
    folder = workdir / 'checkpoints'
    for _ in range(3000):
        if folder.is_dir() and any(int(name) >= step for name in os.listdir(folder) if name.isdigit()):
            return
        assert process.is_alive(), (workdir.parent / (workdir.name + '.err')).read_text()
        time.sleep(0.02)
    raise AssertionError('no checkpoint in a minute')


def log(workdir):
    with open(workdir / 'metrics.jsonl') as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        line.pop('seconds')
    return lines


def parameters(workdir):
    """Every array of the last checkpoint, as bytes."""
    import jax
    import orbax.checkpoint as ocp

    folder = workdir / 'checkpoints' / str(MODEL['train__steps'])
    with contextlib.closing(ocp.PyTreeCheckpointer()) as reader, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that it is read without a target
        trees = [reader.restore(folder / item) for item in ('model', 'optimizer')]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path, launch):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert finish(launch(whole)) == 0
    chance = random.Random(0)
    for number, step in ((signal.SIGKILL, 5), (signal.SIGKILL, 30), (signal.SIGTERM, 50), (signal.SIGKILL, 80)):
        process = launch(broken, pause=0.02)
        wait_for(broken, step, process)
        time.sleep(chance.random() * 0.2)
        os.kill(process.pid, number)
        code = finish(process)
        if number == signal.SIGTERM:
            assert code == 143
            stopped = (tmp_path / 'broken.err').read_text().splitlines()[-1]
            assert stopped.startswith('stopped at step ')
            assert stopped.endswith('the checkpoint is written, the same command goes on from it')
        else:
            assert code == -signal.SIGKILL
    assert finish(launch(broken)) == 0
    assert log(broken) == log(whole)
    expected, found = parameters(whole), parameters(broken)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    kept = lambda workdir: sorted(name for name in os.listdir(workdir / 'checkpoints'))
    assert kept(broken) == kept(whole)
    scores = lambda workdir: json.loads((workdir / 'scores.json').read_text())['validation']['ensemble']
    for figure in ('accuracy', 'nll', 'ece', 'confusion'):
        assert scores(broken)[figure] == scores(whole)[figure]

    before = {name: os.stat(whole / 'checkpoints' / name).st_mtime_ns for name in kept(whole)}
    logged = (whole / 'metrics.jsonl').read_text()
    assert finish(launch(whole)) == 0
    assert {name: os.stat(whole / 'checkpoints' / name).st_mtime_ns for name in kept(whole)} == before
    assert (whole / 'metrics.jsonl').read_text() == logged


def test_a_learning_rate_out_of_reason_ends_in_one_line_and_the_last_good_checkpoint_loads(tmp_path, launch):
    changes = MODEL | {
        'optimizer__name': 'sgd',
        'optimizer__learning_rate': 1e30,
        'schedule__name': 'constant',
        'checkpoint__every_steps': 1,
        'train__max_bad_steps': 4,
    }
    workdir = tmp_path / 'wild'
    assert finish(launch(workdir, changes)) == 2
    last = (tmp_path / 'wild.err').read_text().replace('\r', '\n').splitlines()[-1]
    assert last.startswith('fer_jax.train: error: loss or gradients were not finite in ')
    assert 'steps in a row, 2 to ' in last
    assert 'learning_rate' in last

    from fer_jax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(str(workdir))
    assert checkpoints.steps()
    checkpoints._verify(checkpoints.steps()[-1])
