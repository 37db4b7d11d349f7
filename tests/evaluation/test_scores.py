import json

import numpy as np
import pytest
from sklearn import metrics

from fer_jax.errors import UserError
from fer_jax.evaluation import scores
from fer_jax.evaluation.predictions import Predictions

NAMES = ('anger', 'disgust', 'fear', 'happiness', 'sadness')


def make_predictions(logits, labels, class_names, twins=None):
    logits = np.asarray(logits, np.float32)
    members, examples, _ = logits.shape
    return Predictions(
        ids=np.array([f'face_{i}' for i in range(examples)]),
        labels=np.asarray(labels, np.int32),
        logits=logits,
        steps=np.arange(1, members + 1) * 100,
        class_names=np.array(class_names),
        twin_in_train=np.zeros(examples, bool) if twins is None else np.asarray(twins),
        member_names=np.array([f'run@{100 * (m + 1)}' for m in range(members)]),
        member_runs=np.array(['run'] * members),
    )


@pytest.fixture
def noisy():
    """600 examples, five classes, of which `sadness` is predicted but never true."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 600)
    logits = generator.normal(size=(3, 600, 5)) * 1.5
    logits[:, np.arange(600), labels] += 1.5
    return make_predictions(logits, labels, NAMES)


def test_scores_agree_with_scikit_learn(noisy):
    probabilities = scores.ensemble_probabilities(noisy.logits)
    predicted, every = probabilities.argmax(axis=1), range(5)
    assert 4 in predicted and 4 not in noisy.labels
    ours = scores.classification_scores(probabilities, noisy.labels, NAMES, noisy.twin_in_train)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        noisy.labels, predicted, labels=every, zero_division=0
    )
    for key, theirs in {'precision': precision, 'recall': recall, 'f1': f1, 'support': support}.items():
        np.testing.assert_allclose([ours['per_class'][name][key] for name in NAMES], theirs, atol=1e-6)
    assert ours['accuracy'] == pytest.approx(metrics.accuracy_score(noisy.labels, predicted), abs=1e-6)
    macro = metrics.f1_score(noisy.labels, predicted, average='macro', labels=every, zero_division=0)
    assert ours['macro_f1'] == pytest.approx(macro, abs=1e-6)
    assert ours['confusion'] == metrics.confusion_matrix(noisy.labels, predicted, labels=every).tolist()
    assert ours['nll'] == pytest.approx(metrics.log_loss(noisy.labels, probabilities, labels=every), abs=1e-6)


def test_softmax_of_large_logits_is_finite_and_right():
    np.testing.assert_allclose(scores.softmax(np.array([1000.0, 1000 + np.log(3)])), [0.25, 0.75], rtol=1e-12)


def test_nll_stays_finite_where_a_probability_underflows():
    nll = scores.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1]))
    assert 700 < nll < 710


def test_ensemble_averages_probabilities_not_logits():
    logits = np.array([[[4.0, 0.0]], [[0.0, 2.0]], [[0.0, 1.5]]])
    assert logits.mean(axis=0).argmax() == 0
    first = np.mean([1 / (1 + np.exp(-gap)) for gap in (4.0, -2.0, -1.5)])
    assert first < 0.5
    np.testing.assert_allclose(scores.ensemble_probabilities(logits)[0], [first, 1 - first], rtol=1e-12)


def test_calibration_error_of_a_hand_computed_case():
    # Bins are 1/15 wide. 0.52 and 0.53 share the bin (7/15, 8/15]: accuracy 1/2, mean confidence 0.525.
    # 0.95 is alone in the last bin and right; 0.8 is exactly the upper edge 12/15 and wrong.
    top = np.array([0.52, 0.53, 0.95, 0.8])
    probabilities = np.stack([top, 1 - top], axis=1)
    labels = np.array([0, 1, 0, 1])
    found = scores.calibration(probabilities, labels)
    assert found.error == pytest.approx((2 * 0.025 + 0.05 + 0.8) / 4, abs=1e-12)
    assert found.counts.tolist() == [0] * 7 + [2] + [0] * 3 + [1] + [0] * 2 + [1]
    assert found.accuracy[7] == 0.5 and found.confidence[7] == pytest.approx(0.525)


def test_calibration_keeps_the_ends_of_the_scale():
    found = scores.calibration(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert found.counts[-1] == 2 and found.error == 0


def test_interval_is_near_the_normal_approximation_and_repeats():
    correct = np.arange(3589) < 2500
    low, high = scores.accuracy_interval(correct)
    half = 1.96 * np.sqrt(correct.mean() * (1 - correct.mean()) / len(correct))
    assert low == pytest.approx(correct.mean() - half, abs=0.0015)
    assert high == pytest.approx(correct.mean() + half, abs=0.0015)
    assert (low, high) == scores.accuracy_interval(correct)
    assert (low, high) != scores.accuracy_interval(correct, seed=1)


def test_interval_agrees_with_resampling_the_examples():
    correct = np.arange(400) < 280
    generator = np.random.default_rng(3)
    drawn = generator.choice(correct, (2000, 400)).mean(axis=1)
    np.testing.assert_allclose(scores.accuracy_interval(correct), np.percentile(drawn, [2.5, 97.5]), atol=0.006)


def test_interval_of_a_perfect_classifier_is_a_point():
    assert scores.accuracy_interval(np.ones(50, bool)) == (1.0, 1.0)


def one_hot_logits(predicted):
    return 5 * np.eye(3)[np.asarray(predicted)]


def test_single_is_chosen_on_validation_not_on_test():
    labels = [0, 1, 2, 0]
    first_right, second_right = [0, 1, 2, 0], [0, 2, 1, 1]
    validation = make_predictions(
        [one_hot_logits(second_right), one_hot_logits(first_right)], labels, ('anger', 'fear', 'sadness')
    )
    test = make_predictions(
        [one_hot_logits(first_right), one_hot_logits(second_right)], labels, ('anger', 'fear', 'sadness')
    )
    entry = scores.score_predictions(test, validation, dataset='toy', manifest='abc')
    assert [member['accuracy'] for member in entry['members']] == [1.0, 0.25]
    assert entry['single']['step'] == 200 and entry['single']['index'] == 1
    assert entry['single']['accuracy'] == 0.25 and entry['single']['validation_accuracy'] == 1.0
    on_validation = scores.score_predictions(validation, validation, dataset='toy', manifest='abc')
    assert on_validation['single']['step'] == 200 and on_validation['single']['accuracy'] == 1.0


def test_of_equally_good_members_the_first_is_chosen(noisy):
    twice = make_predictions(np.stack([noisy.logits[0], noisy.logits[0]]), noisy.labels, NAMES)
    assert scores.best_member(twice) == 0


def test_other_members_or_classes_are_refused(noisy):
    fewer = make_predictions(noisy.logits[:2], noisy.labels, NAMES)
    with pytest.raises(UserError, match='differ in member_runs'):
        scores.score_predictions(noisy, fewer, dataset='toy', manifest='abc')
    renamed = make_predictions(noisy.logits, noisy.labels, ('a', *NAMES[1:]))
    with pytest.raises(UserError, match='differ in class_names'):
        scores.score_predictions(noisy, renamed, dataset='toy', manifest='abc')


def test_accuracy_without_twins_stands_beside_the_whole():
    logits = [one_hot_logits([0, 1, 2, 0])]
    held = make_predictions(logits, [0, 1, 0, 1], ('anger', 'fear', 'sadness'), twins=[True, False, False, False])
    entry = scores.score_predictions(held, held, dataset='toy', manifest='abc')
    assert entry['num_twins'] == 1 and entry['num_examples'] == 4
    assert entry['ensemble']['accuracy'] == 0.5
    assert entry['ensemble']['accuracy_without_twins'] == pytest.approx(1 / 3)
    only = make_predictions(logits, [0, 1, 0, 1], ('anger', 'fear', 'sadness'), twins=[True] * 4)
    entry = scores.score_predictions(only, only, dataset='toy', manifest='abc')
    assert entry['single']['accuracy_without_twins'] is None


def test_readings_are_counted_and_other_splits_kept(tmp_path, noisy):
    path = tmp_path / 'run' / 'scores.json'
    entry = scores.score_predictions(noisy, noisy, dataset='toy', manifest='abc')
    scores.update_scores_file(path, 'validation', entry)
    scores.update_scores_file(path, 'test', entry)
    written = scores.update_scores_file(path, 'test', {**entry, 'dataset': 'toy again'})
    assert written == scores.read_scores(path) == json.loads(path.read_text())
    assert (written['validation']['readings'], written['test']['readings']) == (1, 2)
    assert (written['validation']['dataset'], written['test']['dataset']) == ('toy', 'toy again')
    assert [file.name for file in path.parent.iterdir()] == ['scores.json']


@pytest.mark.parametrize('content', ['{"test": ', '[1, 2]', '{"test": 3}'])
def test_a_damaged_scores_file_is_not_overwritten(tmp_path, noisy, content):
    path = tmp_path / 'scores.json'
    path.write_text(content)
    entry = scores.score_predictions(noisy, noisy, dataset='toy', manifest='abc')
    with pytest.raises(UserError, match='scores.json'):
        scores.update_scores_file(path, 'test', entry)
    assert path.read_text() == content


def test_a_missing_scores_file_is_named(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        scores.read_scores(tmp_path / 'scores.json')
