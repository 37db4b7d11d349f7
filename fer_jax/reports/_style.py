"""What every figure shares: colours, the heading, axes in per cent, the way onto disk.

Figures are plain `Figure` objects drawn by Agg: nothing goes through pyplot, so no state is left behind.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008: told apart with every common colour vision.
BLUE, ORANGE, GREEN, VERMILLION, SKY = '#0072B2', '#E69F00', '#009E73', '#D55E00', '#56B4E9'
INK, MUTED, PALE = '#222222', '#5F6368', '#E8EAED'
ENSEMBLE, SINGLE = BLUE, ORANGE
TRAIN, VALIDATION = ORANGE, BLUE
RIGHT, WRONG = GREEN, VERMILLION

_DPI = 144
_HEADER_INCHES = 0.72


def canvas(width: float, height: float, title: str, subtitle: str, *, layout: bool = True) -> Figure:
    """An empty white figure, in inches, with a bold title and a grey line under it, above the plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor='white')
    FigureCanvasAgg(figure)
    if layout:
        plots = 1 - _HEADER_INCHES / height
        figure.set_layout_engine('constrained', rect=(0, 0, 1, plots), w_pad=0.16, h_pad=0.08)
    left = 0.16 / width
    figure.text(left, 1 - 0.14 / height, plain(title), va='top', fontsize=13, weight='bold', color=INK)
    figure.text(left, 1 - 0.43 / height, plain(subtitle), va='top', fontsize=9, color=MUTED)
    return figure


def plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return str(text).replace('$', r'\$')


def tidy(axes: Axes, *, grid: str | None = None) -> None:
    """Removes the frame above and to the right, mutes the rest, and draws a pale grid behind along `x` or `y`."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=PALE, linewidth=0.9)


def in_percent(axis) -> None:
    """Labels an axis of fractions in per cent."""
    axis.set_major_formatter(lambda value, _: f'{100 * value:.4g} %')


def class_ticks(axes: Axes, class_names: Sequence[str], below: Sequence[str] | None = None) -> None:
    """Puts class names under the x axis at 0, 1, …, with more lines if given; long names are broken."""
    letters = int(11 * axes.get_figure().get_size_inches()[0] / len(class_names))
    labels = ['\n'.join(textwrap.wrap(plain(name), letters)) for name in class_names]
    if below is not None:
        labels = [f'{name}\n{more}' for name, more in zip(labels, below, strict=True)]
    axes.set_xticks(range(len(labels)), labels, color=INK)
    axes.tick_params(axis='x', length=0)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a PNG, aside first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + '.partial')
    figure.savefig(aside, dpi=_DPI, format='png')
    os.replace(aside, path)
    return path
