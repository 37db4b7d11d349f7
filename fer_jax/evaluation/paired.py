"""Two classifiers on the same examples: what one mends and the other breaks.

Shapes: N examples, K classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy  # whose parts are imported when they are used, which takes a second for stats
from jaxtyping import Shaped

from fer_jax.evaluation.predictions import LabelsN
from fer_jax.evaluation.scores import CorrectN, ProbabilitiesNK

IdsN = Shaped[np.ndarray, 'N']
NamesK = Shaped[np.ndarray, 'K']

_BOOTSTRAP_SEED = 20130701


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one classifier said of every example of a split.

    Attributes:
        ids: str [N], unique.
        labels: int [N].
        probabilities: float64 [N, K].
        class_names: K names.
    """

    ids: IdsN
    labels: LabelsN
    probabilities: ProbabilitiesNK
    class_names: tuple[str, ...]

    @property
    def predicted(self) -> LabelsN:
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> CorrectN:
        return self.predicted == self.labels

    @property
    def confidence(self) -> np.ndarray:
        """Float64 [N]: the probability of the predicted class."""
        return self.probabilities.max(axis=1)

    def in_order_of(self, ids: IdsN) -> Answers:
        """The same answers in the order of `ids`, which are the same ids."""
        place = np.argsort(self.ids, kind='stable')
        rows = place[np.searchsorted(self.ids, ids, sorter=place)]
        return dataclasses.replace(
            self, ids=self.ids[rows], labels=self.labels[rows], probabilities=self.probabilities[rows]
        )


@dataclasses.dataclass(frozen=True)
class Change:
    """From one classifier to another.

    Attributes:
        fixed: bool [N], wrong before and right after.
        broken: bool [N], right before and wrong after.
        p_value: of McNemar's exact test.
        difference: of the accuracies, after - before, a fraction.
        interval: its 95 % interval.
    """

    fixed: CorrectN
    broken: CorrectN
    p_value: float
    difference: float
    interval: tuple[float, float]


def why_not_comparable(before: Answers, after: Answers) -> str:
    """Why the two may not be subtracted from each other, in a few words; '' where they may."""
    if before.class_names != after.class_names:
        return 'their classes differ'
    if len(before.ids) != len(after.ids) or set(before.ids.tolist()) != set(after.ids.tolist()):
        return 'they were read on other images'
    if not np.array_equal(before.labels, after.in_order_of(before.ids).labels):
        return 'the same images have other labels'
    return ''


def compare(before: Answers, after: Answers) -> Change:
    """The change, in the order of `before`; the two have to be comparable."""
    right_before_N, right_after_N = before.correct, after.in_order_of(before.ids).correct
    fixed_N, broken_N = ~right_before_N & right_after_N, right_before_N & ~right_after_N
    fixed, broken = int(fixed_N.sum()), int(broken_N.sum())
    total = len(fixed_N)
    interval = difference_interval(fixed, broken, total)
    return Change(fixed_N, broken_N, mcnemar(fixed, broken), (fixed - broken) / total, interval)


def mcnemar(fixed: int, broken: int) -> float:
    """The two-sided p-value of McNemar's exact test: of `fixed` heads in `fixed + broken` throws of a fair coin.

    Source: McNemar 1947, Note on the sampling error of the difference between correlated proportions; exact as in
    Agresti 2013, Categorical data analysis, section 11.1.
    """
    return float(scipy.stats.binomtest(fixed, fixed + broken, 0.5).pvalue) if fixed + broken else 1.0


def difference_interval(fixed: int, broken: int, total: int, resamples: int = 2000) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of (fixed - broken) / total, over examples.

    Drawing N examples with replacement is one multinomial draw of three kinds, so no resample is materialised.
    """
    shares = np.array([fixed, broken, total - fixed - broken]) / total
    draws = np.random.default_rng(_BOOTSTRAP_SEED).multinomial(total, shares, resamples)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / total, [2.5, 97.5])
    return float(low), float(high)
