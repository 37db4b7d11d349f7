"""Folds and cuts: every image in one part, nothing that belongs together in two, and never moved by chance."""

import collections
import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.folds import apply_folds, divide, pool_splits, resplit_training
from fer_jax.errors import UserError

CLASSES = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
SEQUENCES = (45, 18, 59, 25, 69, 28, 83)  # of CK+, of three frames each


def make_ckplus(seed=0, splits=('train',)):
    """981 rows as CK+ has them: 327 sequences of 118 subjects, three frames each, in a random order."""
    random = np.random.default_rng(seed)
    label_S = np.repeat(np.arange(7), SEQUENCES)
    subject_S = random.permutation(np.concatenate([np.arange(118), random.integers(0, 118, 327 - 118)]))
    rows = random.permutation(981)
    sequence = rows // 3
    subject = np.array([f'S{index:03d}' for index in subject_S[sequence]])
    ids = np.array([f'{name}_{index:03d}_{row % 3}' for name, index, row in zip(subject, sequence, rows, strict=True)])
    extra = {'subject': subject, 'sequence': np.array([f'{index:03d}' for index in sequence])}
    images = rows.astype(np.int64).view(np.uint8).reshape(981, 1, 8, 1)  # each tells its row
    whole = Split(images, label_S[sequence].astype(np.int32), ids, np.array([f'{row:04d}' for row in rows]), extra)
    ends = np.linspace(0, 981, len(splits) + 1).astype(int)
    parts = {name: whole.select(np.arange(*ends[i : i + 2])) for i, name in enumerate(splits)}
    return Dataset('ckplus', CLASSES, parts, {})


def row_of(split):
    return split.images.reshape(-1, 8).copy().view(np.int64).ravel()


def together(split, by):
    return split.ids if by == 'image' else split.extra[by]


@pytest.mark.parametrize('validation', [True, False])
@pytest.mark.parametrize('by', ['image', 'sequence', 'subject'])
def test_every_image_is_tested_once_and_what_belongs_together_is_on_one_side(by, validation):
    data = make_ckplus()
    tested = collections.Counter()
    for fold in range(10):
        splits = apply_folds(data, 10, fold, by, validation, seed=0).splits
        assert list(splits) == ['train', 'validation', 'test'] if validation else ['train', 'test']
        assert sorted(np.concatenate([split.ids for split in splits.values()])) == sorted(data.splits['train'].ids)
        tested.update(splits['test'].ids.tolist())
        for name, split in splits.items():
            others = [together(other, by) for key, other in splits.items() if key != name]
            assert not set(together(split, by)) & set(np.concatenate(others))
            # Labels, pixels and extras are still those of the id, in the order of the ids.
            assert (np.diff(np.unique(split.ids, return_inverse=True)[1]) == 1).all()
            assert [f'{row // 3:03d}_{row % 3}' for row in row_of(split)] == [i[5:] for i in split.ids]
            assert (split.extra['sequence'] == [i[5:8] for i in split.ids]).all()
            assert (split.pixel_hashes == [f'{row:04d}' for row in row_of(split)]).all()
    assert len(tested) == 981 and set(tested.values()) == {1}


def test_the_validation_fold_is_the_next_one_that_is_tested():
    data = make_ckplus()
    parts = [apply_folds(data, 4, fold, 'subject', True, seed=0).splits for fold in range(4)]
    for fold in range(4):
        np.testing.assert_array_equal(parts[fold]['validation'].ids, parts[(fold + 1) % 4]['test'].ids)


def test_single_images_are_stratified_to_within_one():
    labels = make_ckplus().splits['train'].labels
    parts = divide(labels, np.arange(981).astype(str), (1,) * 10, seed=3)
    counts = np.zeros((10, 7), int)
    np.add.at(counts, (parts, labels), 1)
    assert np.ptp(counts, axis=0).max() == 1
    assert np.ptp(counts.sum(1)) == 1


