"""A small run as launch/train.sh starts it, for tests that hand it to real launchers."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SMALL = [
    '--config.data.synthetic.num_train=64',
    '--config.data.synthetic.num_validation=16',
    '--config.data.synthetic.num_test=16',
    '--config.data.synthetic.size=16',
    '--config.train.steps=120',
    '--config.train.batch_size=16',
    '--config.schedule.cycles=1',
    '--config.evaluation.every_steps=60',
    '--config.checkpoint.every_steps=10',
    '--config.log_every_steps=10',
]


def environment(**more):
    """One device per process; programs are compiled once for all that a test starts."""
    # TF_CPP_MIN_LOG_LEVEL is jax's, of the process that tests: a user's shell has none.
    of_others = ('SLURM_', 'OMPI_', 'TF_CPP_MIN_LOG_LEVEL')
    variables = {name: value for name, value in os.environ.items() if not name.startswith(of_others)}
    return variables | {'FER_JAX_VENV': sys.prefix, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''} | more


def command(workdir):
    return [str(ROOT / 'launch' / 'train.sh'), f'--workdir={workdir}', *SMALL]


def start(words, output, **more):
    """Starts a command of a test; what it says goes to a file."""
    with open(output, 'w') as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment(**more), stdout=file, stderr=subprocess.STDOUT)


def logged_steps(workdir):
    """The steps of metrics.jsonl."""
    path = Path(workdir, 'metrics.jsonl')
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)['step'] for line in lines if line.endswith('\n')]


def wait_for(fits, what, seconds=600):
    """Waits until `fits()` is true."""
    deadline = time.monotonic() + seconds
    while not fits():
        assert time.monotonic() < deadline, f'{what} did not come in {seconds} s'
        time.sleep(0.1)


def has_checkpoint(workdir):
    folder = Path(workdir, 'checkpoints')
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def training_processes(workdir):
    """The ids of the processes that train in a workdir."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors='replace').split('\0')
            if 'fer_jax.train' in words and f'--workdir={workdir}' in words:
                found.append(int(path.parent.name))
    return sorted(found)


def assert_whole(workdir, unbroken=None):
    """The record has each step once, and the end is that of an unbroken run."""
    assert logged_steps(workdir) == list(range(10, 121, 10))
    if unbroken is not None:
        for split in ('validation', 'test'):
            with (
                np.load(Path(workdir, 'predictions', f'{split}.npz')) as one,
                np.load(Path(unbroken, 'predictions', f'{split}.npz')) as other,
            ):
                np.testing.assert_array_equal(one['logits'], other['logits'])
