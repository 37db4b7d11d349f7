import dataclasses

import numpy as np
import pytest

from fer_jax.data.dataset import Dataset, Split, class_counts, drop_classes, pixel_hash, remove_training_twins
from fer_jax.errors import UserError


def split(labels, hashes=None, start=0):
    n = len(labels)
    images = np.arange(start, start + n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    hashes = [f'{start + index}' for index in range(n)] if hashes is None else list(hashes)
    ids = np.array([f'id{start + index}' for index in range(n)])
    return Split(images, np.array(labels, np.int32), ids, np.array(hashes), {'subject': ids.copy()})


def whole(**splits):
    return Dataset('toy', ('anger', 'fear', 'happiness'), splits, {'dataset': 'toy'})


def test_dropping_a_class_moves_indices_and_keeps_examples_together():
    data = whole(train=split([0, 1, 2, 1, 2]), validation=split([1, 2], start=10), test=split([0, 2], start=20))
    kept = drop_classes(data, ['fear'])
    assert kept.class_names == ('anger', 'happiness')
    assert kept.splits['train'].labels.tolist() == [0, 1, 1]
    assert kept.splits['train'].images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert kept.splits['train'].ids.tolist() == kept.splits['train'].extra['subject'].tolist() == ['id0', 'id2', 'id4']
    assert kept.splits['validation'].labels.tolist() == [1]
    assert kept.splits['test'].labels.tolist() == [0, 1]
    assert data.splits['train'].labels.tolist() == [0, 1, 2, 1, 2]


def test_dropping_nothing_changes_nothing_and_dropping_too_much_is_refused():
    data = whole(train=split([0, 1, 2]))
    assert drop_classes(data, ()).splits['train'].labels.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match='fewer than two'):
        drop_classes(data, ['fear', 'anger'])
    with pytest.raises(UserError, match="no class 'feer'; did you mean 'fear'"):
        drop_classes(data, ['feer'])


def test_twins_leave_training_and_never_evaluation():
    data = whole(train=split([0, 0, 1, 1, 2], 'abacd'), validation=split([0], 'c', 10), test=split([1, 1], 'ax', 20))
    assert remove_training_twins(data, 'none').splits['train'].ids.tolist() == [f'id{n}' for n in range(5)]
    leaks = remove_training_twins(data, 'evaluation')
    assert leaks.splits['train'].ids.tolist() == ['id1', 'id4']
    assert len(leaks.splits['validation']) == 1
    assert len(leaks.splits['test']) == 2
    with pytest.raises(UserError, match='none, evaluation or all'):
        remove_training_twins(data, 'some')


def test_of_twins_within_training_the_first_stays():
    data = whole(train=split([0, 1, 2, 0, 1], 'abcba'), validation=split([0], 'c', 10))
    assert remove_training_twins(data, 'all').splits['train'].ids.tolist() == ['id0', 'id1']
    assert remove_training_twins(data, 'evaluation').splits['train'].ids.tolist() == ['id0', 'id1', 'id3', 'id4']


def test_equal_pixels_have_equal_hashes_and_shape_counts():
    image = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    assert pixel_hash(image) == pixel_hash(np.asfortranarray(image))
    assert pixel_hash(image) != pixel_hash(image.reshape(6, 4, 1))
    changed = image.copy()
    changed[3, 5, 0] ^= 1
    assert pixel_hash(image) != pixel_hash(changed)
    assert len(pixel_hash(image)) == 32


def test_counts_name_empty_classes_too():
    assert class_counts(np.array([2, 0, 2]), ('a', 'b', 'c', 'd')) == {'a': 1, 'b': 0, 'c': 2, 'd': 0}


def test_the_manifest_hash_follows_content_and_not_order():
    data = whole(train=split([0]))
    reordered = dataclasses.replace(data, manifest={'b': 1, 'a': 2})
    assert reordered.manifest_hash == dataclasses.replace(data, manifest={'a': 2, 'b': 1}).manifest_hash
    assert reordered.manifest_hash != dataclasses.replace(data, manifest={'a': 2, 'b': 2}).manifest_hash
