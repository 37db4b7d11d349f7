"""Tables of results: markdown for `reproduce`, plain text for the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # whose parts are imported when they are used

CHOSEN_ON = 'validation'


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of an accuracy table: a published number beside ours, over seeds.

    Attributes:
        name: what was trained.
        accuracies: by split, one fraction (0 to 1) per seed, in the order of `seeds`.
        seeds: one per run; empty where nothing has been trained yet.
        split: the split that `published` was measured on, and ours is.
        published: in per cent; None where nobody published one.
        source: where the published number stands.
        seconds: training time of all seeds together.
        device: count and kind, such as `1 x NVIDIA H200`.
        manifest: the hash of the data manifest.
        command: what to type to obtain the row.
    """

    name: str
    accuracies: Mapping[str, Sequence[float]]
    seeds: Sequence[int]
    split: str = 'test'
    published: float | None = None
    source: str = ''
    seconds: float | None = None
    device: str = ''
    manifest: str = ''
    command: str = ''


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half the width of its 95 % interval (Student's t); None for a single value.

    Raises:
        ValueError: if there is no value.
    """
    if not len(values):
        raise ValueError('no values to take the mean of')
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, None
    quantile = scipy.special.stdtrit(len(values) - 1, 0.975)
    return mean, float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))


def results_table(rows: Sequence[Row]) -> str:
    """A markdown table, accuracies in per cent: the mean over seeds ± its 95 % interval, and every seed's own."""
    header = (
        'row',
        'published',
        'ours',
        'per seed',
        'validation',
        'difference',
        'seeds',
        'time',
        'device',
        'data',
        'command',
    )
    return markdown_table(header, [_cells(row) for row in rows], right=(1, 2, 4, 5))


def _cells(row: Row) -> list[str]:
    ours = [100 * value for value in row.accuracies.get(row.split, ())]
    validation = [100 * value for value in row.accuracies.get(CHOSEN_ON, ())]
    difference = '-' if row.published is None or not ours else f'{np.mean(ours) - row.published:+.2f}'
    return [
        row.name,
        _published(row),
        _with_interval(ours) + (f' ({row.split})' if ours else ''),
        ' '.join(f'{value:.2f}' for value in ours) or '-',
        f'{np.mean(validation):.2f}' if validation else '-',
        difference,
        *_how_cells(row),
    ]


def _with_interval(values: Sequence[float]) -> str:
    if not values:
        return '-'
    mean, half = mean_and_interval(values)
    return f'{mean:.2f} ± -' if half is None else f'{mean:.2f} ± {half:.2f}'


@dataclasses.dataclass(frozen=True)
class FoldRow:
    """One row of a table of cross-validations: ways of making the folds side by side.

    Attributes:
        name: what was trained.
        results: by what folds keep together (image, sequence, subject), in the order shown, one entry of `folds.json`
            (`single` or `ensemble`) per seed.
        seeds: one cross-validation each; empty where nothing has been trained yet.
        folds: how many.
        published, source, seconds, device, manifest, command: as in Row; `published` belongs to the first way.
    """

    name: str
    results: Mapping[str, Sequence[Mapping[str, Any]]]
    seeds: Sequence[int]
    folds: int
    published: float | None = None
    source: str = ''
    seconds: float | None = None
    device: str = ''
    manifest: str = ''
    command: str = ''


def folds_results_table(rows: Sequence[FoldRow]) -> str:
    """A markdown table of cross-validations.

    Per way of making the folds: accuracy (per cent) and macro F1, each the mean ± standard deviation over folds (over
    seeds: the mean of both), and the accuracy of all predictions pooled, for one seed with the interval over units,
    for several the mean over seeds ± its 95 % interval, and every seed's own.
    """
    ways = list(dict.fromkeys(way for row in rows for way in row.results))
    columns = [(f'per {way}: accuracy', f'per {way}: macro F1', f'per {way}: pooled') for way in ways]
    header = ['row', 'folds', 'published', *(name for names in columns for name in names)]
    header += ['difference', 'seeds', 'time', 'device', 'data', 'command']
    numbers = range(1, 4 + 3 * len(ways))
    return markdown_table(header, [_fold_cells(row, ways) for row in rows], right=numbers)


def _fold_cells(row: FoldRow, ways: Sequence[str]) -> list[str]:
    first = [entry['accuracy']['mean'] for entry in next(iter(row.results.values()), ())]
    difference = '-' if row.published is None or not first else f'{100 * np.mean(first) - row.published:+.2f}'
    cells = [cell for way in ways for cell in _way_cells(row.results.get(way, ()))]
    return [row.name, str(row.folds), _published(row), *cells, difference, *_how_cells(row)]


def _way_cells(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return ['-', '-', '-']
    over_folds = {
        metric: {part: float(np.mean([entry[metric][part] for entry in entries])) for part in ('mean', 'sd')}
        for metric in ('accuracy', 'macro_f1')
    }
    pooled = [100 * entry['pooled']['accuracy'] for entry in entries]
    if len(pooled) == 1:
        low, high = entries[0]['pooled']['accuracy_ci95_units']
        together = f'{pooled[0]:.2f} ({100 * low:.2f} to {100 * high:.2f})'
    else:
        together = f'{_with_interval(pooled)} ({" ".join(f"{value:.2f}" for value in pooled)})'
    return [mean_and_sd(over_folds['accuracy'], True), mean_and_sd(over_folds['macro_f1'], False), together]


def mean_and_sd(of: Mapping[str, float], percent: bool) -> str:
    """`98.27 ± 1.31`, or as a share, `0.9710 ± 0.0213`."""
    return f'{100 * of["mean"]:.2f} ± {100 * of["sd"]:.2f}' if percent else f'{of["mean"]:.4f} ± {of["sd"]:.4f}'


def _published(row: Row | FoldRow) -> str:
    number = '-' if row.published is None else f'{row.published:.3f}'.removesuffix('0')
    return f'{number} ({row.source})' if row.source else number


def _how_cells(row: Row | FoldRow) -> list[str]:
    return [
        ' '.join(str(seed) for seed in row.seeds) or '-',
        duration(row.seconds),
        row.device or '-',
        row.manifest or '-',
        f'`{row.command}`' if row.command else '-',
    ]


def duration(seconds: float | None) -> str:
    """`43 s`, `12 min`, `3 h 05 min`; `-` for None."""
    if seconds is None:
        return '-'
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A markdown table; the columns in `right` are aligned to the right."""
    rule = ['---:' if column in right else '---' for column in range(len(header))]
    lines = [header, rule, *([str(cell).replace('|', r'\|').replace('\n', ' ') for cell in row] for row in rows)]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def score_rows(scores: Mapping[str, Any]) -> list[list[str]]:
    """Cells per split and classifier, as `SCORE_COLUMNS` names them, from the object in `scores.json`.

    An ensemble of one is that member, and gets no row of its own.
    """
    rows = []
    for split, entry in scores.items():
        members = entry['ensemble']['members']
        chosen = entry['single'].get('validation_accuracy', 0) is not None
        names = {'single': 'best single' if chosen else 'last member', 'ensemble': f'ensemble of {members}'}
        if members == 1:
            names = {'single': 'only member'}
        for kind, who in names.items():
            of = entry[kind]
            low, high = of['accuracy_ci95']
            without = of['accuracy_without_twins']
            rows.append(
                [
                    split,
                    who,
                    f'{100 * of["accuracy"]:.2f}',
                    f'{100 * low:.2f} to {100 * high:.2f}',
                    f'{of["macro_f1"]:.4f}',
                    f'{of["nll"]:.4f}',
                    f'{100 * of["ece"]:.2f}',
                    '-' if without is None else f'{100 * without:.2f}',
                    f'{entry["num_examples"]:,}',
                    f'{entry["num_twins"]:,}',
                ]
            )
    return rows


SCORE_COLUMNS = (
    'split',
    'classifier',
    'accuracy %',
    '95 % interval',
    'macro F1',
    'NLL',
    'ECE %',
    'without twins %',
    'examples',
    'twins',
)


def quick_table(scores: Mapping[str, Any]) -> str:
    """The scores of every split as plain text, columns aligned, for the terminal."""
    return plain_table(SCORE_COLUMNS, score_rows(scores), left=2)


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A table as plain text; the first `left` columns are aligned to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append('  '.join(cells).rstrip())
    text.insert(1, '  '.join('-' * width for width in widths))
    return '\n'.join(text)
