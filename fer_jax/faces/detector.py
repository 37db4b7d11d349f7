"""The detectors by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from fer_jax.errors import UserError
from fer_jax.faces.dlib_detector import DlibDetector
from fer_jax.faces.face import Detector
from fer_jax.faces.mtcnn import Mtcnn
from fer_jax.faces.portraits import PortraitMtcnn


def make_detector(name: str = 'mtcnn', *, portraits: bool = False, landmarks: Path | None = None) -> Detector:
    """The detector of that name.

    Args:
        portraits: whether each picture is known to show a face; where none is found it is then looked for harder.
        landmarks: the file of dlib's 68-point predictor, which dlib alone needs.

    Raises:
        UserError: if there is no such detector, or something that it needs is not there.
    """
    if name not in DETECTORS:
        near = difflib.get_close_matches(name, DETECTORS, 1) or list(DETECTORS)
        raise UserError(f'{name!r} is no face detector; did you mean {near[0]}? There are: {", ".join(DETECTORS)}')
    return DETECTORS[name](portraits, landmarks)


def _mtcnn(portraits: bool, landmarks: Path | None) -> Detector:
    if landmarks is not None:
        raise UserError('a landmarks file is for the detector dlib; mtcnn finds its five points itself')
    return PortraitMtcnn() if portraits else Mtcnn()


def _dlib(portraits: bool, landmarks: Path | None) -> Detector:
    return DlibDetector(landmarks, portraits)


DETECTORS = {'mtcnn': _mtcnn, 'dlib': _dlib}
