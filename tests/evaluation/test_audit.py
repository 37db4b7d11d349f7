import sys

import numpy as np
import pytest
from sklearn import metrics

from fer_jax.errors import UserError
from fer_jax.evaluation import audit
from fer_jax.evaluation.audit import Audit, detection_scores, flag_share

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.45, 0.3, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
LABELS = np.array([0, 0, 0, 2], np.int32)


def assert_audit(found, scores, flags, suggested):
    np.testing.assert_allclose(found.scores, scores, atol=1e-12)
    assert found.flags.tolist() == flags
    assert found.suggested.tolist() == suggested
    assert (found.scores.dtype, found.flags.dtype, found.suggested.dtype) == (np.float64, np.bool_, np.int32)


def test_self_confidence():
    found = audit.self_confidence(PROBABILITIES, LABELS)
    assert_audit(found, [0.3, 0.55, 0.9, 0.4], [False, True, True, False], [1, 1, 1, 0])


def test_margin():
    found = audit.margin(PROBABILITIES, LABELS)
    assert_audit(found, [-0.5, -0.15, 0.7, -0.4], [False, False, True, False], [1, 1, 1, 0])
    found = audit.margin(PROBABILITIES, LABELS, share=0.5)
    assert found.flags.tolist() == [False, True, True, False]


def test_area_under_margin():
    logits = np.array(
        [[[3.0, 1.0, 0.0], [0.0, 1.0, 4.0]], [[2.0, 0.0, 1.0], [2.0, 5.0, 1.0]], [[5, 1, 2], [0, 2, 1.5]]]
    )
    labels = np.array([0, 0])
    margins, rivals = (np.stack(side) for side in zip(*(audit.epoch_margins(e, labels) for e in logits), strict=True))
    np.testing.assert_allclose(margins, [[2, -4], [1, -3], [3, -2]])
    assert rivals.tolist() == [[1, 2], [2, 1], [2, 1]]
    assert_audit(audit.area_under_margin(margins, rivals), [-2, 3], [False, True], [2, 1])
    assert audit.area_under_margin(margins, rivals, threshold=-3.5).flags.tolist() == [False, False]


def test_consensus():
    """Ranks by hand: self-confidence 1, 2.5, 2.5, 4 of 4; the margin in training 2, 1, 4, 3."""
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.1, 0.9]])
    margins, rivals = np.array([[1.0, 2.0, -4.0, -1.0], [1.0, 2.0, -2.0, -1.0]]), np.ones((2, 4), int)
    found = audit.consensus(probabilities, np.zeros(4, int), margins, rivals)
    assert_audit(found, [3 / 8, 3.5 / 8, 6.5 / 8, 7 / 8], [False, False, True, True], [1, 1, 1, 1])
    halved = audit.consensus(probabilities, np.zeros(4, int), margins, rivals, share=0.25)
    assert halved.flags.tolist() == [False, False, False, True]
    with pytest.raises(UserError, match='margins of 3 examples, probabilities of 4'):
        audit.consensus(probabilities, np.zeros(4, int), margins[:, 1:], rivals[:, 1:])


def test_vote_entropy():
    votes = np.array([[10.0, 0.0, 0.0], [5.0, 5.0, 0.0], [2.0, 6.0, 0.0], [0.0, 0.0, 0.0]])
    two = np.log(2) / np.log(3)
    quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(3)
    found = audit.vote_entropy(votes, np.array([0, 0, 0, 1]))
    assert_audit(found, [0, two, quarter, 1], [False, True, True, True], [1, 1, 1, -1])


def test_similarity():
    scores = np.array([0.85, 0.86, 0.2])
    assert_audit(audit.similarity(scores), scores, [False, True, False], [-1, -1, -1])
    assert audit.similarity(scores, share=2 / 3).flags.tolist() == [True, True, False]
    assert audit.similarity(scores, threshold=0.1).flags.tolist() == [True, True, True]


def test_at_random():
    labels = np.arange(3000) % 3
    found = audit.at_random(labels, 3, seed=1, share=0.2)
    again, other = (audit.at_random(labels, 3, seed=seed, share=0.2) for seed in (1, 2))
    np.testing.assert_array_equal(found.flags, again.flags)
    assert not (found.flags == other.flags).all()
    assert found.flags.sum() == 600
    assert found.scores[found.flags].min() > found.scores[~found.flags].max()
    assert (found.suggested != labels).all()
    assert {tuple(pair) for pair in np.stack([labels, found.suggested], 1)} == {
        (k, j) for k in range(3) for j in range(3) if j != k
    }


