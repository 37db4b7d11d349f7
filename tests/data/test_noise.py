"""Wrong labels on purpose: as many as asked for, in training alone, and the truth kept."""

import json

import numpy as np
import pytest

from fer_jax.data.noise import add_label_noise, inject_label_noise
from fer_jax.errors import UserError


@pytest.mark.parametrize('rate', [0.0, 0.137, 1.0])
def test_symmetric_noise_changes_exactly_its_share(rate):
    labels = np.arange(1000, dtype=np.int32) % 8
    noisy = inject_label_noise(labels, 8, rate, seed=5)
    assert (noisy != labels).sum() == round(rate * 1000)
    assert noisy.min() >= 0 and noisy.max() <= 7
    np.testing.assert_array_equal(noisy, inject_label_noise(labels, 8, rate, seed=5))
    if rate == 1.0:
        table = np.zeros((8, 8))
        np.add.at(table, (labels, noisy), 1)
        assert np.diag(table).sum() == 0 and table[~np.eye(8, dtype=bool)].min() > 5


def test_confusion_noise_follows_the_rows():
    labels = np.repeat(np.arange(3, dtype=np.int32), 4000)
    confusion = [[0.9, 0.1, 0.0], [0.15, 0.7, 0.15], [0.0, 0.0, 1.0]]
    noisy = inject_label_noise(labels, 3, 0.1, seed=0, confusion=confusion)
    table = np.zeros((3, 3), int)
    np.add.at(table, (labels, noisy), 1)
    assert (noisy != labels).sum() == 1200
    assert table[0, 2] == table[2, 0] == table[2, 1] == 0
    assert 0.42 < table[1, 0] / (table[1, 0] + table[1, 2]) < 0.58
    assert 2 < (table[1, 0] + table[1, 2]) / table[0, 1] < 4
    with pytest.raises(UserError, match='only 8000'):
        inject_label_noise(labels, 3, 0.9, seed=0, confusion=confusion)


def test_noise_is_in_training_only_and_the_truth_is_kept(dataset):
    noisy = add_label_noise(dataset, 0.25, 'symmetric', 3, '')
    clean, train = dataset.splits['train'], noisy.splits['train']
    assert (train.labels != clean.labels).sum() == 10
    np.testing.assert_array_equal(train.extra['true_label'], clean.labels)
    assert noisy.splits['validation'] is dataset.splits['validation']
    assert noisy.splits['test'] is dataset.splits['test']
    assert noisy.manifest_hash == dataset.manifest_hash  # the evaluation images are the same
    assert noisy.manifest['changes']['noise']['wrong'] == 10
    other = add_label_noise(dataset, 0.25, 'symmetric', 4, '').splits['train']
    assert (other.labels != train.labels).any()
    assert add_label_noise(dataset, 0.0, 'symmetric', 3, '') is dataset


def write_scores(path, names, confusion):
    path.write_text(json.dumps({'validation': {'class_names': names, 'ensemble': {'confusion': confusion}}}))
    return str(path)


def test_confusion_noise_reads_a_runs_scores_by_name(dataset, tmp_path):
    # Rows of the file: happiness, sadness, anger, fear. Of the classes here only anger is confused, with fear alone.
    table = [[9, 1, 0, 0], [0, 9, 0, 0], [0, 5, 7, 2], [0, 1, 0, 8]]
    path = write_scores(tmp_path / 'scores.json', ['happiness', 'sadness', 'anger', 'fear'], table)
    noisy = add_label_noise(dataset, 0.2, 'confusion', 0, path)
    train = noisy.splits['train']
    changed = train.labels != dataset.splits['train'].labels
    assert changed.sum() == 8
    assert set(train.extra['true_label'][changed]) == {0} and set(train.labels[changed]) == {1}
    assert noisy.manifest['changes']['noise']['files'][0]['file'] == path


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((1.5, 'symmetric', 0, ''), 'noise.rate is 1.5; a number from 0 to 1'),
        ((0.1, 'random', 0, ''), "kind is 'random'; it can be symmetric or confusion"),
        ((0.1, 'confusion', 0, ''), 'goes with config.data.noise.confusion'),
        ((0.1, 'symmetric', 0, 'x.json'), 'goes with no confusion file'),
        ((0.1, 'confusion', 0, 'x.json'), 'x.json is not there'),
        ((0.1, 'confusion', 0, 'other.json'), 'knows anger, fear, and not happiness'),
        ((0.1, 'confusion', 0, 'bad.json'), 'bad.json is no scores.json'),
    ],
)
def test_noise_that_cannot_be_is_one_line(dataset, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_scores(tmp_path / 'other.json', ['anger', 'fear'], [[1, 1], [1, 1]])
    (tmp_path / 'bad.json').write_text('{"test": {}}')
    with pytest.raises(UserError, match=message):
        add_label_noise(dataset, *arguments)
