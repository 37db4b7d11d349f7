"""Copies are counted within splits, across them, and under different labels."""

import numpy as np

from fer_jax.data.dataset import Split
from fer_jax.data.duplicates import find_duplicates, is_conflicting, summarise


def split(name, *examples):
    hashes, labels = zip(*examples, strict=True)
    ids = np.array([f'{name}_{index}' for index in range(len(labels))])
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32), ids, np.array(hashes))


SPLITS = {
    'train': split('train', ('a', 0), ('a', 0), ('b', 0), ('b', 1), ('c', 2), ('d', 3), ('lone', 0)),
    'validation': split('validation', ('c', 2), ('d', 4), ('e', 1)),
    'test': split('test', ('b', 1), ('c', 1), ('e', 1), ('f', 5), ('f', 5)),
}


def test_groups_hold_every_member_in_order():
    groups = find_duplicates(SPLITS)
    assert [[copy.id for copy in group] for group in groups] == [
        ['train_0', 'train_1'],
        ['train_2', 'train_3', 'test_0'],
        ['train_4', 'validation_0', 'test_1'],
        ['train_5', 'validation_1'],
        ['validation_2', 'test_2'],
        ['test_3', 'test_4'],
    ]
    assert [is_conflicting(group) for group in groups] == [False, True, True, True, False, False]


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
