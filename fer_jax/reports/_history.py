"""The course of a training run, from metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_jax.errors import UserError
from fer_jax.reports import _style

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

Record = Mapping[str, float]
_PANELS = {
    'accuracy': ('train/accuracy', 'validation/accuracy', 'validation/macro_f1'),
    'loss': ('train/loss', 'validation/loss'),
    'learning rate': ('learning_rate',),
}


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The log points of metrics.jsonl, one per step, in order of steps.

    A step logged twice, as after a resumption, keeps the later numbers. Lines that a killed process left
    unfinished are passed over, and so is what is no number.
    """
    by_step: dict[int, dict[str, float]] = {}
    for line in Path(path).read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            record = json.loads(line)
            step = int(record['step'])
        except (ValueError, TypeError, KeyError, OverflowError):
            continue
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        by_step.setdefault(step, {}).update(numbers)
    return [by_step[step] for step in sorted(by_step)]


def has_history(records: Sequence[Record]) -> bool:
    """Whether there is anything that `epoch_history` could draw."""
    return any(len(series(records, key)[0]) for keys in _PANELS.values() for key in keys)


def epoch_history(records: Sequence[Record], path: str | os.PathLike[str], *, subtitle: str = '') -> Path:
    """Draws accuracy, loss and learning rate over epochs (over steps, where epochs were not logged).

    Args:
        records: as `read_metrics` returns them; any key may be missing from any record.

    Raises:
        UserError: if no record holds any of the drawn numbers.
    """
    panels = {name: keys for name, keys in _PANELS.items() if any(len(series(records, key)[0]) for key in keys)}
    if not panels:
        raise UserError('the metrics hold no accuracy, loss or learning rate to draw')
    ratios = [1 if name == 'learning rate' else 2 for name in panels]
    figure = _style.canvas(8, 1.6 + 1.25 * sum(ratios), 'Training history', subtitle)
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axes, name in zip(rows, panels, strict=True):
        _DRAW[name](axes, records)
        _style.tidy(axes, grid='y')
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8.5, loc='center left', bbox_to_anchor=(1.01, 0.5))
    rows[-1].set_xlabel(x_name(records))
    rows[-1].set_xlim(left=0)
    return _style.save(figure, path)


def x_name(records: Sequence[Record]) -> str:
    """What the numbers are drawn over: `epoch`, or `step` where not every record has its epoch."""
    return 'epoch' if all('epoch' in record for record in records) else 'step'


def series(records: Sequence[Record], key: str, x: str = '') -> tuple[np.ndarray, np.ndarray]:
    """Where a number was logged, in epochs or steps, and what it was; without what is not finite."""
    x = x or x_name(records)
    points = [(record[x], record[key]) for record in records if x in record and record.get(key) is not None]
    points = [(at, value) for at, value in points if math.isfinite(at) and math.isfinite(value)]
    places, values = np.array(points, np.float64).reshape(-1, 2).T
    return places, values


def per_epoch(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over each epoch, of places and of values."""
    _, epoch = np.unique(np.ceil(x), return_inverse=True)
    counts = np.bincount(epoch)
    return np.bincount(epoch, x) / counts, np.bincount(epoch, values) / counts


def _draw_train(axes: Axes, records: Sequence[Record], key: str) -> None:
    x, values = series(records, key)
    if x_name(records) == 'epoch' and len(x) >= 3 * np.ceil(x.max(initial=1)) and x.max(initial=0) >= 3:
        axes.plot(x, values, color=_style.TRAIN, linewidth=0.8, alpha=0.3)
        axes.plot(*per_epoch(x, values), color=_style.TRAIN, linewidth=1.8, label='train, mean\nper epoch')
    elif len(x):
        axes.plot(x, values, color=_style.TRAIN, linewidth=1.5, marker='.', markersize=4, label='train')


def _draw_accuracy(axes: Axes, records: Sequence[Record]) -> None:
    _draw_train(axes, records, 'train/accuracy')
    x, values = series(records, 'validation/accuracy')
    if len(x):
        axes.plot(x, values, color=_style.VALIDATION, linewidth=1.8, marker='.', label='validation')
        best = int(values.argmax())
        label = f'best on validation\n{100 * values[best]:.2f} %, {x_name(records)} {x[best]:.4g}'
        axes.plot(x[best], values[best], '*', color=_style.VALIDATION, markersize=13, label=label)
    x, values = series(records, 'validation/macro_f1')
    if len(x):
        axes.plot(x, values, color=_style.VALIDATION, linewidth=1, linestyle='--', label='validation, macro F1')
    axes.set_ylabel('accuracy')
    axes.set_ylim(0, 1)
    _style.in_percent(axes.yaxis)


def _draw_loss(axes: Axes, records: Sequence[Record]) -> None:
    _draw_train(axes, records, 'train/loss')
    x, values = series(records, 'validation/loss')
    if len(x):
        axes.plot(x, values, color=_style.VALIDATION, linewidth=1.8, marker='.', label='validation')
    everything = np.concatenate([series(records, key)[1] for key in _PANELS['loss']])
    # A first loss far above the rest would press the remainder flat.
    if everything.min() > 0 and everything.max() > 20 * np.median(everything):
        axes.set_yscale('log')
        axes.set_ylabel('loss (log scale)')
    else:
        axes.set_ylabel('loss')
        axes.set_ylim(bottom=min(0, everything.min()))


def _draw_rate(axes: Axes, records: Sequence[Record]) -> None:
    axes.plot(*series(records, 'learning_rate'), color=_style.INK, linewidth=1.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel('learning\nrate')
    axes.ticklabel_format(axis='y', style='sci', scilimits=(-2, 2))


_DRAW = {'accuracy': _draw_accuracy, 'loss': _draw_loss, 'learning rate': _draw_rate}
