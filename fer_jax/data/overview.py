"""One picture of a data set: counts per class and split, and a contact sheet of every split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fer_jax.data.dataset import Dataset, Split, class_counts

_COLOURS = {'train': '#4477aa', 'validation': '#ccbb44', 'test': '#ee6677'}
_PER_CLASS = 8
_GAP = 2


def draw_overview(dataset: Dataset, path: Path) -> None:
    """Writes a PNG: bars on top, below them eight images per class of each split, taken evenly over its order."""
    figure = Figure(figsize=(19.2, 9.4), dpi=100, layout='constrained')
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    bars, sheets = figure.subfigures(2, 1, height_ratios=(1, 1.5))
    total = sum(map(len, dataset.splits.values()))
    bars.suptitle(f'{dataset.name}: {total:,} images of {dataset.manifest["source"]["name"]}', fontsize=17)
    _draw_counts(bars.subplots(), dataset)
    for axes, (name, split) in zip(
        np.ravel(sheets.subplots(1, len(dataset.splits))), dataset.splits.items(), strict=True
    ):
        _draw_sheet(axes, split, dataset)
        axes.set_title(f'{name} ({len(split):,})', fontsize=15)
    figure.savefig(path)


def _draw_counts(axes, dataset: Dataset) -> None:
    width = 0.8 / len(dataset.splits)
    for index, (name, split) in enumerate(dataset.splits.items()):
        counts = list(class_counts(split.labels, dataset.class_names).values())
        places = np.arange(len(counts)) + (index - (len(dataset.splits) - 1) / 2) * width
        container = axes.bar(places, counts, width, color=_COLOURS.get(name), label=f'{name} ({len(split):,})')
        axes.bar_label(container, [f'{count:,}' for count in counts], fontsize=11, padding=2)
    axes.set_xticks(range(len(dataset.class_names)), dataset.class_names, fontsize=14)
    axes.set_ylabel('images', fontsize=13)
    axes.yaxis.set_major_formatter('{x:,.0f}')
    axes.margins(x=0.01, y=0.12)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(fontsize=13, frameon=False, loc='upper left')


def _draw_sheet(axes, split: Split, dataset: Dataset) -> None:
    height, width, channels = dataset.manifest['image_shape']
    rows = len(dataset.class_names)
    sheet = np.full((rows * (height + _GAP), _PER_CLASS * (width + _GAP), channels), 255, np.uint8)
    for row in range(rows):
        (chosen,) = np.nonzero(split.labels == row)
        spread = np.linspace(0, len(chosen) - 1, min(_PER_CLASS, len(chosen))).round().astype(int)
        for column, index in enumerate(chosen[spread]):
            top, left = row * (height + _GAP), column * (width + _GAP)
            sheet[top : top + height, left : left + width] = split.images[index]
    axes.imshow(sheet[..., 0] if channels == 1 else sheet, cmap='gray', vmin=0, vmax=255, interpolation='lanczos')
    middles = np.arange(rows) * (height + _GAP) + height / 2
    axes.set_yticks(middles, dataset.class_names, fontsize=13)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
