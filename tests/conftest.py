"""Settings that must stand before jax is imported, and the tiny data and runs that several tests share."""

import atexit
import os
import shutil
import signal
import sys
import tempfile

from tests.launches import QUICKLY

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ['JAX_PLATFORMS'] = 'cpu'
if os.environ.pop('PYTHONDONTWRITEBYTECODE', None):  # hundreds of processes would compile our modules, each anew
    sys.dont_write_bytecode = False
# Programs with its calls are compiled anew in every process. tests/models/test_onednn.py and test_launch.py have them.
os.environ.setdefault('FER_JAX_ONEDNN', '0')
os.environ['XLA_FLAGS'] = ' '.join(
    [QUICKLY, '--xla_force_host_platform_device_count=8', os.environ.get('XLA_FLAGS', '')]
).strip()
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    # Many tests train the same tiny network anew: compiled once for all of them and for the processes they start.
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='fer_jax_tests_')
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)

import jax
import numpy as np
import pytest

from fer_jax import experiment, train
from fer_jax.config import default_config, set_field
from fer_jax.data import face_renderer
from fer_jax.data.dataset import Dataset, Split, class_counts, pixel_hash

# Faces are drawn by the hundred.
face_renderer._draw_chunk = jax.jit(
    face_renderer.draw, static_argnums=(1, 2), compiler_options={'xla_backend_optimization_level': 1}
)

CLASSES = ('anger', 'fear', 'happiness')
# Files of tests that take a minute or more of a processor: begun last, one of them would keep all others waiting.
LONG = (
    *('gan_study', 'pairs', 'translate', 'train', 'resume', 'recognizer'),
    *('launch', 'runtime', 'audit', 'together', 'processes'),
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem.removeprefix('test_') not in LONG)


def make_dataset(counts=(40, 23, 17), side=12, channels=1, classes=CLASSES, seed=0):
    """Noise with a bright row whose place tells the class: learned in a few steps, made in no time."""
    random = np.random.default_rng(seed)
    splits = {}
    for name, n in zip(('train', 'validation', 'test'), counts, strict=True):
        labels = random.permutation(np.arange(n) % len(classes)).astype(np.int32)
        images = random.integers(0, 160, (n, side, side, channels)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 + 3 * label] = 255
        ids = np.array([f'{name}_{index}' for index in range(n)])
        splits[name] = Split(images, labels, ids, np.array([pixel_hash(image) for image in images]))
    manifest = {
        'dataset': 'rows',
        'source': f'tests/conftest.py seed {seed}',
        'class_names': list(classes),
        'counts': {name: class_counts(split.labels, classes) for name, split in splits.items()},
    }
    return Dataset('rows', tuple(classes), splits, manifest)


def make_config(**changes):
    """A run of 8 steps over `make_dataset`; keys are dotted fields with `__` for the dot."""
    config = default_config()
    fields = {
        'data__name': 'rows',
        'train__steps': 8,
        'train__batch_size': 16,
        'log_every_steps': 2,
        'evaluation__every_steps': 4,
        'evaluation__batch_size': 16,
        'schedule__name': 'constant',
    }
    for name, value in (fields | changes).items():
        set_field(config, name.replace('__', '.'), value)
    return config.lock()


@pytest.fixture(name='make_config', scope='session')
def _make_config():
    return make_config


@pytest.fixture(name='make_dataset', scope='session')
def _make_dataset():
    return make_dataset


@pytest.fixture(scope='session')
def dataset():
    """40, 23 and 17 grey images of 12 pixels a side in three classes."""
    return make_dataset()


@pytest.fixture(scope='session')
def _finished_runs(tmp_path_factory):
    """Where the first run of each kind lies, for `make_run` to copy instead of training it again."""
    return tmp_path_factory.mktemp('finished'), {}


@pytest.fixture
def make_run(monkeypatch, tmp_path, _finished_runs):
    """Trains a config in this process on one device, on a given data set, without pictures; returns the workdir."""
    folder, finished = _finished_runs

    def run(name='run', data=None, **changes):
        data = data or make_dataset()
        monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
        monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:1])
        monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
        workdir = str(tmp_path / name)
        kind = (data.manifest_hash, repr(sorted(changes.items())))
        fresh = not os.path.exists(workdir)
        if fresh and kind in finished:
            shutil.copytree(finished[kind], workdir)
            return workdir
        train.train(make_config(**changes), workdir)
        if fresh:
            finished[kind] = shutil.copytree(workdir, folder / str(len(finished)))
        return workdir

    return run
