"""Pooled scores of folds whose predictions are known: against scikit-learn, by hand, and with every kind of damage."""

import json
import shutil

import numpy as np
import pytest
from sklearn import metrics

from fer_jax.errors import UserError
from fer_jax.evaluation import folds
from fer_jax.evaluation.predictions import Predictions, load_predictions, save_predictions
from fer_jax.evaluation.scores import score_predictions, update_scores_file

NAMES = ('anger', 'fear', 'happiness')
SIZES = (30, 24, 18)


def config_of(fold, **data):
    there = {'fold': fold, 'folds': 3, 'fold_by': 'subject', 'fold_validation': True, **data}
    return {'seed': 0, 'data': there, 'evaluation': {'splits': ['validation', 'test']}}


def write_fold(workdir, fold, seed=0, members=2, ids=None, **data):
    random = np.random.default_rng([seed, fold])
    count = SIZES[fold]
    labels = random.integers(0, 3, count).astype(np.int32)
    logits = random.normal(size=(members, count, 3)).astype(np.float32)
    logits[:, np.arange(count), labels] += 1
    predictions = Predictions(
        ids=np.array([f'f{fold}_{i:02d}' for i in range(count)]) if ids is None else ids,
        labels=labels,
        logits=logits,
        steps=np.arange(1, members + 1) * 10,
        class_names=np.array(NAMES),
        twin_in_train=np.arange(count) % 5 == 0,
        member_names=np.array([f'fold{fold}@{10 * (m + 1)}' for m in range(members)]),
        member_runs=np.array([f'cv/fold{fold}'] * members),
    )
    place = folds.fold_directory(workdir, fold)
    save_predictions(place / 'predictions' / 'test.npz', predictions)
    validation = Predictions(**{**vars(predictions), 'logits': logits[::-1]})
    scores = score_predictions(predictions, validation, dataset='ckplus', manifest='0123') | {'tta': 'flip'}
    update_scores_file(place / 'scores.json', 'test', scores)
    (place / 'config.json').write_text(json.dumps({'config': config_of(fold, **data)}))
    (place / 'metrics.jsonl').write_text(f'{{"seconds": 1.0}}\n{{"seconds": {10.0 * (fold + 1)}}}\n')


def write_folds(workdir):
    for fold in range(3):
        write_fold(workdir, fold)
    ids = [f'f{fold}_{i:02d}' for fold in range(3) for i in range(SIZES[fold])]
    units = [f's{fold}_{i // 6}' for fold in range(3) for i in range(SIZES[fold])]
    numbers = np.repeat(np.arange(3), SIZES)
    folds.write_assignment(workdir / 'folds.csv', folds.Assignment(np.array(ids), np.array(units), numbers))


@pytest.fixture
def workdir(tmp_path):
    write_folds(tmp_path)
    return tmp_path


def test_pooled_scores_agree_with_scikit_learn(workdir):
    scores = folds.write_folds_json(workdir)
    assert scores == folds.read_folds_json(workdir)
    parts = [load_predictions(workdir / f'fold{fold}' / 'predictions' / 'test.npz') for fold in range(3)]
    labels = np.concatenate([part.labels for part in parts])
    # Validation had the members the other way round, so its best one is the other one's index.
    best = [int((part.logits[::-1].argmax(2) == part.labels).mean(1).argmax()) for part in parts]
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    predicted = {
        'single': [part.logits[m].argmax(1) for m, part in zip(best, parts, strict=True)],
        'ensemble': [softmax(part.logits).mean(0).argmax(1) for part in parts],
    }
    for kind, of_fold in predicted.items():
        pooled, every = scores[kind]['pooled'], np.concatenate(of_fold)
        assert pooled['accuracy'] == pytest.approx(metrics.accuracy_score(labels, every))
        assert pooled['confusion'] == metrics.confusion_matrix(labels, every).tolist()
        assert pooled['macro_f1'] == pytest.approx(metrics.f1_score(labels, every, average='macro'))
        f1 = [metrics.f1_score(p.labels, x, average='macro') for p, x in zip(parts, of_fold, strict=True)]
        assert scores[kind]['macro_f1'] == {
            'mean': pytest.approx(np.mean(f1)),
            'sd': pytest.approx(np.std(f1) * np.sqrt(3 / 2)),
        }
        accuracies = [np.mean(p.labels == x) for p, x in zip(parts, of_fold, strict=True)]
        assert [fold[kind]['accuracy'] for fold in scores['folds']] == pytest.approx(accuracies)
        assert scores[kind]['accuracy']['mean'] == pytest.approx(np.mean(accuracies))
    assert (scores['num_examples'], scores['num_folds'], scores['by'], scores['num_units']) == (72, 3, 'subject', 12)
    assert [fold['seconds'] for fold in scores['folds']] == [10, 20, 30]
    assert [fold['absent'] for fold in scores['folds']] == [[], [], []]


