"""Pictures before and after alignment, one above the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fer_jax.faces.align import AlignedFace

_COLUMNS = 8
_CELL, _GAP, _CAPTION, _HEADING = 1.3, 0.05, 0.2, 0.4  # inches
_BOX, _POINTS, _INK, _WARNING = '#009E73', '#E69F00', '#222222', '#D55E00'


def draw_alignment(pairs: Sequence[tuple[np.ndarray, AlignedFace]], path: str | os.PathLike[str]) -> Path:
    """Draws every picture with its box, points and score, and under it what alignment made of it; returns the path.

    Args:
        pairs: (picture, its AlignedFace); pictures are uint8 [H, W], [H, W, 1] or [H, W, 3].
    """
    columns, rows = min(_COLUMNS, len(pairs)), -(-len(pairs) // _COLUMNS)
    row_height = _CAPTION + 2 * _CELL + 2 * _GAP
    width, height = columns * (_CELL + _GAP) + _GAP, _HEADING + rows * row_height
    figure = Figure(figsize=(width, height), facecolor='white')
    FigureCanvasAgg(figure)
    found = sum(face.found for _, face in pairs)
    heading = f'faces found: {found} of {len(pairs)}'
    figure.text(_GAP / width, 1 - 0.08 / height, heading, va='top', fontsize=11, color=_INK)

    def cell(column: int, top: float) -> Axes:
        left, bottom = _GAP + column * (_CELL + _GAP), height - top - _CELL
        axes = figure.add_axes((left / width, bottom / height, _CELL / width, _CELL / height))
        axes.axis('off')
        return axes

    for index, (image, face) in enumerate(pairs):
        row, column = divmod(index, _COLUMNS)
        top = _HEADING + row * row_height + _CAPTION
        _draw_before(cell(column, top), image, face)
        if face.image is not None:
            _show(cell(column, top + _CELL + _GAP), face.image)
    figure.savefig(path, dpi=120)
    return Path(path)


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image.squeeze(), cmap='gray', vmin=0, vmax=255, extent=(0, image.shape[1], image.shape[0], 0))


def _draw_before(axes: Axes, image: np.ndarray, face: AlignedFace) -> None:
    _show(axes, image)
    caption, color = (f'{face.score:.2f}', _INK) if face.found else ('no face', _WARNING)
    axes.set_title(caption, fontsize=7, pad=2, color=color)
    if face.found:
        axes.add_patch(Rectangle(face.box[:2], *face.box[2:], fill=False, color=_BOX, linewidth=1.2))
        axes.scatter(*face.points.T, s=9, color=_POINTS)
        axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
