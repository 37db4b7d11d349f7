"""Methods that find suspect labels, each a pure function of arrays, and how well what they find is what is wrong.

Probabilities must be out of fold: of networks that were not trained on the example.

Shapes: N examples, K classes, E epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are used, which takes a second for stats
from jaxtyping import Bool, Float, Int

from fer_jax.errors import UserError

ScoresN = Float[np.ndarray, 'N']
FlagsN = Bool[np.ndarray, 'N']
LabelsN = Int[np.ndarray, 'N']
ValuesNK = Float[np.ndarray, 'N K']


@dataclasses.dataclass(frozen=True)
class Audit:
    """What a method says of every example.

    Attributes:
        scores: float64 [N], higher is more suspect.
        flags: bool [N], those to leave out: over the method's own threshold, or the chosen share of the highest scores.
        suggested: int32 [N], the class that it would be if the label were wrong; -1 where the method has none.
    """

    scores: ScoresN
    flags: FlagsN
    suggested: LabelsN


def self_confidence(probabilities_NK: ValuesNK, labels_N: LabelsN, share: float | None = None) -> Audit:
    """How improbable the label is: 1 - p of the label; flagged where that is over 1/2.

    Args:
        share: of the examples, to flag those of the highest scores instead of the method's own; so everywhere here.
    """
    _check(probabilities_NK, labels_N)
    scores = 1 - _of_label(probabilities_NK, labels_N)
    return _audit(scores, scores > 0.5, _best_other(probabilities_NK, labels_N), share)


def margin(probabilities_NK: ValuesNK, labels_N: LabelsN, share: float | None = None) -> Audit:
    """By how much another class is more probable than the label; flagged where one is."""
    _check(probabilities_NK, labels_N)
    other = _best_other(probabilities_NK, labels_N)
    scores = _of_label(probabilities_NK, other) - _of_label(probabilities_NK, labels_N)
    return _audit(scores, scores > 0, other, share)


def confident_learning(probabilities_NK: ValuesNK, labels_N: LabelsN, share: float | None = None) -> Audit:
    """Confident learning (Northcutt et al. 2021) by cleanlab: flags as many per pair of classes as it estimates.

    Flags prune by noise rate; scores are 1 - self-confidence, corrected by each class's mean confidence.

    Raises:
        UserError: if cleanlab is not installed, or a class has no example.
    """
    _check(probabilities_NK, labels_N)
    missing = np.setdiff1d(np.arange(probabilities_NK.shape[1]), labels_N)
    if len(missing):
        raise UserError(f'confident_learning needs examples of every class; there is none of class {missing[0]}')
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise UserError(f"confident_learning needs cleanlab ({error}); pip install 'fer_jax[audit]'") from None
    flags = find_label_issues(labels_N, probabilities_NK, filter_by='prune_by_noise_rate', n_jobs=1)
    quality = get_label_quality_scores(labels_N, probabilities_NK, method='self_confidence', adjust_pred_probs=True)
    return _audit(1 - quality, flags, _best_other(probabilities_NK, labels_N), share)


def epoch_margins(logits_NK: ValuesNK, labels_N: LabelsN) -> tuple[ScoresN, LabelsN]:
    """For `area_under_margin`, after an epoch: the label's logit less the largest other one, and whose that is."""
    _check(logits_NK, labels_N)
    rivals_N = _best_other(logits_NK, labels_N)
    return _of_label(logits_NK, labels_N) - _of_label(logits_NK, rivals_N), rivals_N


def area_under_margin(
    margins_EN: Float[np.ndarray, 'E N'],
    rivals_EN: Int[np.ndarray, 'E N'],
    share: float | None = None,
    threshold: float = 0.0,
) -> Audit:
    """AUM (Pleiss et al. 2020): the margin in training, averaged over epochs; a wrong label is learned late.

    Args:
        margins_EN, rivals_EN: see `epoch_margins`; of the network in training, on its training images.
        threshold: of the margin, below which an example is flagged; the paper takes it from examples under a label
            that is sure to be wrong. At 0 the other class was ahead on average.

    Returns:
        Scores are the negative margins; suggested is the class that was ahead of the others most often.
    """
    if margins_EN.ndim != 2 or margins_EN.shape != rivals_EN.shape or not len(margins_EN):
        raise UserError(
            f'aum takes margins and rivals [epochs, examples]; these are {list(margins_EN.shape)} and '
            f'{list(rivals_EN.shape)}'
        )
    area_N = margins_EN.mean(0, dtype=np.float64)
    counts_KN = np.stack([(rivals_EN == k).sum(0) for k in range(int(rivals_EN.max()) + 1)])
    return _audit(-area_N, area_N < threshold, counts_KN.argmax(0), share)


