"""MTCNN (Zhang et al. 2016, arXiv:1604.02878) in JAX: many pictures of any sizes through a few compiled programs.

P-Net looks at tiles of 128 pixels into which all sizes of all pictures are packed, R-Net and O-Net at crops of 24 and
48 pixels. Each is compiled for the few batch sizes below, once per process, whatever the pictures' sizes are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from fer_jax.faces import networks, pyramid
from fer_jax.faces.boxes import keep_best, moved, squares
from fer_jax.faces.face import Face, tilt
from fer_jax.faces.weights import load_weights

_SIDES = {'pnet': 128, 'rnet': 24, 'onet': 48}
# What a batch makes has to fit a CPU's cache: P-Net took 1.9 ms for one tile of 128 pixels but 13 ms for each of four
# of 192 (2 cores), R-Net .11 ms for a crop in a batch of 16 and .17 in one of 256, O-Net .46 in 4 and 1.0 in 64.
_BATCHES_ON_CPU = {'pnet': (1,), 'rnet': (16, 64), 'onet': (4, 16)}
_BATCHES = {'pnet': (1, 8, 64), 'rnet': (64, 512), 'onet': (16, 256)}
_TURNS, _TILTED = 3, 0.1  # how often a crop is turned to the face, and from which tilt on (radians)
_PIXELS_AT_ONCE = 2_000_000  # of all pictures' sizes together; more is worked off in groups


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is looked for; the defaults are for photographs.

    min_face: side of the smallest face, in pixels; time goes with its inverse square.
    min_share: side of the smallest face, as a share of the picture's shorter side; the larger of the two counts.
    factor: of the picture's side from one size to the next.
    thresholds: of P-Net, R-Net and O-Net.
    margin: how much of a face may lie outside the picture on either side.
    most_pixels: of a picture's largest size; in larger pictures min_face grows, so time and memory stay bounded.
    """

    min_face: float = 20
    min_share: float = 0
    factor: float = 0.709
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8)
    margin: float = 1 / 6
    most_pixels: int = 1024 * 1024


PHOTOS = Settings()
_PROGRAMS = {name: jax.jit(network) for name, network in networks.NETWORKS.items()}


class Mtcnn:
    """The detector, with weights out of `weights` (a directory; None: the installed package mtcnn).

    Raises:
        UserError: if the weights are not there; the message says how to install them.
    """

    def __init__(self, settings: Settings = PHOTOS, weights: Path | None = None):
        self._settings = settings
        self._batches = _BATCHES_ON_CPU if jax.default_backend() == 'cpu' else _BATCHES
        layers = jax.device_put(load_weights(weights))
        self._run = {
            name: _in_batches(program, layers[name], self._batches[name]) for name, program in _PROGRAMS.items()
        }

    def warm_up(self) -> None:
        """Compiles every program, so that no later picture waits for it."""
        for name, sizes in self._batches.items():
            for size in sizes:
                self._run[name](np.zeros((size, _SIDES[name], _SIDES[name], 3), np.uint8))

    def detect(self, images: Sequence[np.ndarray], settings: Settings | None = None) -> list[list[Face]]:
        """The faces of every picture, best first; pictures are uint8 [H, W], [H, W, 1] or [H, W, 3], of any sizes.

        Args:
            settings: in place of the detector's own.

        Raises:
            ValueError: on an array that is no such picture.
        """
        settings = settings or self._settings
        return [faces for group in _groups(images, settings) for faces in self._detect(group, settings)]

    def _detect(self, group: list[pyramid.Octaves], settings: Settings) -> list[list[Face]]:
        _, second, third = settings.thresholds
        boxes, images = self._propose(group, settings)
        scores, edges = self._run['rnet'](_crops(group, boxes, images, _SIDES['rnet']))
        boxes = moved(boxes, edges)
        kept = keep_best(boxes, scores, images, 0.7, at_least=second)
        boxes, images = squares(boxes[kept]), images[kept]
        scores, edges, points = self._run['onet'](_crops(group, boxes, images, _SIDES['onet']))
        points = _placed(points, boxes, np.zeros(len(boxes)))
        boxes = moved(boxes, edges)
        kept = keep_best(boxes, scores, images, 0.7, at_least=third, by_smaller=True)
        boxes, images = boxes[kept], images[kept]
        points, scores = self._look_upright(group, squares(boxes), images, points[kept], third), scores[kept]
        faces = [[] for _ in group]
        for (left, top, right, bottom), image, places, score in zip(boxes, images, points, scores, strict=True):
            box = np.array([left, top, right - left, bottom - top], np.float32)
            faces[image].append(Face(box, places.astype(np.float32), float(score)))
        return faces

    def _look_upright(
        self, group: list[pyramid.Octaves], boxes: np.ndarray, images: np.ndarray, points: np.ndarray, least: float
    ) -> np.ndarray:
        """The points from crops that are turned as the face is, where O-Net says that it is tilted.

        On a face turned by 35 degrees or more, points were off by .05 to .4 of the distance between the eyes; after
        this by .03 at most, at every angle up to 60 degrees (scikit-image's astronaut). The scores stay: of wrong
        points on a face that lies or is upside down this would make surer ones.
        """
        turned = np.zeros(len(boxes))
        for _ in range(_TURNS):
            tilts = tilt(points)
            (again,) = np.nonzero(np.abs(tilts - turned) > _TILTED)
            if not len(again):
                break
            turned[again] = tilts[again]
            crops = _crops(group, boxes[again], images[again], _SIDES['onet'], tilts[again])
            scores, _, places = self._run['onet'](crops)
            places, right = _placed(places, boxes[again], tilts[again]), scores >= least
            points[again[right]] = places[right]
        return points

    def _propose(self, group: list[pyramid.Octaves], settings: Settings) -> tuple[np.ndarray, np.ndarray]:
        """Squares float [N, 4] that may hold faces, and int [N], the number of the picture of each."""
        tile, rim = _SIDES['pnet'], pyramid.STRIDE * round(settings.margin * pyramid.WINDOW / pyramid.STRIDE)
        pieces = [
            piece
            for image, octaves in enumerate(group)
            for level, scale in enumerate(_scales(octaves.shape, settings))
            for piece in pyramid.cut(octaves, image, level, scale, rim, tile)
        ]
        if not pieces:
            return np.zeros((0, 4)), np.zeros(0, int)
        tiles, owners, corners = pyramid.pack(pieces, tile)
        scores, edges = self._run['pnet'](tiles)
        place, y, x = np.nonzero((scores > settings.thresholds[0]) & (owners >= 0))
        scores, edges, owner = scores[place, y, x], edges[place, y, x], owners[place, y, x]
        shifts = np.array([piece.origin for piece in pieces]) - corners
        starts = pyramid.STRIDE * np.stack([x, y], 1) + shifts[owner]
        shrunk = np.array([piece.scale for piece in pieces])[owner]
        boxes = np.concatenate([starts / shrunk, (starts + pyramid.WINDOW) / shrunk], 1)
        images, levels = np.array([(piece.image, piece.level) for piece in pieces])[owner].T
        kept = keep_best(boxes, scores, images * (1 + levels.max(initial=0)) + levels, 0.5)
        boxes, images, scores = moved(boxes[kept], edges[kept]), images[kept], scores[kept]
        kept = keep_best(boxes, scores, images, 0.7)
        return squares(boxes[kept]), images[kept]


