"""The prepared form is what tfds reads, and an index; a manifest that is none is noticed."""

import io
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fer_jax.data import prepared
from fer_jax.data.dataset import Dataset, Split, pixel_hash
from fer_jax.data.prepared import describe, index_path, read_manifest, store_prepared
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


@pytest.mark.parametrize('channels', (1, 3))
def test_tfds_itself_reads_the_same_from_several_files(channels, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, '_PER_FILE', 15)
    dataset = made(channels, sizes=(40, 0, 5), subject='S')
    folder = stored(dataset, tmp_path / 'ä b')
    assert len(list(folder.glob('faces-train.array_record-*'))) == 3
    builder = tfds.builder_from_directory(str(folder))
    assert list(builder.info.splits) == ['train', 'test']
    assert builder.info.features['label'].names == list(CLASS_NAMES)
    for name in builder.info.splits:
        rows, split = list(builder.as_data_source(name)), dataset.splits[name]
        np.testing.assert_array_equal([row['image'] for row in rows], split.images)
        np.testing.assert_array_equal([row['label'] for row in rows], split.labels)
        assert [row['id'].decode() for row in rows] == split.ids.tolist()
        assert [row['pixel_hash'].decode() for row in rows] == split.pixel_hashes.tolist()
        assert [row['subject'].decode() for row in rows] == split.extra['subject'].tolist()


def test_the_index_holds_all_but_the_pixels(tmp_path):
    dataset = made()
    numbers = {'valence': np.linspace(-1, 1, 40, dtype=np.float32), 'landmarks': np.ones((40, 68, 2), np.float32)}
    train = dataset.splits['train']
    del train.extra['subject']
    train.extra.update(numbers)
    folder = stored(dataset, tmp_path / 'out')
    with np.load(index_path(folder, 'train'), allow_pickle=False) as index:
        columns = dict(index)
    assert set(columns) == {'label', 'id', 'pixel_hash', 'subject', *numbers}
    for name, values in {**numbers, 'label': train.labels, 'id': train.ids, 'pixel_hash': train.pixel_hashes}.items():
        np.testing.assert_array_equal(columns[name], values)
        assert columns[name].dtype == values.dtype
    assert columns['subject'].tolist() == [''] * 40


def test_pictures_are_taken_as_they_are_and_few_at_a_time(tmp_path):
    dataset = made(3, sizes=(40, 7, 5))
    held, most = [0], [0]

    class Picture(bytes):
        def __init__(self, *_):
            held[0] += 1
            most[0] = max(most[0], held[0])

        def __del__(self):
            held[0] -= 1

    def jpegs(split):
        for image in split.images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, 'JPEG')
            yield Picture(buffer.getvalue())

    pictures = {name: jpegs(split) for name, split in dataset.splits.items()}
    folder = tmp_path / 'out'
    folder.mkdir()
    store_prepared(dataset, folder, pictures=pictures)
    assert 1 <= most[0] <= 3
    (row,) = tfds.builder_from_directory(str(folder)).as_data_source('train').__getitems__([39])
    (expected,) = itertools.islice(jpegs(dataset.splits['train']), 39, None)
    np.testing.assert_array_equal(row['image'], np.asarray(Image.open(io.BytesIO(expected))))


@pytest.mark.parametrize('manifest', ('{"dataset": ', '[]', '{"format": 2, "dataset": "faces"}'))
def test_a_damaged_manifest_is_one_line_that_names_the_command(manifest, tmp_path):
    (tmp_path / 'manifest.json').write_text(manifest)
    with pytest.raises(UserError) as raised:
        read_manifest(tmp_path)
    assert 'is damaged' in str(raised.value)
    assert f'python -m fer_jax.prepare --dataset=NAME --source=PATH --output={tmp_path} --overwrite' in str(
        raised.value
    )
    assert '\n' not in str(raised.value)


def test_what_another_version_wrote_is_not_read(tmp_path):
    folder = stored(made(), tmp_path / 'out')
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert manifest.pop('format') == 2
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='another version; make it with: .* --overwrite'):
        read_manifest(folder)


def test_a_missing_or_foreign_directory_names_the_command(tmp_path):
    with pytest.raises(UserError, match='does not exist; make it with: python -m fer_jax.prepare'):
        read_manifest(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='holds no prepared data'):
        read_manifest(tmp_path)


def test_storing_needs_no_network_tensorflow_or_jax(tmp_path):
    script = f"""
import socket, sys
def refuse(*_): raise AssertionError('the network was tried')
socket.socket.connect = socket.getaddrinfo = refuse
sys.path[:0] = [{os.path.dirname(__file__)!r}]
from pathlib import Path
from test_prepared import made, read_manifest, store_prepared
store_prepared(made(), Path('.'))
read_manifest('.')
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
