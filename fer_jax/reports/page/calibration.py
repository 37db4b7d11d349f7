"""Whether a classifier is as often right as it is sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_jax.evaluation.scores import Calibration, calibration
from fer_jax.reports.page.charts import Axis, Chart, percent
from fer_jax.reports.page.elements import Element, section, table, tag
from fer_jax.reports.page.scores import titled
from fer_jax.reports.page.workdirs import Workdir

_FEW = 10  # examples in a bin, under which its accuracy means little


def calibration_section(workdirs: Sequence[Workdir]) -> Element | None:
    """A reliability diagram per ensemble, with its expected calibration error and the numbers behind it."""
    shown = [_diagram(workdir, index) for index, workdir in enumerate(workdirs) if workdir.answers]
    if not shown:
        return None
    words = (
        'Bars: accuracy among the answers of that confidence, the probability of the class that was named; hollow '
        f'where there are fewer than {_FEW}. Dots: at the mean confidence of the bin. On the dashed line one would be '
        'as often right as sure; below it, one is too sure. Beneath: how many answers there are.'
    )
    return section('calibration', 'Calibration', tag('p', words, class_='muted'), tag('div', shown, class_='charts'))


def _diagram(workdir: Workdir, index: int) -> Element:
    found = calibration(workdir.answers.probabilities, workdir.answers.labels)
    bins = len(found.counts)
    filled = np.flatnonzero(found.counts)
    middle, width = (filled + 0.5) / bins, 0.92 / bins
    words = [_in_words(found, int(row)) for row in filled]
    upper = Chart(Axis(0, 1, 'confidence', percent), Axis(0, 1, 'accuracy', percent))
    few = found.counts[filled] < _FEW
    for chosen, look in ((~few, 'solid'), (few, 'hollow')):
        rows = np.flatnonzero(chosen)
        upper.bars(middle[rows], found.accuracy[filled][rows], width, look, [words[row] for row in rows])
    upper.line([0, 1], [0, 1], 'ideal')
    upper.points(found.confidence[filled], found.accuracy[filled], 'mark', words)
    lower = Chart(
        Axis(0, 1, 'confidence', percent), Axis(0, 1.05 * int(found.counts.max()), 'answers', most=3), height=120
    )
    lower.bars(middle, found.counts[filled], width, 'count', words)
    error = f'expected calibration error {100 * found.error:.2f} %'
    title = f'Reliability of {workdir.name}'
    sure, right = found.counts @ found.confidence / found.counts.sum(), workdir.answers.correct.mean()
    told = f'{error}; mean confidence {100 * sure:.2f} %, accuracy {100 * right:.2f} %'
    return tag(
        'figure',
        titled(workdir, index),
        upper.draw(f'reliability-{index}', title, f'{told}. The numbers are in the table below.'),
        lower.draw(f'reliability-counts-{index}', f'{title}: answers per bin', 'The numbers are in the table below.'),
        tag('figcaption', told),
        tag('details', tag('summary', 'In numbers'), _numbers(found, workdir)),
    )


def _in_words(found: Calibration, row: int) -> str:
    bins = len(found.counts)
    return (
        f'{100 * row / bins:.0f} to {100 * (row + 1) / bins:.0f} % sure: {found.counts[row]:,} answers, '
        f'{100 * found.accuracy[row]:.1f} % right'
    )


def _numbers(found: Calibration, workdir: Workdir) -> Element:
    bins = len(found.counts)
    rows = [
        [
            f'{100 * row / bins:.1f} to {100 * (row + 1) / bins:.1f} %',
            f'{found.counts[row]:,}',
            f'{100 * found.confidence[row]:.2f}',
            f'{100 * found.accuracy[row]:.2f}',
        ]
        for row in np.flatnonzero(found.counts)
    ]
    header = ['confidence', 'answers', 'mean confidence %', 'accuracy %']
    return table(f'Reliability of {workdir.name} in numbers', header, rows, numbers=(1, 2, 3))
