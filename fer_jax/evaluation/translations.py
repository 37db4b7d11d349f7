"""How good the translations of a pair are, measured on images that it was not trained on.

Shape letters: N and M images, D features of each, H and W pixels, C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8

ImagesNHWC = UInt8[np.ndarray, 'N H W C']
DIRECTIONS = {'a_to_b': ('a', 'b'), 'b_to_a': ('b', 'a')}


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained classifier that reads translations.

    Attributes:
        name: the run and its step.
        classes: by domain, `a` and `b`, the index of its emotion among the classifier's classes.
        read: from images, of the pair's size, to what the classifier reads (int [N]) and its features (float [N, D]).
    """

    name: str
    classes: dict[str, int]
    read: Callable[[ImagesNHWC], tuple[Int[np.ndarray, ' N'], Float[np.ndarray, 'N D']]]


def kid(features_ND: Float[np.ndarray, 'N D'], features_MD: Float[np.ndarray, 'M D']) -> float:
    """The kernel inception distance (Binkowski et al. 2018) on given features: how far two sets of images are apart.

    The unbiased estimate of the squared maximum mean discrepancy (their equation 4) under the kernel
    (x . y / D + 1)^3; 0 on average for sets of one distribution, so that it may be below 0.
    """
    first, second = features_ND.astype(np.float64), features_MD.astype(np.float64)
    n, m = len(first), len(second)
    kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
    within = lambda x: _off_diagonal(kernel(x, x)) / (len(x) * (len(x) - 1))
    return float(within(first) + within(second) - 2 * kernel(first, second).sum() / (n * m))


def _off_diagonal(square: Float[np.ndarray, 'N N']) -> float:
    return square.sum() - np.trace(square)


class Scorer:
    """Scores a pair on fixed images of both domains; what does not depend on the pair is measured once.

    The score that chooses a checkpoint is minus the KID of translations and real images of the target, the mean of both
    directions: it asks for the right emotion, for its right strength, and for images like real ones at once. It is
    measured on the judge's features, divided by their root mean square over the real images.
    """

    def __init__(
        self,
        images: dict[str, ImagesNHWC],
        judge: Judge | None = None,
        truth: dict[str, ImagesNHWC] | None = None,
    ):
        """Reads the real images.

        Args:
            images: by domain, `a` and `b`.
            judge: what reads emotions; None: nothing is scored.
            truth: by direction, what each image would be under the other emotion, where that is known.
        """
        self._images, self._judge, self._truth = images, judge, truth or {}
        self._real = {domain: judge.read(part) for domain, part in images.items()} if judge else {}
        # So that the kernel, and with it the distance, is of one size whatever the size of a judge's features.
        self._size = np.sqrt(np.mean([np.square(features).mean() for _, features in self._real.values()] or [1.0]))
        self._before: dict[str, float] = {}
        for direction in DIRECTIONS:
            self._before |= {
                f'validation/untranslated_{name}_{direction}': value
                for name, value in self._against_target(direction, None).items()
            }

    def score(self, translate: Callable[[str, ImagesNHWC], ImagesNHWC]) -> dict[str, float]:
        """Measures a pair.

        Args:
            translate: from a direction, `a_to_b` or `b_to_a`, and images to their translations.

        Returns:
            With `validation/` before each name and, for a direction, its name behind: `cycle_a`, `cycle_b`, distances
            between images and their translations back, and `changed`, between images and translations (means over
            pixels that range from -1 to 1, as in training). With a judge `read`, the share of translations that it
            reads as the target, `kid`, and `score`. With the truth `paired`, the distance to it. `untranslated_read`,
            `untranslated_kid` and `untranslated_paired` are the same of the images as they were, and `real_read_a`,
            `real_read_b` is the share of real images of a domain that are read as such.
        """
        scores, kids = {}, []
        for direction, (source, _) in DIRECTIONS.items():
            back = 'b_to_a' if direction == 'a_to_b' else 'a_to_b'
            made = translate(direction, self._images[source])
            scores[f'validation/cycle_{source}'] = _distance(translate(back, made), self._images[source])
            scores[f'validation/changed_{direction}'] = _distance(made, self._images[source])
            found = self._against_target(direction, made)
            kids += [found['kid']] if 'kid' in found else []
            scores |= {f'validation/{name}_{direction}': value for name, value in found.items()}
        scores |= self._before
        if self._judge:
            for domain, (read, _) in self._real.items():
                scores[f'validation/real_read_{domain}'] = float((read == self._judge.classes[domain]).mean())
            scores['validation/score'] = -float(np.mean(kids))
        return scores

    def _against_target(self, direction: str, made: ImagesNHWC | None) -> dict[str, float]:
        """Translations, or with None the images as they were, beside what they should be."""
        source, target = DIRECTIONS[direction]
        found = {}
        if direction in self._truth:
            found['paired'] = _distance(self._images[source] if made is None else made, self._truth[direction])
        if self._judge:
            read, features = self._real[source] if made is None else self._judge.read(made)
            found['read'] = float((read == self._judge.classes[target]).mean())
            found['kid'] = kid(features / self._size, self._real[target][1] / self._size)
        return found


def _distance(first: ImagesNHWC, second: ImagesNHWC) -> float:
    return float(np.abs(first.astype(np.float32) - second.astype(np.float32)).mean() / 127.5)
