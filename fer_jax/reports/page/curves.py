"""The course of training, runs over each other on the same axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fer_jax.reports._history import per_epoch, series, x_name
from fer_jax.reports.page.charts import Axis, Chart, percent, plain
from fer_jax.reports.page.elements import Element, section, tag
from fer_jax.reports.page.scores import badge
from fer_jax.reports.page.workdirs import Workdir

_POINTS = 400  # of one line
_MARKED = 40  # points, up to which each gets a dot

Line = tuple[int, Workdir, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Panel:
    """One drawing: what, of which key, and how its axis is made.

    `shares_with` names the key whose values the axis has to hold too, so that two panels can be compared.
    """

    title: str
    key: str
    kind: str
    shares_with: str = ''
    best: Callable[[np.ndarray], int] | None = None


_PANELS = (
    _Panel('Accuracy on training batches', 'train/accuracy', 'share'),
    _Panel('Accuracy on validation', 'validation/accuracy', 'share', best=np.argmax),
    _Panel('Loss on training batches', 'train/loss', 'loss', 'validation/loss'),
    _Panel('Loss on validation', 'validation/loss', 'loss', 'train/loss', best=np.argmin),
    _Panel('Macro F1 on validation', 'validation/macro_f1', 'share', best=np.argmax),
    _Panel('Learning rate', 'learning_rate', 'rate'),
)


_OF_PAIRS = (
    _Panel('Loss of both translators', 'train/loss', 'loss'),
    _Panel('Read as the second emotion', 'validation/read_a_to_b', 'share', best=np.argmax),
    _Panel('Read as the first emotion', 'validation/read_b_to_a', 'share', best=np.argmax),
    _Panel('KID to the second emotion', 'validation/kid_a_to_b', 'distance', best=np.argmin),
    _Panel('KID to the first emotion', 'validation/kid_b_to_a', 'distance', best=np.argmin),
    _Panel('Learning rate', 'learning_rate', 'rate'),
)


def curves_section(workdirs: Sequence[Workdir]) -> Element | None:
    """Accuracy, loss, macro F1 and learning rate of all classifiers trained here; None where nothing was logged."""
    logged = [(index, of) for index, of in enumerate(workdirs) if of.records and of.kind != 'pair']
    x, charts = _charts(_PANELS, logged, 'classifier')
    if charts is None:
        return None
    without = [of.letter for of in workdirs if not of.records and of.kind != 'folds']
    folds = [of.letter for of in workdirs if of.kind == 'folds']
    words = f'What was measured on the way, over {x}s. Runs lie over each other on the same axes; '
    words += 'training numbers are of augmented batches, and averaged where there are many.'
    if without:
        words += f' {", ".join(without)} kept no record of training here.'
    if folds:
        words += f' The curves of {", ".join(folds)} are in the pages of its folds.'
    return section('training', 'Training', tag('p', words, class_='muted'), charts)


def pair_curves(pairs: Sequence[tuple[int, Workdir]]) -> Element | None:
    """The same of pairs of translators, whose losses are of another kind."""
    return _charts(_OF_PAIRS, [(index, of) for index, of in pairs if of.records], 'pair')[1]


def _charts(panels: Sequence[_Panel], logged: Sequence[tuple[int, Workdir]], name: str) -> tuple[str, Element | None]:
    x = 'epoch' if all(x_name(of.records) == 'epoch' for _, of in logged) else 'step'
    figures = [figure for panel in panels if (figure := _draw(panel, logged, x, name)) is not None]
    if not figures:
        return x, None
    return x, tag('div', legend(logged) if len(logged) > 1 else None, tag('div', figures, class_='charts'))


def legend(shown: Sequence[tuple[int, Workdir]]) -> Element:
    """Which line is whose."""
    sample = lambda index: tag(
        'svg',
        tag('line', x1='0', x2='34', y1='5', y2='5', class_=f'line run{index}'),
        viewBox='0 0 34 10',
        class_='sample',
        aria_hidden='true',
    )
    items = [tag('li', sample(index), badge(workdir, index), ' ', workdir.name) for index, workdir in shown]
    return tag('ul', items, class_='legend')


def _draw(panel: _Panel, logged: Sequence[tuple[int, Workdir]], x: str, name: str) -> Element | None:
    lines = [(index, of, *series(of.records, panel.key, x)) for index, of in logged]
    lines = [line for line in lines if len(line[2])]
    if not lines:
        return None
    shared = [series(of.records, panel.shares_with, x)[1] for _, of in logged] if panel.shares_with else []
    y = _axis(panel.kind, np.concatenate([values for *_, values in lines] + shared))
    chart = Chart(Axis(0, max(float(at.max()) for _, _, at, _ in lines) or 1, x), y)
    told = []
    for index, workdir, at, values in lines:
        told.append(f'{workdir.letter}: {_in_words(panel, at, values, x, y.words)}')
        if panel.key.startswith('train/'):
            at, values = _thinned(at, values, x)
        chart.line(at, values, f'run{index}')
        if len(at) <= _MARKED:
            chart.points(at, values, f'run{index}')
        elif panel.best:
            best = int(panel.best(values))
            chart.points(at[best : best + 1], values[best : best + 1], f'run{index}')
    name = f'{name}-{panel.key.replace("/", "-")}'
    title = panel.title + (', logarithmic' if y.log else '')
    caption = tag('figcaption', [tag('span', words) for words in told])
    return tag('figure', tag('h3', title), chart.draw(name, title, '; '.join(told)), caption)


def _axis(kind: str, values: np.ndarray) -> Axis:
    """From nothing to all there is; a loss that starts far above the rest is logarithmic, and says so."""
    if kind == 'share':
        return Axis(0, 1, 'share', percent)
    top = float(values.max())
    if kind == 'loss' and values.min() > 0 and top > 20 * np.median(values):
        return Axis(float(values.min()), top, 'loss', plain, log=True)
    low = min(0.0, float(values.min()))
    return Axis(low, top + 0.04 * (top - low) if top > low else low + 1, kind, plain)


def _thinned(at: np.ndarray, values: np.ndarray, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Means over epochs where each has several points, else over so many neighbours that a line is readable."""
    if x == 'epoch' and len(at) >= 3 * np.ceil(at.max()) and at.max() >= 3:
        return per_epoch(at, values)
    group = np.arange(len(at)) // max(1, -(-len(at) // _POINTS))
    counts = np.bincount(group)
    return np.bincount(group, at) / counts, np.bincount(group, values) / counts


def _in_words(panel: _Panel, at: np.ndarray, values: np.ndarray, x: str, words: Callable[[float], str]) -> str:
    if panel.best:
        best = int(panel.best(values))
        return f'best {words(values[best])} at {x} {at[best]:.4g}, last {words(values[-1])}'
    if panel.key == 'learning_rate':
        return f'{words(values[0])} to {words(values[-1])}, at most {words(values.max())}'
    return f'first {words(values[0])}, last {words(values[-1])}'
