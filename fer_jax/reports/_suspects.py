"""Figures of an audit: where the scores lie, the most suspect faces, what is found at which price."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fer_jax.evaluation.audit import Audit, FlagsN, LabelsN, average_precision
from fer_jax.reports import _style

_BINS = 40
_CELL_INCHES = (1.3, 1.64)
_FACE_INCHES = 1.1
_LETTERS = 15


def score_histograms(
    audit: Audit,
    labels_N: LabelsN,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    threshold: float | None = None,
    wrong_N: FlagsN | None = None,
) -> Path:
    """Draws the scores of each class as a histogram, with the threshold; wrong labels apart, where they are known."""
    there = [k for k in range(len(class_names)) if (labels_N == k).any()]
    columns = min(4, len(there))
    rows = -(-len(there) // columns)
    figure = _style.canvas(max(2.6 * columns + 0.6, 7.2), 1.75 * rows + 1.2, title, subtitle)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    edges = np.linspace(*_span(audit.scores), _BINS + 1)
    kinds = {'all labels': (np.ones(len(labels_N), bool), _style.SKY)}
    if wrong_N is not None:
        kinds = {'right labels': (~wrong_N, _style.SKY), 'wrong labels': (wrong_N, _style.VERMILLION)}
    for axes in grid.flat[len(there) :]:
        axes.remove()
    for place, (axes, k) in enumerate(zip(grid.flat, there, strict=False)):
        _style.tidy(axes)
        parts = [audit.scores[(labels_N == k) & chosen] for chosen, _ in kinds.values()]
        axes.hist(parts, edges, stacked=True, color=[color for _, color in kinds.values()], label=list(kinds))
        if threshold is not None:
            axes.axvline(threshold, color=_style.INK, linewidth=1.2, linestyle=(0, (3, 1.5)), label='threshold')
        flagged = audit.flags[labels_N == k]
        words = f'{class_names[k]}: {flagged.sum():,} of {len(flagged):,}'
        axes.set_title(_style.plain(words), fontsize=9.5, color=_style.INK, loc='left')
        axes.tick_params(labelsize=8, labelbottom=place >= len(there) - columns)  # the lowest of each column
    figure.supxlabel('score (higher is more suspect); in the titles: flagged of all', fontsize=9, color=_style.MUTED)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='upper right', ncols=3, frameon=False, fontsize=8.5)
    return _style.save(figure, path)


def suspect_faces(
    images_INHWC: UInt8[np.ndarray, 'I H W C'],
    captions: Sequence[tuple[str, str, float]],
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
) -> Path:
    """Draws faces in rows of eight, each with its label, what is suggested instead ('' for nothing), and its score."""
    wide, high = _CELL_INCHES
    columns = 8
    rows = -(-len(captions) // columns)
    width, height = columns * wide + 0.2, rows * high + 0.85
    figure = _style.canvas(width, height, title, subtitle, layout=False)
    for place, (image, (label, suggested, score)) in enumerate(zip(images_INHWC, captions, strict=True)):
        left, top = 0.2 + place % columns * wide, height - 0.82 - place // columns * high
        axes = figure.add_axes(
            (left / width, (top - _FACE_INCHES) / height, _FACE_INCHES / width, _FACE_INCHES / height)
        )
        axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap='gray', vmin=0, vmax=255)
        axes.set_axis_off()
        text = {'ha': 'center', 'va': 'top', 'x': (left + _FACE_INCHES / 2) / width}
        below = top - _FACE_INCHES
        figure.text(y=(below - 0.05) / height, s=_short(label), fontsize=8.5, weight='bold', **text)
        said = f'{suggested}? ' if suggested else ''
        figure.text(
            y=(below - 0.22) / height, s=f'{_short(said)} {score:.3f}', fontsize=7.5, color=_style.VERMILLION, **text
        )
    return _style.save(figure, path)


def precision_recall(
    found: Mapping[str, tuple[Audit, FlagsN]],
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
) -> Path:
    """Draws precision against recall of each method's scores, and its flags as a point.

    Args:
        found: by method, the audit and which of its labels are wrong.
    """
    figure = _style.canvas(7.6, 5.0, title, subtitle)
    axes = figure.subplots()
    _style.tidy(axes, grid='y')
    colors = (_style.BLUE, _style.ORANGE, _style.GREEN, _style.VERMILLION, _style.SKY, '#CC79A7', _style.INK)
    for (name, (audit, wrong_N)), color in zip(found.items(), colors, strict=False):
        order = np.argsort(-audit.scores, kind='stable')
        hits = np.cumsum(wrong_N[order])
        label = f'{name}: average precision {average_precision(audit.scores, wrong_N):.3f} (n = {len(hits):,})'
        axes.plot(hits / wrong_N.sum(), hits / np.arange(1, len(hits) + 1), color=color, linewidth=1.8, label=label)
        flagged = int(audit.flags.sum())
        if flagged:
            right = int((audit.flags & wrong_N).sum())
            axes.scatter(right / wrong_N.sum(), right / flagged, s=55, color=color, edgecolor='white', zorder=3)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel('recall: share of the wrong labels that is found')
    axes.set_ylabel('precision')
    for axis in (axes.xaxis, axes.yaxis):
        _style.in_percent(axis)
    axes.legend(frameon=False, fontsize=9, loc='upper left', bbox_to_anchor=(1.01, 1), borderaxespad=0)
    figure.set_size_inches(10.6, 5.0)
    return _style.save(figure, path)


def _span(scores: np.ndarray) -> tuple[float, float]:
    low, high = float(scores.min()), float(scores.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _short(words: str) -> str:
    return _style.plain(words if len(words) <= _LETTERS else words[: _LETTERS - 1].rstrip() + '…')