def noisy(seed=0, n=600, rate=0.2):
    """Labels of which some are wrong, and probabilities of a classifier that is right mostly."""
    random = np.random.default_rng(seed)
    true = random.integers(0, 4, n)
    wrong = random.random(n) < rate
    labels = np.where(wrong, (true + random.integers(1, 4, n)) % 4, true)
    logits = random.normal(size=(n, 4)) + 2.5 * np.eye(4)[true]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels, true


def test_confident_learning():
    pytest.importorskip('cleanlab')
    probabilities, labels, true = noisy()
    found = audit.confident_learning(probabilities, labels)
    scores = detection_scores(found, labels, true, 'abcd')
    assert scores['auroc'] > 0.9
    assert scores['flags']['precision'] > 0.6
    assert abs(scores['flags']['flagged'] - scores['wrong']) < 0.3 * scores['wrong']  # nobody told it how many
    assert scores['relabel_accuracy'] > 0.7
    assert audit.confident_learning(probabilities, labels, share=0.1).flags.sum() == 60
    with pytest.raises(UserError, match='examples of every class; there is none of class 3'):
        audit.confident_learning(probabilities[labels < 3], labels[labels < 3])


def test_without_cleanlab_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cleanlab.filter', None)
    with pytest.raises(UserError, match=r"needs cleanlab .*pip install 'fer_jax\[audit\]'"):
        audit.confident_learning(*noisy()[:2])


@pytest.mark.parametrize('digits', [1, 9])  # with many ties, and without
def test_scores_are_scikit_learns(digits):
    probabilities, labels, true = noisy(seed=digits)
    found = audit.self_confidence(probabilities.round(digits), labels)
    wrong = labels != true
    scores = detection_scores(found, labels, true, 'abcd')
    for part, at in [
        (scores, slice(None)),
        *((scores['per_class'][name], labels == k) for k, name in enumerate('abcd')),
    ]:
        truth, values, flags = wrong[at], found.scores[at], found.flags[at]
        assert part['wrong'] == truth.sum()
        assert part['auroc'] == pytest.approx(metrics.roc_auc_score(truth, values))
        assert part['average_precision'] == pytest.approx(metrics.average_precision_score(truth, values))
        expected = metrics.precision_recall_fscore_support(truth, flags, average='binary')[:3]
        assert [part['flags'][name] for name in ('precision', 'recall', 'f1')] == pytest.approx(list(expected))
        assert part['flags']['flagged'] == flags.sum()
    assert scores['true_rate']['flagged'] == wrong.sum()
    assert scores['true_rate']['precision'] == scores['true_rate']['recall']
    right = (found.suggested == true)[wrong].mean()
    assert scores['relabel_accuracy'] == pytest.approx(right)


def test_scores_by_hand():
    found = Audit(np.array([0.9, 0.8, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0, 0], bool), np.array([1, 1, 1, 0, 1]))
    labels, true = np.array([0, 0, 0, 1, 0]), np.array([1, 0, 1, 1, 0])
    scores = detection_scores(found, labels, true, ('x', 'y'))
    assert scores['auroc'] == pytest.approx((3 + 1.5) / 6)
    assert scores['average_precision'] == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert scores['flags'] == {'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'flagged': 2}
    assert scores['relabel_accuracy'] == 1.0
    assert scores['per_class']['y'] == {
        'wrong': 0,
        'auroc': None,
        'average_precision': None,
        'flags': {'precision': 0.0, 'recall': 0.0, 'f1': 0.0, 'flagged': 0},
    }


def test_without_suggestions_there_is_no_relabel_accuracy():
    found = audit.similarity(np.array([0.9, 0.1]))
    assert detection_scores(found, np.array([0, 1]), np.array([1, 1]), ('x', 'y'))['relabel_accuracy'] is None


def test_a_share_flags_as_many_as_it_says():
    scores = np.array([0.5, 0.9, 0.5, 0.5])
    assert flag_share(scores, 0.5).tolist() == [True, True, False, False]
    assert flag_share(scores, 0.0).sum() == 0
    assert flag_share(scores, 1.0).sum() == 4
    with pytest.raises(UserError, match='between 0 and 1'):
        flag_share(scores, 1.1)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: audit.margin(PROBABILITIES, LABELS[:3]), r'these are \[4, 3\] and \[3\]'),
        (lambda: audit.margin(PROBABILITIES, np.array([0, 1, 2, 3])), 'labels run from 0 to 3 for 3 classes'),
        (lambda: audit.similarity(np.array([np.nan, 0.5])), '1 of 2 audit scores are not finite'),
        (lambda: audit.area_under_margin(np.zeros((2, 3)), np.zeros((2, 4), int)), r'these are \[2, 3\] and \[2, 4\]'),
    ],
)
def test_what_cannot_be_audited_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