@pytest.mark.parametrize('by', ['sequence', 'subject'])
def test_groups_are_stratified_as_well_as_by_scikit_learn(by):
    train = make_ckplus().splits['train']
    units = train.extra[by]

    def unevenness(parts):
        counts = np.zeros((10, 7))
        np.add.at(counts, (parts, train.labels), 1)
        return (counts / counts.sum(0)).std(0).mean(), np.ptp(counts.sum(1))

    theirs = np.zeros(981, int)
    for fold, (_, test) in enumerate(StratifiedGroupKFold(10).split(units, train.labels, units)):
        theirs[test] = fold
    for seed in range(3):
        ours = unevenness(divide(train.labels, units, (1,) * 10, seed))
        assert ours[0] <= 1.05 * unevenness(theirs)[0] and ours[1] <= unevenness(theirs)[1] + 3


def test_folds_depend_on_the_seed_and_on_nothing_else():
    shuffled, same = make_ckplus(), make_ckplus()
    train = shuffled.splits['train']
    shuffled = dataclasses.replace(
        shuffled, splits={'train': train.select(np.random.default_rng(9).permutation(len(train)))}
    )
    of = lambda data, seed: apply_folds(data, 10, 2, 'subject', True, seed).splits['test'].ids.tolist()
    assert of(same, 0) == of(shuffled, 0)
    assert of(same, 0) != of(same, 1)


def test_no_version_of_anything_moves_an_image():
    # Written down: a run that goes on after an update must not test what it has been trained on.
    numbers = np.arange(60)
    labels, subjects = (
        (numbers * numbers % 7 % 3).astype(np.int32),
        np.array([f'S{n * n * n % 23 % 17:02d}' for n in numbers]),
    )
    assert ''.join(map(str, divide(labels, subjects, (1,) * 4, seed=1))) == (
        '130031103222223101030131300311032222231010301313003110322222'
    )
    assert ''.join(map(str, divide(labels, numbers.astype(str), (0.8, 0.1, 0.1), seed=1))) == (
        '000010000020101000001020010000000002000000022000100020000000'
    )


def test_deal_by_hand():
    # p has two thirds of class a: first, into part 0. Of b, r and s have half each: the first goes to the emptier part
    # 1, the second to 0, which has less of b. q goes where less of a is, which is 1.
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int32)
    units = np.array(['p', 'p', 'p', 'p', 'q', 'q', 'r', 's'])
    parts = divide(labels, units, (1, 1), seed=0)
    assert parts[:6].tolist() == [0, 0, 0, 0, 1, 1]
    assert sorted(parts[6:]) == [0, 1]


def test_shares_are_kept_per_class():
    labels = np.repeat([0, 1, 2], [1000, 100, 10]).astype(np.int32)
    parts = divide(labels, np.arange(1110).astype(str), (0.8, 0.1, 0.1), seed=0)
    for label, count in ((0, 1000), (1, 100), (2, 10)):
        assert np.bincount(parts[labels == label]).tolist() == [0.8 * count, 0.1 * count, 0.1 * count]


def test_splits_that_someone_else_drew_are_pooled():
    parts = make_ckplus(splits=('train', 'validation', 'test'))
    whole = make_ckplus()
    assert len(pool_splits(parts)) == 981
    for fold in (0, 7):
        ours = apply_folds(parts, 10, fold, 'subject', True, 0).splits
        for name, split in apply_folds(whole, 10, fold, 'subject', True, 0).splits.items():
            np.testing.assert_array_equal(split.images, ours[name].images)


class Stored:
    """Images that are read when they are indexed; joining and selecting reads nothing."""

    def __init__(self, rows):
        self.rows, self.read = np.asarray(rows), 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        self.read += 1
        return self.rows[key]

    def select(self, keep):
        return Stored(self.rows[keep])

    def join(self, *others):
        return Stored(np.concatenate([self.rows, *(other.rows for other in others)]))


def test_images_on_disk_are_not_read():
    data = make_ckplus(splits=('train', 'test'))
    stored = {
        name: dataclasses.replace(split, images=Stored(row_of(split)), extra={**split.extra, name: split.labels})
        for name, split in data.splits.items()
    }
    splits = apply_folds(dataclasses.replace(data, splits=stored), 5, 1, 'sequence', False, 0).splits
    for name, split in apply_folds(data, 5, 1, 'sequence', False, 0).splits.items():
        np.testing.assert_array_equal(splits[name].images.rows, row_of(split))
        assert set(splits[name].extra) == {'subject', 'sequence'}  # and not what only one of the splits had
    assert not any(split.images.read for split in stored.values())


