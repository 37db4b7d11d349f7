"""People followed through a film: each face belongs to a person with a number, whose probabilities are smoothed.

From one look to the next the faces are matched so that the overlaps of their boxes (intersection over union), summed,
are as large as can be (Kuhn 1955, by SciPy); pairs that overlap by less than a share stay apart. Nothing is known of
who people are: someone who leaves for longer than the patience, or jumps, comes back under a new number.
Shape letters: N faces, P people, K classes.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy  # whose parts are imported when they are used
from jaxtyping import Float, Int


@dataclasses.dataclass
class _Person:
    number: int
    box: np.ndarray
    seen: float
    probabilities: np.ndarray


class Tracker:
    """Follows faces from look to look.

    Args:
        smoothing: time constant in seconds of the exponential mean of a person's probabilities; 0: none.
        patience: seconds for which a person who is not seen is remembered; at least until the next look.
        least: overlap under which two boxes are not taken for one person's.
    """

    def __init__(self, smoothing: float = 0.5, patience: float = 1.0, least: float = 0.2):
        self._smoothing, self._patience, self._least = smoothing, patience, least
        self._people: list[_Person] = []
        self._looked, self._count = -math.inf, 0

    def update(
        self, time: float, boxes_N4: Float[np.ndarray, 'N 4'], probabilities_NK: Float[np.ndarray, 'N K']
    ) -> tuple[Int[np.ndarray, ' N'], Float[np.ndarray, 'N K']]:
        """What the next look shows.

        After a pause of t seconds a person's probabilities move by 1 - exp(-t / smoothing) of the way to what is
        seen now; at first sight they are what is seen.

        Args:
            time: in seconds, not before that of the last look.
            boxes_N4: left, top, width, height.
            probabilities_NK: of each face alone.

        Returns:
            The number of each face's person, from 1 in the order of appearance, and the smoothed probabilities.
        """
        self._people = [person for person in self._people if person.seen >= min(self._looked, time - self._patience)]
        self._looked = time
        before_P4 = np.array([person.box for person in self._people]).reshape(-1, 4)
        matched = dict(match(boxes_N4, before_P4, self._least))
        numbers, smoothed = [], []
        people = list(self._people)
        for index, (box, probabilities) in enumerate(zip(boxes_N4, probabilities_NK, strict=True)):
            if index in matched:
                person = people[matched[index]]
                share = 1 - math.exp(-(time - person.seen) / self._smoothing) if self._smoothing else 1.0
                person.probabilities = person.probabilities + share * (probabilities - person.probabilities)
                person.box, person.seen = box, time
            else:
                self._count += 1
                person = _Person(self._count, box, time, np.asarray(probabilities))
                self._people.append(person)
            numbers.append(person.number)
            smoothed.append(person.probabilities)
        return np.array(numbers, int), np.array(smoothed).reshape(np.shape(probabilities_NK))


def match(
    boxes_N4: Float[np.ndarray, 'N 4'], others_P4: Float[np.ndarray, 'P 4'], least: float
) -> list[tuple[int, int]]:
    """Pairs of indices with the largest sum of overlaps; each box in at most one, none that overlap by less."""
    overlaps_NP = overlap(boxes_N4, others_P4)
    overlaps_NP = np.where(overlaps_NP >= least, overlaps_NP, 0)
    pairs = zip(*scipy.optimize.linear_sum_assignment(overlaps_NP, maximize=True), strict=True)
    return [(int(row), int(column)) for row, column in pairs if overlaps_NP[row, column] > 0]


def overlap(boxes_N4: Float[np.ndarray, 'N 4'], others_P4: Float[np.ndarray, 'P 4']) -> Float[np.ndarray, 'N P']:
    """Intersection over union of boxes as left, top, width, height."""
    one, two = boxes_N4[:, None].astype(float), others_P4[None].astype(float)
    low = np.maximum(one[..., :2], two[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], two[..., :2] + two[..., 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    union = one[..., 2:].prod(-1) + two[..., 2:].prod(-1) - shared
    return shared / np.maximum(union, 1e-9)
