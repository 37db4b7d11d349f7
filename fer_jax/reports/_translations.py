"""Faces beside their translations into another emotion and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fer_jax.reports import _style

ImagesNHWC = UInt8[np.ndarray, 'N H W C']

_FACE_INCHES = 0.9
_GAP_INCHES = 0.06
_LABEL_INCHES = 1.5
_HEADING_INCHES = 0.42


def translation_sheet(
    blocks: Mapping[tuple[str, str], Sequence[ImagesNHWC]],
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
) -> Path:
    """Draws a block of three rows per direction: faces, the same faces translated, and those translated back.

    Args:
        blocks: by (source, target), the names of the emotions: originals, translations and translations back, of
            one shape.
        path: of the PNG.
    """
    columns = max(len(rows[0]) for rows in blocks.values())
    cell = _FACE_INCHES + _GAP_INCHES
    width = max(_LABEL_INCHES + columns * cell + 0.2, 6.4)
    height = 0.85 + len(blocks) * (_HEADING_INCHES + 3 * cell)
    figure = _style.canvas(width, height, title, subtitle, layout=False)
    top = height - 0.75
    for (source, target), rows in blocks.items():
        heading = _style.plain(f'{source} → {target}')
        figure.text(0.16 / width, (top - 0.3) / height, heading, fontsize=11, weight='bold', color=_style.INK)
        top -= _HEADING_INCHES
        for words, images in zip((source, f'as {target}', f'back to {source}'), rows, strict=True):
            middle = (top - _FACE_INCHES / 2) / height
            text = {'va': 'center', 'fontsize': 9.5, 'color': _style.MUTED}
            figure.text(0.16 / width, middle, _style.plain(words), **text)
            for column, image in enumerate(images):
                left = _LABEL_INCHES + column * cell
                box = (left / width, (top - _FACE_INCHES) / height, _FACE_INCHES / width, _FACE_INCHES / height)
                axes = figure.add_axes(box)
                axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap='gray', vmin=0, vmax=255)
                axes.set_axis_off()
            top -= cell
    return _style.save(figure, path)
