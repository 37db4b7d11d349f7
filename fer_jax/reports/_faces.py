"""Faces with what was predicted for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from fer_jax.evaluation.predictions import LabelsN
from fer_jax.evaluation.scores import ProbabilitiesNK
from fer_jax.reports import _style

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.figure import Figure

ImagesNHWC = UInt8[np.ndarray, 'N H W C']
ChosenI = Int[np.ndarray, 'I']

_CELL_INCHES = (1.3, 1.64)
_FACE_INCHES = 1.1
_LETTERS_PER_LINE = 13
_HEADING_INCHES = 0.25


def pick_per_class(labels_N: LabelsN, num_classes: int, each: int = 4, seed: int = 0) -> ChosenI:
    """Up to `each` indices of every class, drawn at random without regard to the predictions, class by class."""
    generator = np.random.default_rng(seed)
    chosen = []
    for k in range(num_classes):
        members = np.flatnonzero(np.asarray(labels_N) == k)
        chosen.append(generator.permutation(members)[:each])
    return np.concatenate(chosen)


def pick_confident_errors(probabilities_NK: ProbabilitiesNK, labels_N: LabelsN, most: int = 24) -> ChosenI:
    """The indices of the wrong predictions, the surest first; there may be none."""
    wrong = np.flatnonzero(probabilities_NK.argmax(axis=1) != labels_N)
    order = np.argsort(-probabilities_NK[wrong].max(axis=1), kind='stable')
    return wrong[order[:most]]


def example_faces(
    images_NHWC: ImagesNHWC,
    labels_N: LabelsN,
    probabilities_NK: ProbabilitiesNK,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    subtitle: str,
    each: int = 4,
    seed: int = 0,
) -> Path:
    """Draws faces of every class, one column per true class, taken at random, with prediction and confidence."""
    chosen = pick_per_class(labels_N, len(class_names), each, seed)
    columns = np.asarray(labels_N)[chosen]
    rows = np.concatenate([np.arange((columns == k).sum()) for k in range(len(class_names))])
    return _draw(
        _Cells(images_NHWC, labels_N, probabilities_NK, class_names),
        list(zip(chosen, rows, columns, strict=True)),
        'Faces drawn at random, one column per true class',
        f'{subtitle} · ✓ right, ✗ wrong',
        path,
        headings=class_names,
    )


def confident_errors(
    images_NHWC: ImagesNHWC,
    labels_N: LabelsN,
    probabilities_NK: ProbabilitiesNK,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    subtitle: str,
    most: int = 24,
) -> Path | None:
    """Draws the wrong predictions with the highest confidence; None, and no file, where every one is right."""
    chosen = pick_confident_errors(probabilities_NK, labels_N, most)
    if not len(chosen):
        return None
    places = [(index, place // 8, place % 8) for place, index in enumerate(chosen)]
    return _draw(
        _Cells(images_NHWC, labels_N, probabilities_NK, class_names),
        places,
        f'The {len(chosen)} wrong predictions with the highest confidence',
        subtitle,
        path,
    )


class _Cells:
    """Draws one example into one cell."""

    def __init__(
        self,
        images_NHWC: ImagesNHWC,
        labels_N: LabelsN,
        probabilities_NK: ProbabilitiesNK,
        class_names: Sequence[str],
    ):
        self.images, self.labels = images_NHWC, labels_N
        self.probabilities, self.names = probabilities_NK, [_shortened(name) for name in class_names]

    def draw(self, figure: Figure, index: int, left: float, top: float) -> None:
        """Draws the face with its upper left corner at (left, top), in inches from the figure's lower left."""
        width, height = figure.get_size_inches()
        box = (left / width, (top - _FACE_INCHES) / height, _FACE_INCHES / width, _FACE_INCHES / height)
        axes = figure.add_axes(box)
        image = self.images[index]
        axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap='gray', vmin=0, vmax=255)
        axes.set_xticks([])
        axes.set_yticks([])
        predicted, true = int(self.probabilities[index].argmax()), int(self.labels[index])
        right = predicted == true
        color = _style.RIGHT if right else _style.WRONG
        axes.spines[:].set(color=color, linewidth=2.5, linestyle='-' if right else (0, (3, 1.2)))
        said = f'{"✓" if right else "✗"} {self.names[predicted]}'
        sure = f'{100 * self.probabilities[index, predicted]:.0f} %'
        second = sure if right else f'{sure}, true: {self.names[true]}'
        middle = axes.get_position().x0 + _FACE_INCHES / width / 2
        below = top - _FACE_INCHES
        text = {'ha': 'center', 'va': 'top', 'x': middle}
        figure.text(y=(below - 0.06) / height, s=said, fontsize=8.5, weight='bold', color=color, **text)
        figure.text(y=(below - 0.23) / height, s=second, fontsize=7.5, color=_style.INK, **text)


def _draw(
    cells: _Cells,
    places: Sequence[tuple[int, int, int]],
    title: str,
    subtitle: str,
    path: str | os.PathLike[str],
    headings: Sequence[str] = (),
) -> Path:
    wide, high = _CELL_INCHES
    rows = max(row for _, row, _ in places) + 1
    columns = max(max(column for _, _, column in places) + 1, len(headings), 5)
    top = 0.8 + (_HEADING_INCHES if headings else 0)
    width, height = columns * wide + 0.2, rows * high + top
    figure = _style.canvas(width, height, title, subtitle, layout=False)
    for column, heading in enumerate(headings):
        x, y = 0.2 + column * wide + _FACE_INCHES / 2, height - top + 0.08
        figure.text(x / width, y / height, _shortened(heading), ha='center', fontsize=9, color=_style.MUTED)
    for index, row, column in places:
        cells.draw(figure, index, 0.2 + column * wide, height - top - row * high)
    return _style.save(figure, path)


def _shortened(name: str) -> str:
    short = name if len(name) <= _LETTERS_PER_LINE else name[: _LETTERS_PER_LINE - 1].rstrip() + '…'
    return _style.plain(short)