def consensus(
    probabilities_NK: ValuesNK,
    labels_N: LabelsN,
    margins_EN: Float[np.ndarray, 'E N'],
    rivals_EN: Int[np.ndarray, 'E N'],
    share: float | None = None,
) -> Audit:
    """What networks that did not see an example say of it, together with one in training on it.

    Scores are the mean of an example's ranks by `self_confidence` and `area_under_margin`, as shares of the examples.
    Flagged where another class is ahead both out of fold and in training; suggested is that of training.

    Args:
        probabilities_NK: out of fold.
        margins_EN, rivals_EN: see `area_under_margin`.
    """
    apart, together = self_confidence(probabilities_NK, labels_N), area_under_margin(margins_EN, rivals_EN)
    if len(apart.scores) != len(together.scores):
        raise UserError(f'there are margins of {len(together.scores)} examples, probabilities of {len(apart.scores)}')
    ranks = [scipy.stats.rankdata(audit.scores) / max(len(labels_N), 1) for audit in (apart, together)]
    flags = margin(probabilities_NK, labels_N).flags & together.flags
    return _audit(sum(ranks) / 2, flags, together.suggested, share)


def vote_entropy(votes_NK: ValuesNK, labels_N: LabelsN, share: float | None = None) -> Audit:
    """How far annotators disagree: the entropy of their votes over log K; flagged where half or fewer chose the label.

    Where nobody voted for any of these classes, the score is 1 and nothing is suggested.
    """
    _check(votes_NK, labels_N)
    totals_N = votes_NK.sum(1)
    shares_NK = votes_NK / np.maximum(totals_N, 1e-9)[:, None]
    scores = scipy.stats.entropy(np.where(totals_N[:, None] > 0, shares_NK, 1.0), axis=1) / np.log(votes_NK.shape[1])
    suggested = np.where(totals_N > 0, _best_other(votes_NK, labels_N), -1)
    return _audit(scores, _of_label(shares_NK, labels_N) <= 0.5, suggested, share)


def similarity(ssim_N: ScoresN, share: float | None = None, threshold: float = 0.85) -> Audit:
    """How like an image is to its translation to another emotion (seed 001); flagged over the threshold."""
    return _audit(ssim_N, ssim_N > threshold, np.full(len(ssim_N), -1), share)


def at_random(
    labels_N: LabelsN, num_classes: int, seed: int, share: float | None = None, per_class: Sequence[int] = ()
) -> Audit:
    """What any method must beat: scores and other classes by lot.

    Args:
        per_class: how many to flag of each class, instead of a share of all.

    Raises:
        UserError: if a class has fewer examples than are to be flagged.
    """
    random = np.random.default_rng(seed)
    scores = random.random(len(labels_N))
    other = (labels_N + random.integers(1, num_classes, len(labels_N))) % num_classes
    flags = np.zeros(len(labels_N), bool)
    for k, count in enumerate(per_class):
        members = np.flatnonzero(labels_N == k)
        if count > len(members):
            raise UserError(f'{count} examples of class {k} are to be flagged at random, and there are {len(members)}')
        flags[members[np.argsort(-scores[members], kind='stable')[:count]]] = True
    return _audit(scores, flags, other, share)


