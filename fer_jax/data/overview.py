"""One picture of a data set: counts per class and split, a contact sheet of every split, and doubtful groups."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fer_jax.data.dataset import Dataset, Split, class_counts
from fer_jax.data.duplicates import Copy, is_conflicting

_COLOURS = {'train': '#4477aa', 'validation': '#ccbb44', 'test': '#ee6677'}
_WIDTH = 19.2  # inches, at 100 pixels each
_PER_CLASS = 24  # images in a row, of all splits together
_CLASSES = 60  # of more the first are shown: matplotlib draws no picture of more than 65,535 pixels
_CELL = 96  # pixels at most of a side
_GAP = 2
_PAIRS = 12
_PAIRS_IN_A_ROW = 6


def draw_overview(
    dataset: Dataset,
    path: Path,
    identical: Sequence[Sequence[Copy]] = (),
    near: Sequence[Sequence[Copy]] = (),
) -> None:
    """Writes a PNG: bars; below them images of each class and split, evenly over its order; below them pairs.

    Args:
        dataset: its images are read one by one, as `split.images[index]`.
        identical, near: groups of duplicates; of those with conflicting labels, and of near ones, some are shown.
    """
    pairs = _choose_pairs(dataset, identical, near)
    class_names = dataset.class_names[:_CLASSES]
    heights = [3.6, 0.7 + 0.68 * len(class_names)]
    if pairs:
        heights.append(0.7 + 2.0 * -(-len(pairs) // _PAIRS_IN_A_ROW))
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=100, layout='constrained')
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    bars, sheets, *rest = figure.subfigures(len(heights), 1, height_ratios=heights)
    total = sum(map(len, dataset.splits.values()))
    source = dataset.manifest['source']['name'].replace('$', r'\$')
    some = f', the first {_CLASSES} of {len(dataset.class_names):,} classes' * (len(dataset.class_names) > _CLASSES)
    bars.suptitle(f'{dataset.name}: {total:,} images of {source}{some}', fontsize=17)
    _draw_counts(bars.subplots(), dataset, class_names)
    for axes, (name, split) in zip(
        np.ravel(sheets.subplots(1, len(dataset.splits))), dataset.splits.items(), strict=True
    ):
        _draw_sheet(axes, split, class_names, _PER_CLASS // len(dataset.splits))
        axes.set_title(f'{name} ({len(split):,})', fontsize=15)
    if pairs:
        _draw_pairs(rest[0], dataset, pairs)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # class names in scripts that matplotlib's font lacks show as boxes
        figure.savefig(path)


def _draw_counts(axes, dataset: Dataset, class_names: Sequence[str]) -> None:
    width = 0.8 / len(dataset.splits)
    size = np.clip(230 / (len(class_names) * len(dataset.splits)), 6, 11)
    for index, (name, split) in enumerate(dataset.splits.items()):
        counts = list(class_counts(split.labels, dataset.class_names).values())[: len(class_names)]
        places = np.arange(len(counts)) + (index - (len(dataset.splits) - 1) / 2) * width
        container = axes.bar(places, counts, width, color=_COLOURS.get(name), label=f'{name} ({len(split):,})')
        axes.bar_label(container, [f'{count:,}' for count in counts], fontsize=size, padding=2)
    crowded = sum(map(len, class_names)) > 120
    axes.set_xticks(
        range(len(class_names)),
        [_shown(name) for name in class_names],
        fontsize=9 if crowded else 14,
        rotation=30 if crowded else 0,
        ha='right' if crowded else 'center',
    )
    axes.set_xlim(-0.6, len(class_names) - 0.4)
    axes.set_ylabel('images', fontsize=13)
    axes.yaxis.set_major_formatter('{x:,.0f}')
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.12)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(fontsize=13, frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))


def _draw_sheet(axes, split: Split, class_names: Sequence[str], most: int) -> None:
    chosen = []
    for label in range(len(class_names)):
        (members,) = np.nonzero(split.labels == label)
        chosen.append(members[np.linspace(0, len(members) - 1, min(most, len(members))).round().astype(int)])
    columns = max(1, *map(len, chosen))
    images = [[_at_most(split.images[int(index)], _CELL) for index in row] for row in chosen]
    side = min(_CELL, max((max(image.shape[:2]) for row in images for image in row), default=_CELL))
    step = side + _GAP
    sheet = np.full((len(class_names) * step, columns * step, 3), 255, np.uint8)
    for row, of_class in enumerate(images):
        for column, image in enumerate(of_class):
            sheet[row * step : row * step + side, column * step : column * step + side] = _fitted(image, side)
    axes.imshow(sheet, interpolation='lanczos')
    axes.set_yticks(np.arange(len(class_names)) * step + side / 2, [_shown(name) for name in class_names], fontsize=13)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_pairs(figure, dataset: Dataset, pairs: Sequence[tuple[Copy, Copy]]) -> None:
    figure.suptitle('The same picture under two labels, and nearly the same picture twice', fontsize=15)
    grid = np.ravel(figure.subplots(-(-len(pairs) // _PAIRS_IN_A_ROW), _PAIRS_IN_A_ROW))
    for axes in grid:
        axes.set_axis_off()
    for axes, pair in zip(grid, pairs, strict=False):
        images = [dataset.splits[copy.split].images[copy.index] for copy in pair]
        side = min(2 * _CELL, max(max(image.shape[:2]) for image in images))
        axes.imshow(np.hstack([_fitted(image, side) for image in images]), interpolation='lanczos')
        words = [f'{_shown(dataset.class_names[copy.label])}, {copy.split}' for copy in pair]
        axes.set_title(' | '.join(words), fontsize=10)


def _choose_pairs(
    dataset: Dataset, identical: Sequence[Sequence[Copy]], near: Sequence[Sequence[Copy]]
) -> list[tuple[Copy, Copy]]:
    """Two of a group: under two labels if it has such, else two that are not identical. Conflicting groups first."""
    groups = [group for group in identical if is_conflicting(group)][: _PAIRS // 3]
    groups += sorted(near, key=is_conflicting, reverse=True)[: _PAIRS - len(groups)]
    pairs = []
    for first, *others in groups:
        pixels = {copy: dataset.splits[copy.split].pixel_hashes[copy.index] for copy in (first, *others)}
        relabelled = (copy for copy in others if copy.label != first.label)
        different = (copy for copy in others if pixels[copy] != pixels[first])
        pairs.append((first, next(itertools.chain(relabelled, different))))
    return pairs


def _at_most(image: np.ndarray, side: int) -> np.ndarray:
    """What `_fitted` makes of it, without the square; a smaller image as it is. Photographs would fill the memory."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    size = [max(1, round(length * scale)) for length in picture.size]
    return np.asarray(picture.convert('RGB').resize(size, Image.Resampling.LANCZOS))


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, C] shrunk or enlarged to fit in the middle of a white square: uint8 [side, side, 3]."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert('RGB')
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = picture.resize(size, Image.Resampling.LANCZOS)
    return square


def _shown(name: str) -> str:
    """A class name that matplotlib does not take for a formula, and that is not too long."""
    return (name if len(name) <= 16 else f'{name[:15]}…').replace('$', r'\$')