def test_the_order_of_the_predictions_does_not_matter(workdir):
    before = folds.score_folds(workdir)
    for fold in range(3):
        path = workdir / f'fold{fold}' / 'predictions' / 'test.npz'
        found = load_predictions(path)
        new = np.random.default_rng(fold).permutation(found.num_examples)
        moved = {name: getattr(found, name)[new] for name in ('ids', 'labels', 'twin_in_train')}
        save_predictions(path, Predictions(**{**vars(found), **moved, 'logits': found.logits[:, new]}))
    after = folds.score_folds(workdir)
    assert after['single']['pooled']['accuracy_ci95_units'] == before['single']['pooled']['accuracy_ci95_units']
    assert after['ensemble']['pooled']['confusion'] == before['ensemble']['pooled']['confusion']


def test_drawing_whole_units_widens_the_interval_as_theory_says():
    # 60 units of 8 that are right or wrong together: a standard error of sqrt(p (1 - p) / 60), not of / 480.
    units = np.repeat(np.arange(60), 8).astype(str)
    correct = np.repeat(np.arange(60) % 4 > 0, 8)
    low, high = folds.cluster_interval(correct, units)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.75 * 0.25 / 60), rel=0.05)
    low, high = folds.cluster_interval(correct, np.arange(480).astype(str))
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.75 * 0.25 / 480), rel=0.05)


def test_an_assignment_is_read_back(tmp_path):
    strange = folds.Assignment(np.array(['a,b', 'c "d"', 'é\n']), np.array(['1', '1', '2']), np.array([0, 0, 1]))
    folds.write_assignment(tmp_path / 'folds.csv', strange)
    assert folds.read_assignment(tmp_path / 'folds.csv') == strange
    assert strange != folds.Assignment(strange.ids, strange.units, np.array([0, 1, 1]))


def remove_fold(workdir):
    shutil.rmtree(workdir / 'fold1')


def other_images(workdir):
    shutil.rmtree(workdir / 'fold1')
    write_fold(workdir, 1, ids=np.array([f'f1_{i:02d}' for i in range(23)] + ['f0_00']))


def other_seed(workdir):
    path = workdir / 'fold2' / 'config.json'
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def other_fold(workdir):
    path = workdir / 'fold2' / 'config.json'
    path.write_text(path.read_text().replace('"fold": 2', '"fold": 0'))


def other_members(workdir):
    path = workdir / 'fold1' / 'predictions' / 'test.npz'
    found = load_predictions(path)
    save_predictions(path, Predictions(**{**vars(found), 'steps': found.steps + 1}))


def other_tta(workdir):
    path = workdir / 'fold1' / 'scores.json'
    path.write_text(path.read_text().replace('"flip"', '"none"'))


def other_data(workdir):
    path = workdir / 'fold1' / 'scores.json'
    path.write_text(path.read_text().replace('"0123"', '"4567"'))


def twice_in_the_list(workdir):
    path = workdir / 'folds.csv'
    path.write_text(path.read_text() + 'f0_00,x,1\n')


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (remove_fold, 'fold1 has no scores yet'),
        (other_images, 'fold1 tested 24 images, of which 23 are among the 24'),
        (other_seed, 'differ in config.seed: 1 and 0'),
        (other_fold, 'config.data.fold=0'),
        (other_members, 'not of the same members'),
        (other_tta, 'differ in tta'),
        (other_data, 'differ in manifest'),
        (twice_in_the_list, 'damaged'),
        (lambda workdir: (workdir / 'folds.csv').unlink(), 'fer_jax.crossvalidate writes it'),
    ],
)
def test_folds_that_do_not_fit_are_refused(workdir, damage, message):
    damage(workdir)
    with pytest.raises(UserError, match=message):
        folds.score_folds(workdir)


def test_seconds_are_those_of_the_last_whole_line(tmp_path):
    assert folds.training_seconds(tmp_path) == 0.0
    record = tmp_path / 'metrics.jsonl'
    record.write_text('{"step": 1, "seconds": 2.5}\n{"step": 2, "seconds": 4.0}\n{"step": 3, "sec')
    assert folds.training_seconds(tmp_path) == 4.0
    record.write_text('{"step')
    assert folds.training_seconds(tmp_path) == 0.0
