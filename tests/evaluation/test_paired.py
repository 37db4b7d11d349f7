"""Two classifiers on the same examples: McNemar's exact test by hand and by enumeration, and what may be subtracted."""

import dataclasses
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from fer_jax.evaluation.paired import Answers, compare, difference_interval, mcnemar, why_not_comparable


@pytest.mark.parametrize(
    ('fixed', 'broken', 'p'),
    [
        (0, 0, 1),
        (1, 0, 1),
        (6, 0, Fraction(2, 64)),
        (8, 2, Fraction(2 * (1 + 10 + 45), 1024)),  # the tails of ten throws by hand: 0.109375
        (5, 5, 1),
    ],
)
def test_mcnemar_is_the_binomial_test_computed_by_hand(fixed, broken, p):
    assert mcnemar(fixed, broken) == pytest.approx(float(p), abs=1e-12)
    assert mcnemar(broken, fixed) == mcnemar(fixed, broken)


@pytest.mark.parametrize(('fixed', 'broken'), [(121, 59), (14, 5), (30, 37), (400, 401)])
def test_mcnemar_against_every_outcome_in_whole_numbers(fixed, broken):
    throws = fixed + broken
    at_most = comb(throws, fixed)
    tail = sum(ways for ways in (comb(throws, heads) for heads in range(throws + 1)) if ways <= at_most)
    assert mcnemar(fixed, broken) == pytest.approx(float(Fraction(tail, 2**throws)), rel=1e-9)


def answers(predicted, labels=(0, 1, 2, 0, 1), ids='abcde', names=('x', 'y', 'z')):
    sure = np.full((len(predicted), len(names)), 0.1)
    sure[np.arange(len(predicted)), predicted] = 0.8
    return Answers(np.array(list(ids)), np.array(labels), sure, tuple(names))


def test_what_is_fixed_and_broken_does_not_depend_on_the_order():
    before = answers([0, 0, 2, 0, 0])  # right: a, c, d
    after = answers([0, 1, 1, 2, 1])  # right: a, b, e
    mixed = [4, 2, 0, 3, 1]
    shuffled = Answers(after.ids[mixed], after.labels[mixed], after.probabilities[mixed], after.class_names)
    change = compare(before, shuffled)
    assert before.ids[change.fixed].tolist() == ['b', 'e'] and before.ids[change.broken].tolist() == ['c', 'd']
    assert (change.difference, change.p_value) == (0, 1)
    assert change.interval[0] < 0 < change.interval[1]


def test_the_interval_of_the_difference_is_that_of_the_differences_by_example():
    """Against a bootstrap that draws the examples themselves."""
    by_example = np.repeat([1, -1, 0], [60, 30, 410])
    random = np.random.default_rng(1)
    drawn = by_example[random.integers(0, 500, (4000, 500))].mean(1)
    found = difference_interval(60, 30, 500)
    np.testing.assert_allclose(found, np.percentile(drawn, [2.5, 97.5]), atol=0.004)


def test_only_the_same_images_classes_and_labels_are_subtracted():
    one = answers([0, 1, 2, 0, 1])
    assert why_not_comparable(one, one.in_order_of(np.array(list('edcba')))) == ''
    assert 'other images' in why_not_comparable(one, answers([0, 1, 2, 0, 1], ids='abcdf'))
    assert 'other images' in why_not_comparable(one, answers([0, 1, 2, 0], labels=(0, 1, 2, 0), ids='abcd'))
    assert 'classes differ' in why_not_comparable(one, answers([0, 1, 2, 0, 1], names=('x', 'z', 'y')))
    other = dataclasses.replace(one, labels=np.array([0, 1, 2, 0, 2]))
    assert 'other labels' in why_not_comparable(one, other)
