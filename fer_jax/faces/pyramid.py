"""A picture at many sizes, cut to pieces that share tiles of one fixed size with those of other pictures.

P-Net looks at windows of 12 pixels: a face is found where the picture is so small that the face is about that size.
All sizes of all pictures are packed into square tiles, so one compiled program serves every picture. Windows lie two
pixels apart: a piece that is too large for a tile is cut so that neighbours share ten pixels and no window is lost.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image
from PIL.Image import Resampling, Transform

WINDOW = 12
STRIDE = 2
GREY = 127  # what is outside a picture: nearest to the networks' zero


class Octaves:
    """A picture and its halves, quarters, …, made when needed: what is small is taken from these, not from the whole.

    shape: (height, width) of the picture.
    channels: 1 or 3, of the picture; its sizes all have three.
    """

    def __init__(self, image: np.ndarray):
        """Takes uint8 [H, W], [H, W, 1] or [H, W, 3].

        Raises:
            ValueError: on anything else.
        """
        known = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
        if not known or image.dtype != np.uint8 or not image.size:
            raise ValueError(f'a picture is uint8 [H, W], [H, W, 1] or [H, W, 3], not {image.dtype} {image.shape}')
        self.shape = image.shape[:2]
        grey = image.size == image.shape[0] * image.shape[1]
        self.channels = 1 if grey else 3
        self._pictures = [Image.fromarray(image.reshape(self.shape) if grey else image).convert('RGB')]

    def level(self, scale: float) -> np.ndarray:
        """The picture at about `scale`, antialiased; uint8 [h, w, 3] of even sides."""
        size = [STRIDE * max(round(side * scale / STRIDE), 1) for side in self.shape[::-1]]
        return np.asarray(self.at_least(scale)[0].resize(size, Resampling.BILINEAR))

    def crop(self, box: np.ndarray, size: int, tilt: float = 0.0) -> np.ndarray:
        """The square (left, top, right, bottom), turned about its middle, as uint8 [size, size, 3]; grey outside.

        Args:
            tilt: how far the square is turned to the right, in radians.
        """
        picture, shrunk = self.at_least(size / max(box[2] - box[0], 1e-3))
        step = (box[2] - box[0]) / size
        across = step * np.array([np.cos(tilt), np.sin(tilt)]) / shrunk
        down = step * np.array([-np.sin(tilt), np.cos(tilt)]) / shrunk
        start = (box[:2] + box[2:]) / 2 / shrunk - (across + down) * size / 2
        rows = across[0], down[0], start[0], across[1], down[1], start[1]
        return np.asarray(
            picture.transform((size, size), Transform.AFFINE, rows, Resampling.BILINEAR, fillcolor=(GREY,) * 3)
        )

    def at_least(self, scale: float) -> tuple[Image.Image, np.ndarray]:
        """The smallest octave that is no smaller than `scale`; and how many of the picture's pixels one of its has."""
        octave = max(int(np.floor(-np.log2(scale))), 0)
        while len(self._pictures) <= octave and min(self._pictures[-1].size) > 1:
            self._pictures.append(self._pictures[-1].reduce(2))
        picture = self._pictures[min(octave, len(self._pictures) - 1)]
        return picture, np.array(self.shape[::-1]) / picture.size


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A part of picture number `image`, shrunk to its size number `level`.

    pixels: uint8 [h, w, 3], even sides from WINDOW on.
    scale: (x, y) of the shrinking, which is rounded to even sides.
    origin: (x, y) of the piece's left upper corner in the shrunk picture.
    """

    pixels: np.ndarray
    image: int
    level: int
    scale: np.ndarray
    origin: tuple[int, int]


def scales(shape: tuple[int, int], smallest: float, largest: float, factor: float, most_pixels: float) -> list[float]:
    """Scales at which faces of `smallest` to `largest` pixels are as large as the window, each `factor` of the last.

    The first is lowered until a picture of `shape` has at most `most_pixels` there.
    """
    first = min(WINDOW / smallest, (most_pixels / (shape[0] * shape[1])) ** 0.5)
    steps = np.log(WINDOW / largest / first) / np.log(factor)
    return [first * factor**step for step in range(int(np.floor(steps + 1e-6)) + 1)]


def cut(octaves: Octaves, image: int, level: int, scale: float, rim: int, tile: int) -> list[Piece]:
    """The picture at `scale`, with a grey rim of at least `rim` pixels (even), in pieces that fit a tile."""
    pixels = octaves.level(scale)
    height, width = pixels.shape[:2]
    exact = np.array([width, height]) / octaves.shape[::-1]
    rims = [max(rim, STRIDE * -((side - WINDOW) // (2 * STRIDE))) for side in (height, width)]
    framed = np.full((height + 2 * rims[0], width + 2 * rims[1], 3), GREY, np.uint8)
    framed[rims[0] : rims[0] + height, rims[1] : rims[1] + width] = pixels
    step = tile - WINDOW + STRIDE
    return [
        Piece(framed[top : top + tile, left : left + tile], image, level, exact, (left - rims[1], top - rims[0]))
        for top in range(0, framed.shape[0] - WINDOW + 1, step)
        for left in range(0, framed.shape[1] - WINDOW + 1, step)
    ]


def pack(pieces: list[Piece], tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Puts pieces on shelves of shared tiles, the tallest first.

    Returns:
        tiles: uint8 [T, tile, tile, 3].
        owners: int32 [T, y, x], the index of the piece in which a window lies wholly, or -1.
        corners: int32 [P, 2], (x, y) of each piece's left upper corner in its tile.
    """
    places, corners = np.zeros(len(pieces), np.int32), np.zeros((len(pieces), 2), np.int32)
    count, x, y, shelf = 0, tile, tile, 0
    for index in sorted(range(len(pieces)), key=lambda index: -pieces[index].pixels.shape[0]):
        height, width = pieces[index].pixels.shape[:2]
        if x + width > tile:  # the next shelf
            x, y, shelf = 0, y + shelf, height
        if y + height > tile:  # the next tile
            count, y, shelf = count + 1, 0, height
        places[index], corners[index] = count - 1, (x, y)
        x += width
    windows = (tile - WINDOW) // STRIDE + 1
    tiles = np.full((count, tile, tile, 3), GREY, np.uint8)
    owners = np.full((count, windows, windows), -1, np.int32)
    for index, (piece, place, (x, y)) in enumerate(zip(pieces, places, corners, strict=True)):
        height, width = piece.pixels.shape[:2]
        tiles[place, y : y + height, x : x + width] = piece.pixels
        rows, columns = _windows(y, height), _windows(x, width)
        owners[place, rows, columns] = index
    return tiles, owners, corners


def _windows(start: int, pixels: int) -> slice:
    return slice(start // STRIDE, (start + pixels - WINDOW) // STRIDE + 1)
