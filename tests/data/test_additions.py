"""Pictures added to training: the right pixels under the right labels, and the prepared ones still read lazily."""

import dataclasses
import pickle

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.additions import add_pictures
from fer_jax.data.change_files import changes_in_words
from fer_jax.data.dataset import drop_classes
from fer_jax.data.prepared import describe, store_prepared
from fer_jax.data.stored import fit_images, load_prepared
from fer_jax.errors import UserError


@pytest.fixture
def extra(tmp_path):
    """Two pictures of 12 pixels and one of 24 in colour, and their CSV."""
    folder = tmp_path / 'translated' / 'images'
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    pixels = [random.integers(0, 256, shape).astype(np.uint8) for shape in ((12, 12), (12, 12), (24, 24, 3))]
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f'{index}.png')
    rows = ['path,label,source', 'images/0.png,fear,train_1', 'images/1.png,anger,train_2', 'images/2.png,fear,train_3']
    path = folder.parent / 'translated.csv'
    path.write_text('\n'.join(rows))
    return str(path), pixels


def test_pictures_come_after_the_training_images_and_nowhere_else(dataset, extra):
    path, pixels = extra
    train = dataclasses.replace(
        dataset.splits['train'],
        extra={'subject': np.full(40, 's1'), 'true_label': dataset.splits['train'].labels, 'age': np.ones(40)},
    )
    changed = add_pictures(dataclasses.replace(dataset, splits={**dataset.splits, 'train': train}), (path,))
    found = changed.splits['train']
    assert len(found) == 43 and len(set(found.ids)) == 43
    np.testing.assert_array_equal(found.images[:40], train.images)
    np.testing.assert_array_equal(found.images[40, ..., 0], pixels[0])
    np.testing.assert_array_equal(found.images[42], fit_images(pixels[2][None], 12, 1)[0])
    assert [changed.class_names[k] for k in found.labels[40:]] == ['fear', 'anger', 'fear']
    assert found.extra['subject'].tolist() == ['s1'] * 40 + [''] * 3
    assert found.extra['true_label'][40:].tolist() == [-1] * 3 and np.isnan(found.extra['age'][40:]).all()
    assert changed.splits['test'] is dataset.splits['test'] and changed.manifest_hash == dataset.manifest_hash
    assert changes_in_words(changed.manifest['changes']) == ['extra: 3 rows read; 3 training images added: 40 + 3 = 43']


def test_the_hash_follows_the_pixels(dataset, extra):
    path, pixels = extra
    before = add_pictures(dataset, (path,)).manifest['changes']
    assert add_pictures(dataset, (path,)).manifest['changes'] == before
    Image.fromarray(255 - pixels[1]).save(path.replace('translated.csv', 'images/1.png'))
    assert add_pictures(dataset, (path,)).manifest['changes'] != before


def test_prepared_pictures_are_chained_and_not_read(make_dataset, extra, tmp_path):
    path, pixels = extra
    data = make_dataset((9, 4, 4))
    manifest = describe('rows', data.class_names, data.splits, (12, 12, 1))
    (tmp_path / 'data').mkdir()
    store_prepared(dataclasses.replace(data, manifest=manifest | {'source': ''}), tmp_path / 'data')
    stored = load_prepared(tmp_path / 'data', lazy=True)
    images = add_pictures(stored, (path,)).splits['train'].images
    expected = np.concatenate([data.splits['train'].images, add_pictures(data, (path,)).splits['train'].images[9:]])
    assert images.shape == (12, 12, 12, 1) and images.nbytes == expected.nbytes
    np.testing.assert_array_equal(images.load(), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))[[11, 2, 2, 9]], expected[[11, 2, 2, 9]])
    np.testing.assert_array_equal(images[7:11], expected[7:11])
    np.testing.assert_array_equal(images[10], expected[10])
    few = images.select(np.array([10, 0, 8]))
    np.testing.assert_array_equal(np.asarray(few), expected[[10, 0, 8]])
    assert few.content_hash() != images.content_hash()


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('images/1.png', 'images/9.png', r'translated.csv:3: the picture .*9.png cannot be read \(No such file'),
        ('images/1.png', 'translated.csv', 'translated.csv:3: .*not a picture'),
        ('images/1.png', 'images/0.png', 'translated.csv:3: images/0.png stands there twice'),
        ('1.png,anger', '1.png,angr', "translated.csv:3: there is no class 'angr'; did you mean 'anger'"),
        ('train_2', 'test_2', 'translated.csv:3: images/1.png is made from test_2, which is a test image here'),
        ('path,label', 'path,emotion', 'has the columns path,emotion,source; config.data.extra wants path,label'),
    ],
)
def test_a_row_that_cannot_be_meant_is_one_line(dataset, extra, old, new, message):
    path, _ = extra
    with open(path) as file:
        text = file.read()
    with open(path, 'w') as file:
        file.write(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        add_pictures(dataset, (path,))


def test_a_class_that_is_left_out_is_named(dataset, extra):
    with pytest.raises(UserError, match="translated.csv:2: there is no class 'fear'"):
        add_pictures(drop_classes(dataset, ('fear',)), (extra[0],))
