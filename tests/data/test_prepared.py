"""What is stored comes back exactly; what has been damaged is noticed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.data.dataset import Dataset, Split, pixel_hash
from fer_jax.data.prepared import describe, load_prepared, store_prepared
from fer_jax.errors import UserError

CLASS_NAMES = ('anger', 'happiness', 'neutral')


def made(channels=1, sizes=(40, 7, 5), subject=''):
    rng = np.random.default_rng(3)
    splits = {}
    for name, size in zip(('train', 'validation', 'test'), sizes, strict=True):
        images = rng.integers(0, 256, (size, 20, 30, channels), np.uint8)
        splits[name] = Split(
            images,
            rng.integers(0, 3, size).astype(np.int32),
            np.array([f'{name} é {index}' for index in range(size)], str),
            np.array([pixel_hash(image) for image in images], str),
            {'subject': np.array([subject and f'{subject}{index}' for index in range(size)], str)},
        )
    manifest = describe('faces', CLASS_NAMES, splits, (20, 30, channels)) | {'source': {'name': 'a test'}}
    return Dataset('faces', CLASS_NAMES, splits, manifest)


def stored(dataset, folder):
    folder.mkdir()
    store_prepared(dataset, folder)
    return folder


@pytest.mark.parametrize(
    'options',
    ({}, {'channels': 3, 'subject': 'S'}, {'sizes': (3, 0, 2)}),
    ids=('grey', 'colour with subjects', 'an empty split'),
)
def test_everything_comes_back_in_order(options, tmp_path):
    dataset = made(**options)
    loaded = load_prepared(stored(dataset, tmp_path / 'ä b'))
    assert loaded.name == 'faces'
    assert loaded.class_names == CLASS_NAMES
    assert loaded.manifest == dataset.manifest
    assert list(loaded.splits) == ['train', 'validation', 'test']
    for name, split in dataset.splits.items():
        found = loaded.splits[name]
        for field in ('images', 'labels', 'ids', 'pixel_hashes'):
            np.testing.assert_array_equal(getattr(found, field), getattr(split, field))
        assert found.images.dtype == np.uint8
        assert found.labels.dtype == np.int32
        if 'subject' in options and len(split):
            np.testing.assert_array_equal(found.extra['subject'], split.extra['subject'])
        else:
            assert found.extra == {}


def test_tfds_itself_reads_the_same(tmp_path):
    dataset = made()
    builder = tfds.builder_from_directory(str(stored(dataset, tmp_path / 'out')))
    rows = list(builder.as_data_source('validation'))
    np.testing.assert_array_equal([row['image'] for row in rows], dataset.splits['validation'].images)
    np.testing.assert_array_equal([row['label'] for row in rows], dataset.splits['validation'].labels)
    assert builder.info.features['label'].names == list(CLASS_NAMES)


def remove_records(folder):
    next(folder.glob('*train.array_record*')).unlink()


def shorten_records(folder):
    path = next(folder.glob('*train.array_record*'))
    path.write_bytes(path.read_bytes()[:-3000])


def swap_records(folder):
    """The same number of other examples: only the checksum can tell."""
    other = stored(made(sizes=(5, 40, 7)), folder.parent / 'other')
    for name in ('faces-validation.array_record-00000-of-00001', 'dataset_info.json'):
        (folder / name).write_bytes((other / name).read_bytes())


def edit_manifest(folder):
    manifest = json.loads((folder / 'manifest.json').read_text())
    manifest['counts']['train']['anger'] += 1
    (folder / 'manifest.json').write_text(json.dumps(manifest))


def cut_manifest(folder):
    (folder / 'manifest.json').write_text('{"dataset": ')


@pytest.mark.parametrize('damage', (remove_records, shorten_records, swap_records, edit_manifest, cut_manifest))
def test_damage_is_one_line_that_names_the_command(damage, tmp_path):
    folder = stored(made(), tmp_path / 'out')
    damage(folder)
    with pytest.raises(UserError) as raised:
        load_prepared(folder)
    assert 'is damaged' in str(raised.value)
    assert f'python -m fer_jax.prepare --dataset=NAME --source=PATH --output={folder} --overwrite' in str(raised.value)
    assert '\n' not in str(raised.value)


def test_flipped_bits_never_come_back_as_other_pixels(tmp_path):
    dataset = made()
    folder = stored(dataset, tmp_path / 'out')
    path = next(folder.glob('*train.array_record*'))
    original = path.read_bytes()
    rng = np.random.default_rng(5)
    noticed = 0
    for place in rng.integers(0, 30_000, 40):
        data = bytearray(original)
        data[place] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            loaded = load_prepared(folder)
        except UserError:
            noticed += 1
        else:
            np.testing.assert_array_equal(loaded.splits['train'].images, dataset.splits['train'].images)
            np.testing.assert_array_equal(loaded.splits['train'].labels, dataset.splits['train'].labels)
    assert noticed > 10


def test_a_missing_or_foreign_directory_names_the_command(tmp_path):
    with pytest.raises(UserError, match='does not exist; make it with: python -m fer_jax.prepare'):
        load_prepared(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='holds no prepared data'):
        load_prepared(tmp_path)


def test_storing_and_loading_need_no_network_tensorflow_or_jax(tmp_path):
    script = f"""
import socket, sys
def refuse(*_): raise AssertionError('the network was tried')
socket.socket.connect = socket.getaddrinfo = refuse
sys.path[:0] = [{os.path.dirname(__file__)!r}]
from pathlib import Path
from test_prepared import load_prepared, made, store_prepared
store_prepared(made(), Path('.'))
load_prepared('.')
print([name for name in ('tensorflow', 'jax') if name in sys.modules])
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | {'PYTHONPATH': root, 'TMPDIR': str(tmp_path / 'tmp')}
    (tmp_path / 'tmp').mkdir()
    (tmp_path / 'out').mkdir()
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=tmp_path / 'out', env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '[]\n', '')
    assert os.listdir(tmp_path / 'tmp') == []
