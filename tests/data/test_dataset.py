import dataclasses
import hashlib

import numpy as np
import pytest

from fer_jax.data.dataset import (
    Dataset,
    Split,
    add_soft_targets,
    class_counts,
    drop_classes,
    examples_checksum,
    limit_classes,
    pixel_hash,
    remove_training_twins,
    rename_classes,
)
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


FIVE = ('anger', 'contempt', 'disgust', 'fear', 'happiness')


@pytest.mark.parametrize(
    ('classes', 'renames', 'names', 'labels'),
    [
        (FIVE, (), FIVE, [0, 1, 2, 3, 4]),
        (FIVE, ('contempt=disgust',), ('anger', 'disgust', 'fear', 'happiness'), [0, 1, 1, 2, 3]),
        (FIVE, ('disgust=contempt',), ('anger', 'contempt', 'fear', 'happiness'), [0, 1, 1, 2, 3]),
        (FIVE, ('anger=surprise',), ('contempt', 'disgust', 'fear', 'happiness', 'surprise'), [4, 0, 1, 2, 3]),
        (FIVE, ('anger=fear', 'fear=anger'), FIVE, [3, 1, 2, 0, 4]),
        (FIVE, ('anger=bad', 'fear=bad', 'disgust=ugly'), ('contempt', 'happiness', 'bad', 'ugly'), [2, 0, 3, 2, 1]),
        (('yes', 'no', 'maybe'), ('maybe=no',), ('yes', 'no'), [0, 1, 1]),
    ],
)
def test_renamed_and_merged_classes_in_every_split(classes, renames, names, labels):
    splits = {name: split(range(len(classes)), start=10 * n) for n, name in enumerate(('train', 'test'))}
    for name in splits:
        extra = {'true_label': np.array([*range(1, len(classes)), -1], np.int32)}
        splits[name] = dataclasses.replace(splits[name], extra=extra)
    renamed = rename_classes(Dataset('toy', classes, splits, {}), renames)
    assert renamed.class_names == names
    for name, examples in renamed.splits.items():
        assert examples.labels.tolist() == labels
        assert examples.labels.dtype == np.int32
        assert examples.extra['true_label'].tolist() == [*labels[1:], -1]
        assert examples.ids.tolist() == splits[name].ids.tolist()


@pytest.mark.parametrize(
    ('renames', 'message'),
    [
        (('feer=anger',), "no class 'feer'; did you mean 'fear'"),
        (('fear',), "has 'fear'; OLD=NEW is wanted"),
        (('fear=',), 'OLD=NEW is wanted'),
        (('fear=anger', 'fear=happiness'), "names 'fear' twice"),
        (('fear=anger', 'happiness=anger'), 'fewer than two classes'),
    ],
)
def test_what_cannot_be_renamed_is_refused(renames, message):
    with pytest.raises(UserError, match=message):
        rename_classes(whole(train=split([0, 1, 2])), renames)


def test_a_limit_thins_one_class_of_training_by_seed_and_ids_alone():
    labels = np.arange(90) % 3
    data = whole(train=split(labels), validation=split(labels, start=100))
    kept = lambda data, *limits, seed=0: limit_classes(data, limits, seed).splits['train'].ids.tolist()
    thinned = limit_classes(data, ('fear=7', 'happiness=99'), 0)
    assert class_counts(thinned.splits['train'].labels, data.class_names) == {'anger': 30, 'fear': 7, 'happiness': 30}
    assert thinned.splits['train'].images[:, 0, 0, 0].tolist() == [int(id[2:]) for id in thinned.splits['train'].ids]
    assert len(thinned.splits['validation']) == 90
    fewer, more = kept(data, 'fear=3', 'anger=5'), kept(data, 'fear=7', 'anger=5')
    assert set(fewer) < set(more)
    order = np.random.default_rng(0).permutation(90)
    shuffled = dataclasses.replace(data, splits={'train': data.splits['train'].select(order)})
    assert set(kept(shuffled, 'fear=7', 'anger=5')) == set(more)
    assert kept(data, 'fear=7', seed=1) != kept(data, 'fear=7')
    assert kept(data) == kept(data, 'fear=30') == data.splits['train'].ids.tolist()


