"""A face, and what every detector of faces takes and gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

# Where the five points lie in an upright face's frame, as shares of its side from the left upper corner: their means
# over the 1,987 faces found in 2,000 of FER2013's training images, averaged with their mirror images. So the frame is
# FER2013's, from above the brows to the chin, but upright and in the middle.
TEMPLATE = np.array([(0.321, 0.378), (0.679, 0.378), (0.5, 0.592), (0.349, 0.777), (0.651, 0.777)])
POINTS = ('left eye', 'right eye', 'nose', 'left corner of the mouth', 'right corner of the mouth')


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture, in its pixels; the first pixel reaches from 0 to 1. Left and right are the viewer's.

    box: float32 [4]: left, top, width, height; may reach over the picture's edge.
    points: float32 [5, 2]: (x, y) of POINTS.
    score: the detector's probability that this is a face.
    """

    box: np.ndarray
    points: np.ndarray
    score: float


class Detector(Protocol):
    def warm_up(self) -> None:
        """Compiles whatever is to be compiled, so that no later picture waits for it."""
        ...

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of every picture, best first; pictures are uint8 [H, W], [H, W, 1] or [H, W, 3], of any sizes."""
        ...


def tilt(points: np.ndarray) -> np.ndarray:
    """How far faces are turned to the right, in radians [N], by least squares over the five points [N, 5, 2]."""
    upright = (TEMPLATE - TEMPLATE.mean(0)) @ [1, 1j]
    return np.angle(points @ [1, 1j] @ upright.conj())
