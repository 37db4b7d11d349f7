"""dlib's detector of frontal faces (histograms of oriented gradients, King 2009) with its 68-point shape predictor.

The predictor's file is not part of dlib; the widely used one was trained on iBUG 300-W, whose licence excludes
commercial use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax.data.files import printable
from fer_jax.errors import UserError
from fer_jax.faces.face import Face

# The 68 points that make each of the five (Sagonas et al. 2013, numbered from 0): eyes' outlines, tip of the nose,
# corners of the mouth.
_FIVE = (range(36, 42), range(42, 48), (30,), (48,), (54,))


class DlibDetector:
    """The detector; `landmarks` is the file of a predictor of 68 points.

    Pictures are enlarged until their shorter side has `enlarge_to` pixels. With `portraits`, faces may also fill the
    picture, and doubtful ones count.

    Raises:
        UserError: if dlib is not installed, or the file is missing or of another kind.
    """

    def __init__(self, landmarks: Path | None, portraits: bool = False, enlarge_to: int = 240):
        if importlib.util.find_spec('dlib') is None:
            raise UserError("dlib is not installed; install it with: pip install 'fer_jax[dlib]'")
        if landmarks is None:
            raise UserError("the detector dlib needs its 68-point predictor's file: --align-landmarks=PATH")
        if not Path(landmarks).is_file():
            raise UserError(
                f'{printable(landmarks)} does not exist; it should be the file of a 68-point predictor of dlib'
            )
        import dlib

        self._dlib = dlib
        self._detector = dlib.get_frontal_face_detector()
        try:
            self._predictor = dlib.shape_predictor(str(landmarks))
        except RuntimeError:
            raise UserError(f'{printable(landmarks)} is no shape predictor of dlib') from None
        points = self._predictor(np.zeros((9, 9), np.uint8), dlib.rectangle(0, 0, 8, 8)).num_parts
        if points != 68:
            raise UserError(f'{printable(landmarks)} predicts {points} points; the predictor of 68 points is needed')
        self._threshold, self._rim = (-0.5, 0.25) if portraits else (0.0, 0.0)
        self._enlarge_to = enlarge_to

    def warm_up(self) -> None:
        """Nothing: dlib compiles nothing."""

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of every picture, best first; pictures are uint8 [H, W], [H, W, 1] or [H, W, 3], of any sizes.

        A face's score is dlib's distance from its decision, which is no probability: 0 is doubtful, 2 is sure.
        """
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> list[Face]:
        grey = image.ndim == 2 or image.shape[2] == 1
        picture = Image.fromarray(image.reshape(image.shape[:2]) if grey else image).convert('RGB')
        scale = max(1, self._enlarge_to / min(picture.size))
        rim = round(self._rim * scale * min(picture.size))
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
        pixels = np.pad(np.asarray(picture), ((rim, rim), (rim, rim), (0, 0)), mode='edge')
        boxes, scores, _ = self._detector.run(pixels, 0, self._threshold)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            parts = self._predictor(pixels, box).parts()
            places = np.array([(part.x + 0.5, part.y + 0.5) for part in parts], np.float32)
            points = np.stack([places[list(members)].mean(0) for members in _FIVE])
            sides = np.array([box.left(), box.top(), box.width(), box.height()], np.float32)
            sides[:2] -= rim
            faces.append(Face(sides / scale, (points - rim) / scale, score))
        return sorted(faces, key=lambda face: -face.score)
