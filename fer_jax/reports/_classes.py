"""Figures per class: counts, confusion, F1, recall, and the probability given to the truth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_jax.evaluation.predictions import LabelsN
from fer_jax.evaluation.scores import ConfusionKK, ProbabilitiesNK
from fer_jax.reports import _style

if TYPE_CHECKING:  # it takes a second to import
    from matplotlib.axes import Axes

PerClass = Mapping[str, Mapping[str, float]]
_FEWEST_FOR_A_VIOLIN = 10


def class_counts(
    counts: Mapping[str, Mapping[str, int]], class_names: Sequence[str], path: str | os.PathLike[str], *, subtitle: str
) -> Path:
    """Draws how many examples each class has in each split: bars of the share, labelled with the count.

    Args:
        counts: by split, then by class; a class that is missing has none.
    """
    figure = _style.canvas(3.1 * len(counts) + 1.6, 1.7 + 0.36 * len(class_names), 'Examples per class', subtitle)
    columns = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    totals = {split: sum(by_class.values()) for split, by_class in counts.items()}
    shares = {
        split: [by_class.get(name, 0) / max(totals[split], 1) for name in class_names]
        for split, by_class in counts.items()
    }
    widest = max(max(values) for values in shares.values())
    for axes, (split, by_class) in zip(columns, counts.items(), strict=True):
        axes.barh(range(len(class_names)), shares[split], color=_style.BLUE, height=0.7)
        for row, (name, share) in enumerate(zip(class_names, shares[split], strict=True)):
            text = f' {by_class.get(name, 0):,}'
            axes.text(share, row, text, va='center', fontsize=8.5, color=_style.INK)
        _style.tidy(axes, grid='x')
        axes.set_title(f'{split}, n = {totals[split]:,}', loc='left', fontsize=10, color=_style.INK)
        axes.set_xlim(0, max(1.28 * widest, 0.01))
        axes.set_xlabel('share of the split')
        _style.in_percent(axes.xaxis)
    columns[0].set_yticks(range(len(class_names)), [_style.plain(name) for name in class_names], color=_style.INK)
    columns[0].invert_yaxis()
    return _style.save(figure, path)


def confusion(
    confusion_KK: ConfusionKK,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    subtitle: str,
    ratios: bool = False,
) -> Path:
    """Draws the confusion matrix, rows true and columns predicted, as counts or as per cent of each row."""
    counts = np.asarray(confusion_KK)
    support = counts.sum(axis=1)
    size = len(class_names)
    shown = counts / np.maximum(support, 1)[:, None] if ratios else counts
    side = max(0.72 * size + 2.2, 5.6)
    title = 'Confusion, per cent of each true class' if ratios else 'Confusion, counts'
    figure = _style.canvas(side + 0.9, side + 0.2, title, subtitle)
    axes = figure.subplots()
    top = 1 if ratios else max(int(counts.max()), 1)
    image = axes.imshow(shown, cmap='Blues', vmin=0, vmax=top)
    for row in range(size):
        for column in range(size):
            text = f'{counts[row, column]:,}'
            if ratios:
                text = f'{100 * shown[row, column]:.1f}' if support[row] else '–'
            color = _readable_on(shown[row, column] / top)
            weight = 'bold' if row == column else 'normal'
            axes.text(column, row, text, ha='center', va='center', fontsize=9.5, color=color, weight=weight)
    names = [_style.plain(name) for name in class_names]
    axes.set_xticks(range(size), names, rotation=35, ha='right', rotation_mode='anchor', color=_style.INK)
    rows = [f'{name}\nn = {count:,}' for name, count in zip(names, support, strict=True)]
    axes.set_yticks(range(size), rows, color=_style.INK)
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which='minor', color='white', linewidth=1.5)
    axes.tick_params(which='both', length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.set_xlabel('predicted', color=_style.INK)
    axes.set_ylabel('true', color=_style.INK, labelpad=8)
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_style.MUTED, labelsize=8.5, length=0)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=not ratios))
    if ratios:
        _style.in_percent(bar.ax.yaxis)
    return _style.save(figure, path)


def _readable_on(value: float) -> str:
    from matplotlib import colormaps

    red, green, blue, _ = colormaps['Blues'](float(value))
    return _style.INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else 'white'


def f1_per_class(by_classifier: Mapping[str, PerClass], path: str | os.PathLike[str], *, subtitle: str) -> Path:
    """Draws F1 as bars per class, one group of bars per class, with the macro mean in the legend.

    Args:
        by_classifier: one or two sets of per-class scores by the name to show; the last one is drawn in blue.
    """
    class_names = list(next(iter(by_classifier.values())))
    figure = _style.canvas(max(1.15 * len(class_names) + 1.2, 6.4), 4.6, 'F1 per class', subtitle)
    axes = figure.subplots()
    width = 0.8 / len(by_classifier)
    colors = (_style.SINGLE, _style.ENSEMBLE)[-len(by_classifier) :]
    for index, ((name, per_class), color) in enumerate(zip(by_classifier.items(), colors, strict=True)):
        values = [per_class[label]['f1'] for label in class_names]
        x = np.arange(len(class_names)) + (index - (len(by_classifier) - 1) / 2) * width
        axes.bar(x, values, 0.92 * width, color=color, label=f'{name}, macro F1 {np.mean(values):.3f}')
        for position, label, value in zip(x, class_names, values, strict=True):
            text = f'{value:.2f}' if per_class[label]['support'] else 'none'
            axes.text(position, value + 0.012, text, ha='center', fontsize=8, color=_style.INK)
    support = [per_class[label]['support'] for label in class_names]
    _style.tidy(axes, grid='y')
    _style.class_ticks(axes, class_names, [f'n = {count:,}' for count in support])
    axes.set_ylim(0, 1.04)
    axes.set_yticks(np.arange(6) / 5)
    axes.set_ylabel('F1')
    axes.legend(frameon=False, fontsize=9, loc='lower left', bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return _style.save(figure, path)


def single_against_ensemble(
    single: PerClass, ensemble: PerClass, path: str | os.PathLike[str], *, subtitle: str
) -> Path:
    """Draws the recall of each class with the best single member and with the ensemble, and what lies between."""
    class_names = list(ensemble)
    figure = _style.canvas(8, 1.9 + 0.42 * len(class_names), 'Recall per class, best single and ensemble', subtitle)
    axes = figure.subplots()
    _style.tidy(axes, grid='x')
    for row, name in enumerate(class_names):
        if not ensemble[name]['support']:
            axes.text(0.01, row, 'no examples', va='center', fontsize=8.5, color=_style.MUTED)
            continue
        before, after = single[name]['recall'], ensemble[name]['recall']
        axes.plot([before, after], [row, row], color=_style.MUTED, linewidth=2, zorder=1)
        axes.scatter(before, row, s=60, color=_style.SINGLE, marker='D', zorder=3, clip_on=False, label='best single')
        axes.scatter(after, row, s=75, color=_style.ENSEMBLE, zorder=4, clip_on=False, label='ensemble')
        text = f'{100 * before:.1f} → {100 * after:.1f}  ({100 * (after - before):+.1f})'
        axes.text(1.03, row, text, va='center', fontsize=9, color=_style.INK)
    support = [ensemble[name]['support'] for name in class_names]
    labels = [f'{_style.plain(name)}  n = {count:,}' for name, count in zip(class_names, support, strict=True)]
    axes.set_yticks(range(len(class_names)), labels, color=_style.INK)
    axes.set_ylim(len(class_names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel('recall')
    _style.in_percent(axes.xaxis)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(
        handles.values(), handles.keys(), frameon=False, fontsize=9, loc='lower left', bbox_to_anchor=(0, 1), ncols=2
    )
    return _style.save(figure, path)


def performance_distribution(
    probabilities_NK: ProbabilitiesNK,
    labels_N: LabelsN,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    subtitle: str,
) -> Path:
    """Draws, per true class, how the probability given to the true class is distributed.

    A violin with its median and quartiles; classes with fewer than ten examples are drawn as points.
    """
    title = 'Probability given to the true class'
    few = np.bincount(labels_N, minlength=len(class_names)).min() < _FEWEST_FOR_A_VIOLIN
    legend = 'dot: median, bar: middle half' + (
        f'; fewer than {_FEWEST_FOR_A_VIOLIN} examples: each a point' if few else ''
    )
    figure = _style.canvas(max(1.1 * len(class_names) + 1.2, 6.4), 5, title, f'{subtitle} · {legend}')
    axes = figure.subplots()
    below = []
    for k in range(len(class_names)):
        chosen = np.asarray(labels_N) == k
        right = (probabilities_NK[chosen].argmax(axis=1) == k).mean() if chosen.any() else 0
        below.append(f'n = {chosen.sum():,}\n{100 * right:.1f} % right' if chosen.any() else 'n = 0')
        _draw_distribution(axes, k, probabilities_NK[chosen, k])
    _style.tidy(axes, grid='y')
    _style.class_ticks(axes, class_names, below)
    axes.set_xlim(-0.6, len(class_names) - 0.4)
    axes.set_ylim(0, 1)
    axes.set_ylabel('probability of the true class')
    _style.in_percent(axes.yaxis)
    return _style.save(figure, path)


def _draw_distribution(axes: Axes, position: int, values: np.ndarray) -> None:
    if len(values) < _FEWEST_FOR_A_VIOLIN or np.ptp(values) == 0:
        spread = position + 0.1 * np.linspace(-1, 1, len(values)) if len(values) > 1 else [position] * len(values)
        axes.scatter(spread, values, s=28, color=_style.BLUE, alpha=0.8, linewidths=0, clip_on=False)
        return
    body = axes.violinplot([values], [position], widths=0.85, showextrema=False)['bodies'][0]
    body.set(facecolor=_style.SKY, edgecolor=_style.BLUE, alpha=0.75, linewidth=0.8)
    low, median, high = np.percentile(values, [25, 50, 75])
    axes.plot([position, position], [low, high], color=_style.INK, linewidth=4, solid_capstyle='butt')
    axes.scatter(position, median, s=34, color='white', edgecolors=_style.INK, zorder=3)