def flag_share(scores_N: ScoresN, share: float) -> FlagsN:
    """The highest scores, as many as the share of all rounds to; of equal ones, the first.

    Raises:
        UserError: if the share is not within 0 and 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f'the share of examples to flag is {share}; it lies between 0 and 1')
    flags = np.zeros(len(scores_N), bool)
    flags[np.argsort(-scores_N, kind='stable')[: round(share * len(scores_N))]] = True
    return flags


def _audit(scores: np.ndarray, automatic: np.ndarray, suggested: np.ndarray, share: float | None) -> Audit:
    scores = np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        raise UserError(f'{(~np.isfinite(scores)).sum()} of {len(scores)} audit scores are not finite')
    flags = automatic if share is None else flag_share(scores, share)
    return Audit(scores, np.asarray(flags, bool), np.asarray(suggested, np.int32))


def _check(values_NK: np.ndarray, labels_N: np.ndarray) -> None:
    if values_NK.ndim != 2 or len(values_NK) != len(labels_N) or values_NK.shape[1] < 2:
        raise UserError(
            f'an audit takes values [examples, classes] and as many labels; these are {list(values_NK.shape)} and '
            f'{list(labels_N.shape)}'
        )
    if len(labels_N) and not 0 <= labels_N.min() <= labels_N.max() < values_NK.shape[1]:
        raise UserError(f'labels run from {labels_N.min()} to {labels_N.max()} for {values_NK.shape[1]} classes')


def _of_label(values_NK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values_NK, np.asarray(labels_N, np.int64)[:, None], 1)[:, 0].astype(np.float64)


def _best_other(values_NK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """The class of the highest value but the label's."""
    others = np.arange(values_NK.shape[1]) != labels_N[:, None]
    return np.where(others, values_NK, -np.inf).argmax(1)


def auroc(scores_N: ScoresN, wrong_N: FlagsN) -> float | None:
    """The chance that an example that is wrong scores above one that is not, ties half; None if all are of one kind."""
    positives, negatives = int(wrong_N.sum()), int((~wrong_N).sum())
    if not positives or not negatives:
        return None
    ranks = scipy.stats.rankdata(scores_N)[wrong_N].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores_N: ScoresN, wrong_N: FlagsN) -> float | None:
    """Precision at each threshold, weighted by the recall that it adds; None if nothing is wrong."""
    if not wrong_N.any():
        return None
    order = np.argsort(-scores_N, kind='stable')
    last_of_ties = np.append(np.diff(scores_N[order]) != 0, True)
    found = np.cumsum(wrong_N[order])[last_of_ties]
    flagged = np.flatnonzero(last_of_ties) + 1
    return float((np.diff(found, prepend=0) * found / flagged).sum() / wrong_N.sum())


def flag_scores(flags_N: FlagsN, wrong_N: FlagsN) -> dict[str, float | int]:
    """Precision, recall and F1 of flags, and how many there are; a ratio without a denominator is 0."""
    hits, flagged, wrong = (int(values.sum()) for values in (flags_N & wrong_N, flags_N, wrong_N))
    return {
        'precision': hits / max(flagged, 1),
        'recall': hits / max(wrong, 1),
        'f1': 2 * hits / max(flagged + wrong, 1),
        'flagged': flagged,
    }


def detection_scores(
    audit: Audit, labels_N: LabelsN, true_labels_N: LabelsN, class_names: Sequence[str]
) -> dict[str, Any]:
    """How well an audit finds the labels that are wrong, as a JSON object.

    Returns:
        `wrong`, how many labels are; `auroc`, `average_precision`; precision, recall and F1 of the audit's flags
        (`flags`) and of as many of the highest scores as labels are wrong (`true_rate`); `relabel_accuracy`, the share
        of wrong labels with a suggestion for which it is the true class; and `per_class`, of the examples labelled so.
    """
    wrong_N = np.asarray(labels_N != true_labels_N)
    told_N = wrong_N & (audit.suggested >= 0)
    return {
        **_detection(audit, wrong_N),
        'true_rate': flag_scores(flag_share(audit.scores, wrong_N.mean()), wrong_N),
        'relabel_accuracy': float((audit.suggested == true_labels_N)[told_N].mean()) if told_N.any() else None,
        'per_class': {
            str(name): _detection(
                Audit(*(getattr(audit, field.name)[labels_N == k] for field in dataclasses.fields(audit))),
                wrong_N[labels_N == k],
            )
            for k, name in enumerate(class_names)
        },
    }


def _detection(audit: Audit, wrong_N: np.ndarray) -> dict[str, Any]:
    return {
        'wrong': int(wrong_N.sum()),
        'auroc': auroc(audit.scores, wrong_N),
        'average_precision': average_precision(audit.scores, wrong_N),
        'flags': flag_scores(audit.flags, wrong_N),
    }
