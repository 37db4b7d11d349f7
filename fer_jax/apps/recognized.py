"""A face in which an emotion was read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.faces.face import Face

# Of other class names there is none.
EMOJI = {
    'anger': '😠',
    'contempt': '😒',
    'disgust': '🤢',
    'fear': '😨',
    'happiness': '😀',
    'neutral': '😐',
    'sadness': '😢',
    'surprise': '😮',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What probabilities say.

    probabilities: by class name, in the order of the networks' logits; they sum to one.
    emotion: the most probable class, whether or not it is unsure.
    emoji: of the emotion; '' where there is none.
    unsure: whether its probability is under the threshold.
    """

    probabilities: Mapping[str, float]
    emotion: str
    emoji: str
    unsure: bool

    @property
    def confidence(self) -> float:
        """The probability of the emotion."""
        return self.probabilities[self.emotion]


@dataclasses.dataclass(frozen=True, eq=False)
class RecognizedFace(Face, Reading):
    """A face with its place (`box`, `points`, `score` as in `Face`) and what was read in it (as in `Reading`).

    logits: float32 [M, K], of each member of the ensemble.
    seen: uint8 [S, S, C], what the networks saw of it before normalisation; of several kinds of runs the first's.
    saliency: float32 [S, S] from 0 to 1, where in `seen` that emotion was seen; None unless asked for.
    """

    logits: np.ndarray
    seen: np.ndarray
    saliency: np.ndarray | None = None


def read_emotion(probabilities: np.ndarray, class_names: Sequence[str], threshold: float) -> Reading:
    """What probabilities [K], which sum to one, say; `threshold` as in `Reading`."""
    best = int(np.argmax(probabilities))
    name = class_names[best]
    shares = dict(zip(class_names, map(float, probabilities), strict=True))
    return Reading(shares, name, EMOJI.get(name, ''), bool(probabilities[best] < threshold))