def test_every_image_of_a_limited_class_can_be_drawn():
    data = whole(train=split([1] * 20))
    times = np.zeros(20, int)
    for seed in range(400):
        times += np.isin(data.splits['train'].ids, limit_classes(data, ('fear=5',), seed).splits['train'].ids)
    assert times.sum() == 400 * 5
    assert 60 < times.min() < times.max() < 140  # 100 on average, deviation 8.7


@pytest.mark.parametrize('limit', ['fear', 'fear=', 'fear=0', 'fear=-3', 'fear=2.5', '=3'])
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(UserError, match='CLASS=N is wanted'):
        limit_classes(whole(train=split([0, 1, 2])), (limit,), 0)
    with pytest.raises(UserError, match="no class 'feer'; did you mean 'fear'"):
        limit_classes(whole(train=split([0, 1, 2])), ('feer=3',), 0)


# Columns: neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF.
VOTES = [
    [0, 0, 0, 0, 6, 2, 2, 0, 0, 0],
    [0, 3, 0, 0, 0, 0, 1, 0, 2, 4],
    [5, 0, 0, 4, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 8, 2],
]


@pytest.mark.parametrize(
    ('drop', 'renames', 'expected'),
    [
        ((), (), [[0.6, 0.2, 0.2, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]]),
        (('disgust',), (), [[0.75, 0.25, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]),
        ((), ('fear=anger',), [[0.8, 0.2, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]),
        (('anger',), ('fear=anger',), [[0.5, 0.5, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]),
        ((), ('fear=low', 'anger=low'), [[0.2, 0, 0.8], [0, 1, 0], [0, 0, 1], [0, 1, 0]]),
    ],
)
def test_soft_targets_are_shares_of_the_votes_for_classes_in_use(drop, renames, expected):
    train = dataclasses.replace(split([0, 3, 0, 3]), extra={'votes': np.array(VOTES, np.float32)})
    if 'anger' in drop:
        train = dataclasses.replace(train, labels=np.array([2, 3, 1, 3], np.int32))
    data = Dataset('toy', ('anger', 'disgust', 'fear', 'happiness'), {'train': train, 'test': split([0])}, {})
    made = add_soft_targets(rename_classes(drop_classes(data, drop), renames), drop, renames)
    targets = made.splits['train'].extra['targets']
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    assert targets.dtype == np.float32
    assert 'targets' not in made.splits['test'].extra


def test_soft_targets_without_votes_are_refused():
    with pytest.raises(UserError, match='soft_labels needs the votes .* toy does not have; FER. has them'):
        add_soft_targets(whole(train=split([0, 1, 2])))


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


def test_the_checksum_is_of_every_id_class_and_hash_in_order():
    data = whole(train=split([0, 2], 'ab'), test=split([1], 'c', 5))
    text = 'train\tid0\tanger\ta\ntrain\tid1\thappiness\tb\ntest\tid5\tfear\tc\n'
    assert examples_checksum(data.splits, data.class_names) == hashlib.sha256(text.encode()).hexdigest()


def test_counts_name_empty_classes_too():
    assert class_counts(np.array([2, 0, 2]), ('a', 'b', 'c', 'd')) == {'a': 1, 'b': 0, 'c': 2, 'd': 0}


def test_the_manifest_hash_follows_content_and_not_order():
    data = whole(train=split([0]))
    reordered = dataclasses.replace(data, manifest={'b': 1, 'a': 2})
    assert reordered.manifest_hash == dataclasses.replace(data, manifest={'a': 2, 'b': 1}).manifest_hash
    assert reordered.manifest_hash != dataclasses.replace(data, manifest={'a': 2, 'b': 2}).manifest_hash
