"""Copies are counted within splits, across them, and under different labels; near ones are found without all pairs."""

import io

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.dataset import Split
from fer_jax.data.duplicates import (
    MAX_DISTANCE,
    find_duplicates,
    find_near_duplicates,
    is_conflicting,
    near_pairs,
    perceptual_hash,
    summarise,
)


def split(name, *examples):
    hashes, labels = zip(*examples, strict=True)
    ids = np.array([f'{name}_{index}' for index in range(len(labels))])
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32), ids, np.array(hashes))


SPLITS = {
    'train': split('train', ('a', 0), ('a', 0), ('b', 0), ('b', 1), ('c', 2), ('d', 3), ('lone', 0)),
    'validation': split('validation', ('c', 2), ('d', 4), ('e', 1)),
    'test': split('test', ('b', 1), ('c', 1), ('e', 1), ('f', 5), ('f', 5)),
}


def ids(groups):
    return [[copy.id for copy in group] for group in groups]


def test_groups_hold_every_member_in_order():
    groups = find_duplicates(SPLITS)
    assert ids(groups) == [
        ['train_0', 'train_1'],
        ['train_2', 'train_3', 'test_0'],
        ['train_4', 'validation_0', 'test_1'],
        ['train_5', 'validation_1'],
        ['validation_2', 'test_2'],
        ['test_3', 'test_4'],
    ]
    assert [is_conflicting(group) for group in groups] == [False, True, True, True, False, False]
    assert [(copy.split, copy.index) for copy in groups[1]] == [('train', 2), ('train', 3), ('test', 0)]


def test_summary_counts_images_not_pairs():
    assert summarise(find_duplicates(SPLITS)) == {
        'groups': 6,
        'spare_copies': 8,
        'conflicting_groups': 3,
        'twins_in_train': {'validation': 2, 'test': 2},
        'twins_in_train_other_label': {'validation': 1, 'test': 1},
        'groups_in_validation_and_test': 2,
    }


def test_nothing_twice_is_nothing_to_report():
    assert find_duplicates({'train': split('train', ('a', 0), ('b', 0))}) == []
    assert summarise([])['spare_copies'] == 0


@pytest.mark.parametrize('distance', (0, 1, 4, 7))
def test_near_pairs_are_all_pairs_within_the_distance(distance):
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 1 << 63, 300, np.uint64) * np.uint64(2) + rng.integers(0, 2, 300, np.uint64)
    for index in range(100, 300):  # each near one of the first, a few bits away
        bits = rng.choice(64, rng.integers(0, 10), replace=False)
        hashes[index] = hashes[index % 100] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0)
    distances = np.array([[int(a ^ b).bit_count() for a in hashes] for b in hashes])
    expected = np.argwhere(np.triu(distances <= distance, 1))
    assert len(expected) > 15
    np.testing.assert_array_equal(near_pairs(hashes, distance), expected)


def test_near_groups_join_through_a_third_and_keep_identical_copies():
    splits = {
        'train': split('train', ('a', 0), ('b', 0), ('c', 1), ('far', 0)),
        'test': split('test', ('a', 0), ('d', 2), ('e', 2), ('e', 2)),
    }
    chain = [0, 0b1111, 0b11111111]  # a and c are too far apart, but both near b
    hashes = {
        'train': np.array([*chain, 0xFFFF << 20], np.uint64),
        'test': np.array([0, 0xFFFF << 40, 0x0F0F << 44, 0x0F0F << 44], np.uint64),
    }
    groups = find_near_duplicates(splits, hashes)
    assert ids(groups) == [['train_0', 'train_1', 'train_2', 'test_0']]
    assert is_conflicting(groups[0])


def test_different_pictures_of_one_hash_are_near_and_identical_ones_alone_are_not():
    splits = {'train': split('train', ('a', 0), ('b', 0), ('c', 1), ('c', 1))}
    hashes = {'train': np.array([7, 7, 1 << 60, 1 << 60], np.uint64) * np.array([1, 1, 15, 15], np.uint64)}
    assert ids(find_near_duplicates(splits, hashes)) == [['train_0', 'train_1']]


def test_the_hash_survives_brightness_size_and_compression_and_tells_pictures_apart():
    rng = np.random.default_rng(4)
    coarse = [Image.fromarray(rng.integers(40, 216, (7, 7), np.uint8)).convert('RGB') for _ in range(20)]
    hashes = []
    for picture in (picture.resize((64, 64), Image.Resampling.BICUBIC) for picture in coarse):
        buffer = io.BytesIO()
        picture.save(buffer, 'JPEG', quality=70)
        hashes.append(perceptual_hash(np.asarray(picture)))
        for other in (picture.point(lambda value: value * 0.8 + 20), picture.resize((150, 150)), Image.open(buffer)):
            assert (hashes[-1] ^ perceptual_hash(np.asarray(other))).bit_count() <= MAX_DISTANCE
        assert (hashes[-1] ^ perceptual_hash(np.asarray(picture.convert('L'))[..., None])).bit_count() <= MAX_DISTANCE
    assert len(near_pairs(np.array(hashes, np.uint64))) == 0