def _groups(images: Sequence[np.ndarray], settings: Settings) -> Iterator[list[pyramid.Octaves]]:
    group, pixels = [], 0
    for image in images:
        octaves = pyramid.Octaves(image)
        height, width = octaves.shape
        needed = sum((scale * height + 8) * (scale * width + 8) for scale in _scales(octaves.shape, settings))
        if group and pixels + needed > _PIXELS_AT_ONCE:
            yield group
            group, pixels = [], 0
        group.append(octaves)
        pixels += needed
    if group:
        yield group


def _scales(shape: tuple[int, int], settings: Settings) -> list[float]:
    smallest = max(settings.min_face, settings.min_share * min(shape))
    largest = min(shape) * (1 + 2 * settings.margin)
    return pyramid.scales(shape, smallest, largest, settings.factor, settings.most_pixels)


def _in_batches(program: Callable, layers: networks.Layers, sizes: tuple[int, ...]) -> Callable:
    """The network over any number of inputs, in batches of the given sizes alone; gives NumPy arrays."""

    def run(inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = []
        for start in range(0, max(len(inputs), 1), sizes[-1]):
            batch = inputs[start : start + sizes[-1]]
            size = next(size for size in sizes if size >= len(batch))
            padding = np.zeros((size - len(batch), *inputs.shape[1:]), np.uint8)
            outputs.append((program(layers, np.concatenate([batch, padding])), len(batch)))
        parts = [[np.asarray(array)[:count] for array in arrays] for arrays, count in outputs]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    return run


def _crops(
    group: list[pyramid.Octaves], boxes: np.ndarray, images: np.ndarray, size: int, tilts: np.ndarray | None = None
) -> np.ndarray:
    tilts = np.zeros(len(boxes)) if tilts is None else tilts
    crops = np.empty((len(boxes), size, size, 3), np.uint8)
    for index, (box, image, angle) in enumerate(zip(boxes, images, tilts, strict=True)):
        crops[index] = group[image].crop(box, size, angle)
    return crops


def _placed(points: np.ndarray, boxes: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """O-Net's points [N, 5, 2], in sides of the turned square crops, as places in the pictures."""
    cosine, sine = np.cos(tilts), np.sin(tilts)
    turns = np.stack([np.stack([cosine, sine], 1), np.stack([-sine, cosine], 1)], 1)  # across, down
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return middles[:, None] + (points - 0.5) * sides[:, None] @ turns
