"""Faces brought to one place: eyes, nose and mouth of every face lie where the template has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from PIL.Image import Resampling, Transform
from skimage.transform import SimilarityTransform, estimate_transform

from fer_jax.errors import UserError
from fer_jax.faces.detector import make_detector
from fer_jax.faces.face import TEMPLATE, Detector, Face
from fer_jax.faces.pyramid import Octaves

MISSING = ('keep', 'reject')
BOX_SHARE = 1.1
_AS_SURE = 0.2  # faces whose score is lower than the best by more than this are no candidates for the main one


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedFace:
    """What became of one picture.

    image: uint8 [size, size, C]: the face, upright and in its place. Without a face the whole picture, resized, or
        None where it is to be rejected.
    found: whether there is a face.
    box, points, score: of the `Face`, in the picture; without one NaN and 0.
    move: float64 [2, 3], from places in the picture to those in `image`: move[:, :2] @ (x, y) + move[:, 2].
    """

    image: np.ndarray | None
    found: bool
    box: np.ndarray
    points: np.ndarray
    score: float
    move: np.ndarray


Aligner = Callable[[Sequence[np.ndarray]], list[AlignedFace]]


def make_aligner(
    detector: str | Detector = 'mtcnn',
    size: int = 96,
    missing: str = 'keep',
    margin: float = 0.0,
    landmarks: Path | None = None,
) -> Aligner:
    """A function that finds and aligns the main face of each of many pictures, uint8 [H, W], [H, W, 1] or [H, W, 3].

    Args:
        detector: a name, set up for pictures that show one face each, or a detector.
        size: of the aligned pictures, in pixels.
        missing: what becomes of a picture without a face: keep it as it is, or reject it.
        margin: what to show beyond the template's frame, on each side, as a share of it.
        landmarks: the file that the detector dlib needs.

    Raises:
        UserError: if there is no such detector or `missing`, or something that the detector needs is not there.
    """
    if missing not in MISSING:
        raise UserError(f'what to do without a face is {" or ".join(MISSING)}, not {missing!r}')
    if isinstance(detector, str):
        detector = make_detector(detector, portraits=True, landmarks=landmarks)

    def align(images: Sequence[np.ndarray]) -> list[AlignedFace]:
        return [
            _aligned(image, faces, size, missing, margin)
            for image, faces in zip(images, detector.detect(images), strict=True)
        ]

    return align


def _aligned(image: np.ndarray, faces: list[Face], size: int, missing: str, margin: float) -> AlignedFace:
    if not faces:
        nowhere = np.full(4, np.nan, np.float32), np.full((5, 2), np.nan, np.float32)
        resized = np.eye(2, 3) * [[size / image.shape[1]], [size / image.shape[0]]]
        return AlignedFace(_whole(image, size) if missing == 'keep' else None, False, *nowhere, 0.0, resized)
    face = main_face(faces, image.shape[:2])
    move = _similarity(face.points, size, margin).params[:2]
    return AlignedFace(warp(image, face.points, size, margin), True, face.box, face.points, face.score, move)


def main_face(faces: Sequence[Face], shape: tuple[int, int]) -> Face:
    """Of the faces about as sure as the best, the largest and most central in a picture of `shape` (height, width).

    That is: area less twice the squared distance from the picture's middle, as InsightFace chooses.
    """
    middle, surest = np.array(shape[::-1]) / 2, max(face.score for face in faces)

    def weight(face: Face) -> float:
        distance = face.box[:2] + face.box[2:] / 2 - middle
        return float(face.box[2] * face.box[3] - 2 * distance @ distance)

    return max((face for face in faces if face.score >= surest - _AS_SURE), key=weight)


def template(size: int, margin: float = 0.0) -> np.ndarray:
    """The five points' places in an aligned picture, in pixels, float [5, 2]; `margin` as for `make_aligner`."""
    return size * (TEMPLATE + margin) / (1 + 2 * margin)


def cut_square(image: np.ndarray | Octaves, box: np.ndarray, size: int) -> np.ndarray:
    """The square about the middle of a face's box, BOX_SHARE times as large as its longer side, not turned.

    That is about the template's frame. Resized and continued outside the picture as by `warp`; uint8 [size, size, C].
    """
    side = BOX_SHARE * box[2:].max()
    corner = box[:2] + box[2:] / 2 - side / 2
    return warp(image, corner + side * TEMPLATE, size)


def warp(image: np.ndarray | Octaves, points: np.ndarray, size: int, margin: float = 0.0) -> np.ndarray:
    """The picture turned, scaled and shifted so that the points come to lie as near the template as can be.

    Least squares (Umeyama 1991), cubic interpolation, antialiased where it shrinks; the picture's edge goes on outside.

    Args:
        image: uint8 [H, W], [H, W, 1] or [H, W, 3], or its Octaves, which serve many faces of one large picture.
        points: float [5, 2], (x, y) in pixels of the image.

    Returns:
        uint8 [size, size, C], C as in the image.
    """
    move = _similarity(points, size, margin)
    octaves = image if isinstance(image, Octaves) else Octaves(image)
    picture, shrunk = octaves.at_least(move.scale)
    back = np.diag([*1 / shrunk, 1]) @ np.linalg.inv(move.params)
    corners = back[:2, :2] @ np.array([(0, size, 0, size), (0, 0, size, size)]) + back[:2, 2:]
    low, high = np.floor(corners.min(1)).astype(int) - 4, np.ceil(corners.max(1)).astype(int) + 4
    back[:2, 2] -= low
    columns, rows = (
        np.clip(np.arange(*ends), 0, side - 1) for *ends, side in zip(low, high, picture.size, strict=True)
    )
    patch = Image.fromarray(np.asarray(picture)[np.ix_(rows, columns)])
    step = float(np.linalg.norm(back[:2, 0]))  # of the patch's pixels; 1 to 2 where it shrinks
    if step > 1:
        patch = patch.filter(ImageFilter.GaussianBlur((step - 1) / 2))  # as skimage.transform.resize does
    aligned = patch.transform((size, size), Transform.AFFINE, tuple(back[:2].ravel()), Resampling.BICUBIC)
    return np.asarray(aligned)[..., : octaves.channels]


def _similarity(points: np.ndarray, size: int, margin: float) -> SimilarityTransform:
    return estimate_transform('similarity', points, template(size, margin))


def _whole(image: np.ndarray, size: int) -> np.ndarray:
    picture = Image.fromarray(image.reshape(image.shape[:2]) if _channels(image) == 1 else image)
    return np.asarray(picture.resize((size, size), Resampling.BICUBIC)).reshape(size, size, -1)


def _channels(image: np.ndarray) -> int:
    return 1 if image.ndim == 2 else image.shape[2]
