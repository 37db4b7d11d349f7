"""Faces over what they became: the picture of what translations and copies look like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fer_jax.reports import _style

_FACE_INCHES = 0.86
_GAP_INCHES = 0.05
_LEFT_INCHES = 1.45  # of the headings
_BETWEEN_INCHES = 0.22  # two pairs
_TOP_INCHES = 0.75

ImagesNHWC = UInt8[np.ndarray, 'N H W C']


def translations_grid(
    rows: Sequence[tuple[str, ImagesNHWC, np.ndarray]],
    label: str,
    path: str | os.PathLike[str],
    title: str,
    subtitle: str,
) -> Path:
    """Draws, for each emotion that faces come from, a row of originals and below it a row of what they became.

    Args:
        rows: the emotion, uint8 originals [N, H, W, C], and the new images, [N, H, W] or [N, H, W, 3].
        label: the emotion that all become.
    """
    cell = _FACE_INCHES + _GAP_INCHES
    block = 2 * cell + _BETWEEN_INCHES
    width = max(_LEFT_INCHES + max(len(new) for _, _, new in rows) * cell + 0.1, 6.2)
    height = _TOP_INCHES + len(rows) * block
    figure = _style.canvas(width, height, title, subtitle, layout=False)
    for number, (source, originals, new) in enumerate(rows):
        for line, (images, heading) in enumerate(((originals, f'original:\n{source}'), (new, f'became:\n{label}'))):
            top = height - _TOP_INCHES - number * block - line * cell
            middle = (top - _FACE_INCHES / 2) / height
            color = _style.INK if line else _style.MUTED
            figure.text(
                0.16 / width,
                middle,
                _style.plain(heading),
                va='center',
                fontsize=9.5,
                color=color,
                weight='bold' if line else 'normal',
            )
            for column, image in enumerate(images):
                left = _LEFT_INCHES + column * cell
                box = (left / width, (top - _FACE_INCHES) / height, _FACE_INCHES / width, _FACE_INCHES / height)
                axes = figure.add_axes(box)
                axes.imshow(image.squeeze(), cmap='gray', vmin=0, vmax=255)
                axes.set_axis_off()
    return _style.save(figure, path)
