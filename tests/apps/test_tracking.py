"""People followed and smoothed, against cases computed by hand."""

import math

import numpy as np
import pytest

from fer_jax.apps.tracking import Tracker, match, overlap


def boxes(*lefts, width=10.0, top=0.0):
    return np.array([(left, top, width, 10.0) for left in lefts]).reshape(-1, 4)


def shares(*firsts):
    return np.array([(first, 1 - first) for first in firsts], float).reshape(-1, 2)


def test_overlap_is_intersection_over_union():
    one = np.array([(0, 0, 10, 10)])
    others = np.array([(0, 0, 10, 10), (5, 0, 10, 10), (5, 5, 10, 10), (10, 0, 5, 5), (2, 2, 5, 5)])
    np.testing.assert_allclose(overlap(one, others)[0], [1, 50 / 150, 25 / 175, 0, 25 / 100])


def test_the_sum_of_overlaps_counts_and_not_the_single_best():
    """Overlaps 8/12 and 7/13 against 6/14 and 1/19: the best pair first would leave the second box alone."""
    assert sorted(match(boxes(0, 6), boxes(2, -3), 0.2)) == [(0, 1), (1, 0)]
    assert match(boxes(0), boxes(9), 0.2) == [] and match(boxes(0), boxes(6), 0.2) == [(0, 0)]
    assert match(boxes(), boxes(1), 0.2) == match(boxes(1), boxes(), 0.2) == []


def test_people_keep_their_numbers_while_they_move_cross_and_change_places_in_the_list():
    tracker = Tracker(smoothing=0)
    assert tracker.update(0, boxes(0, 100), shares(1, 0))[0].tolist() == [1, 2]
    assert tracker.update(1, boxes(97, 3), shares(0, 1))[0].tolist() == [2, 1]
    assert tracker.update(2, boxes(6, 50, 94), shares(1, 1, 0))[0].tolist() == [1, 3, 2]


def test_who_is_away_for_longer_than_the_patience_comes_back_as_another():
    tracker = Tracker(patience=1.0)
    tracker.update(0, boxes(0), shares(1))
    assert tracker.update(0.9, boxes(), shares())[0].tolist() == []
    assert tracker.update(1.0, boxes(1), shares(1))[0].tolist() == [1]
    tracker.update(1.5, boxes(), shares())
    assert tracker.update(2.5, boxes(1), shares(1))[0].tolist() == [2]


def test_looks_that_lie_further_apart_than_the_patience_still_follow_people():
    tracker = Tracker(patience=1.0)
    assert [tracker.update(time, boxes(0), shares(1))[0][0] for time in (0, 5, 10)] == [1, 1, 1]
    tracker.update(15, boxes(), shares())
    assert tracker.update(20, boxes(0), shares(1))[0].tolist() == [2]


def test_after_one_time_constant_times_log_two_half_of_the_way_is_gone():
    tracker = Tracker(smoothing=1 / math.log(2), patience=9)
    assert tracker.update(0, boxes(0), shares(1))[1].tolist() == [[1, 0]]
    np.testing.assert_allclose(tracker.update(1, boxes(0), shares(0))[1], [[0.5, 0.5]])
    np.testing.assert_allclose(tracker.update(3, boxes(0), shares(0))[1], [[0.125, 0.875]])
    again = Tracker(smoothing=1 / math.log(2), patience=9)
    again.update(0, boxes(0), shares(1))
    again.update(1, boxes(), shares())
    np.testing.assert_allclose(again.update(3, boxes(0), shares(0))[1], [[0.125, 0.875]])


@pytest.mark.parametrize('looks', [1, 5])
def test_the_smoothed_value_does_not_depend_on_how_often_was_looked(looks):
    tracker = Tracker(smoothing=0.5, patience=9)
    tracker.update(0, boxes(0), shares(1))
    for look in range(1, looks + 1):
        smoothed = tracker.update(2 * look / looks, boxes(0), shares(0))[1]
    np.testing.assert_allclose(smoothed[0, 0], math.exp(-4))


def test_without_smoothing_each_look_counts_alone():
    tracker = Tracker(smoothing=0)
    tracker.update(0, boxes(0), shares(1))
    assert tracker.update(1e-3, boxes(0), shares(0.25))[1].tolist() == [[0.25, 0.75]]