@pytest.mark.parametrize(
    ('folds', 'fold', 'by', 'validation', 'message'),
    [
        (2, 0, 'image', True, 'at least 3'),
        (1, 0, 'image', False, 'at least 2'),
        (10, 10, 'image', True, '0 to 9'),
        (10, -1, 'image', True, '0 to 9'),
        (10, 0, 'subjet', True, 'did you mean subject'),
        (119, 0, 'subject', True, '118 subjects, too few'),
    ],
)
def test_folds_that_cannot_be_are_refused(folds, fold, by, validation, message):
    with pytest.raises(UserError, match=message):
        apply_folds(make_ckplus(), folds, fold, by, validation, 0)


@pytest.mark.parametrize('by', ['sequence', 'subject'])
def test_data_that_names_no_subjects_says_which_forms_do(by):
    data = make_ckplus()
    train = data.splits['train']
    for extra, count in (({}, '981'), ({by: np.where(train.labels == 1, '', train.extra[by])}, '54')):
        nameless = dataclasses.replace(data, splits={'train': dataclasses.replace(train, extra=extra)})
        with pytest.raises(UserError, match=f'{count} of 981 images name no {by}.*CK.48') as caught:
            apply_folds(nameless, 10, 0, by, True, 0)
        assert '\n' not in str(caught.value)


def test_two_shares_make_a_validation_and_turn_the_published_one_into_test():
    data = make_ckplus(splits=('train', 'validation'))
    splits = resplit_training(data, ('.9', '.1'), 'image', 0).splits
    assert abs(len(splits['validation']) - 49) <= 3
    assert splits['test'] is data.splits['validation']
    assert sorted([*splits['train'].ids, *splits['validation'].ids]) == sorted(data.splits['train'].ids)

    data = make_ckplus(splits=('train', 'test'))  # as RAF-DB: a test split of its own
    splits = resplit_training(data, ('.9', '.1'), 'subject', 0).splits
    assert splits['test'] is data.splits['test']
    assert not set(splits['train'].extra['subject']) & set(splits['validation'].extra['subject'])


def test_a_number_per_class_makes_a_balanced_validation():
    data = make_ckplus(splits=('train', 'validation'))
    splits = resplit_training(data, ('9',), 'image', 0).splits
    assert np.bincount(splits['validation'].labels).tolist() == [9] * 7
    assert len(splits['train']) == len(data.splits['train']) - 63
    assert splits['test'] is data.splits['validation']
    # The same images whatever the order of the rows, and others for another seed.
    train = data.splits['train'].select(np.arange(len(data.splits['train']))[::-1])
    again = resplit_training(dataclasses.replace(data, splits={'train': train}), ('9',), 'image', 0).splits
    assert again['validation'].ids.tolist() == splits['validation'].ids.tolist()
    other = resplit_training(data, ('9',), 'image', 1).splits
    assert set(other['validation'].ids) != set(splits['validation'].ids)
    with pytest.raises(UserError, match='fold_by=subject does not allow'):
        resplit_training(data, ('9',), 'subject', 0)
    with pytest.raises(UserError, match='training images of contempt'):
        resplit_training(data, ('50',), 'image', 0)


def test_three_shares_leave_the_published_splits_out():
    data = make_ckplus(splits=('train', 'validation'))
    splits = resplit_training(data, ('.8', '.1', '.1'), 'image', 0).splits
    assert list(splits) == ['train', 'validation', 'test']
    assert sorted(np.concatenate([split.ids for split in splits.values()])) == sorted(data.splits['train'].ids)
    assert abs(len(splits['test']) - 49) <= 3


@pytest.mark.parametrize(
    ('shares', 'splits', 'message'),
    [
        (('.9',), ('train',), 'two or three shares'),
        (('0',), ('train',), 'one whole number of images per class'),
        (('5',), ('train', 'validation', 'test'), 'of its own'),
        (('.9', '.2'), ('train',), 'add up to 1'),
        (('1', '0'), ('train',), 'two or three shares'),
        (('a', 'b'), ('train',), 'config.data.resplit is a,b'),
        (('.9', '.1'), ('train', 'validation', 'test'), 'of its own'),
        (('.9', '.1'), ('test',), 'no training split'),
    ],
)
def test_cuts_that_cannot_be_are_refused(shares, splits, message):
    with pytest.raises(UserError, match=message):
        resplit_training(make_ckplus(splits=splits), shares, 'image', 0)
