"""The reliability diagram: how often the classifier is right when it is that sure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_jax.evaluation.scores import Calibration, CountsB, ValuesB
from fer_jax.reports import _style

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

_FEW = 10


def reliability(calibration: Calibration, path: str | os.PathLike[str], *, subtitle: str) -> Path:
    """Draws accuracy against confidence per bin, the examples per bin, and the expected calibration error."""
    title = f'Reliability, expected calibration error {100 * calibration.error:.2f} %'
    figure = _style.canvas(6.4, 7.4, title, subtitle)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axes in (upper, lower):
        _style.tidy(axes, grid='y')
    bins = len(calibration.counts)
    middle, width = (np.arange(bins) + 0.5) / bins, 0.94 / bins
    _draw_accuracy(upper, calibration, middle, width)
    _draw_counts(lower, calibration.counts, middle, width)
    lower.set_xlim(0, 1)
    lower.set_xlabel('confidence: probability of the predicted class')
    _style.in_percent(lower.xaxis)
    return _style.save(figure, path)


def _draw_accuracy(axes: Axes, calibration: Calibration, middle: ValuesB, width: float) -> None:
    filled = calibration.counts > 0
    few = filled & (calibration.counts < _FEW)
    axes.plot([0, 1], [0, 1], color=_style.MUTED, linewidth=1.2, linestyle='--', zorder=2, label='perfectly calibrated')
    solid = {'color': _style.SKY, 'label': 'accuracy in the bin'}
    hatched = {'color': 'white', 'edgecolor': _style.BLUE, 'hatch': '////'}
    hatched['label'] = f'accuracy, fewer than {_FEW} examples'
    for chosen, look in ((filled & ~few, solid), (few, hatched)):
        if chosen.any():
            axes.bar(middle[chosen], calibration.accuracy[chosen], width, **look)
    axes.scatter(
        calibration.confidence[filled],
        calibration.accuracy[filled],
        s=30,
        color=_style.VERMILLION,
        zorder=3,
        clip_on=False,
        label='at the mean confidence of the bin',
    )
    axes.set_ylim(0, 1)
    axes.set_ylabel('accuracy')
    _style.in_percent(axes.yaxis)
    axes.legend(frameon=False, fontsize=8.5, loc='lower left', bbox_to_anchor=(0, 1.01), ncols=2)


def _draw_counts(axes: Axes, counts: CountsB, middle: ValuesB, width: float) -> None:
    tallest = int(counts.max())
    axes.bar(middle, counts, width, color=_style.MUTED)
    for position, count in zip(middle, counts, strict=True):
        if count:
            axes.text(position, count + 0.03 * tallest, f'{count:,}', ha='center', fontsize=7.5, color=_style.INK)
    axes.set_ylim(0, 1.2 * tallest)
    axes.set_ylabel(f'examples\n(n = {counts.sum():,})')
