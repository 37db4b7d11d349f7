"""What was scored: the table, every class, and what is taken for what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.reports.page.elements import Child, Element, scrolling, section, table, tag, titled_by
from fer_jax.reports.page.workdirs import ALL_FOLDS, Workdir
from fer_jax.reports.tables import SCORE_COLUMNS, mean_and_sd, score_rows


def badge(workdir: Workdir, index: int) -> Element:
    """The letter of a workdir in its colour."""
    return tag('b', workdir.letter, class_=f'badge run{index}')


def titled(workdir: Workdir, index: int, level: str = 'h3') -> Element:
    """A heading for one workdir's part of a section."""
    return tag(level, badge(workdir, index), ' ', workdir.name)


def scores_section(workdirs: Sequence[Workdir]) -> Element | None:
    """All splits that have been scored, the one that is shown first, with how often each was read."""
    entries = [(index, of, split, entry) for index, of in enumerate(workdirs) for split, entry in of.scores.items()]
    if not entries:
        return None
    several = any(entry['ensemble']['members'] > 1 for *_, entry in entries)
    twins = any(entry['num_twins'] for *_, entry in entries)
    shown = [column for column, name in enumerate(SCORE_COLUMNS) if twins or 'twins' not in name]
    rows = [
        [[badge(workdir, index), ' ', workdir.name], *(cells[column] for column in shown), _readings(entry)]
        for index, workdir, split, entry in entries
        for cells in score_rows({split: entry})
    ]
    header = ['workdir', *(SCORE_COLUMNS[column] for column in shown), 'readings']
    folds = [_over_folds(workdir, index) for index, workdir in enumerate(workdirs) if workdir.kind == 'folds']
    words = [
        'An ensemble is the mean of its members’ probabilities. A best single member was chosen by its accuracy on '
        'validation, which is therefore flattering there. '
        if several
        else '',
        'Intervals are percentile bootstraps over examples (2,000 resamples); they say nothing of other seeds. '
        'Macro F1 is the mean over all classes. ECE has 15 bins of equal width. ',
        '“Without twins” leaves out the images that also are in training, pixel for pixel. ' if twins else '',
        'Readings: how often this directory has scored the split; this page scores none.',
    ]
    scores = table('Scores of every split that has been read', header, rows, numbers=range(3, len(header)))
    return section('scores', 'Scores', scores, tag('p', words, class_='muted'), folds)


def _readings(entry: Mapping[str, Any]) -> str:
    return f'{entry.get("readings", "-")}' + (' per fold, at most' if 'folds' in entry else '')


def _over_folds(workdir: Workdir, index: int) -> list[Element]:
    folds = workdir.entry['folds']
    rows = [
        [kind, mean_and_sd(folds[kind]['accuracy'], percent=True), mean_and_sd(folds[kind]['macro_f1'], percent=False)]
        for kind in ('single', 'ensemble')[: 1 + (workdir.entry['ensemble']['members'] > 1)]
    ]
    words = f'{workdir.name}: {folds["num_folds"]} folds by {folds["by"]}, mean ± standard deviation over folds'
    header = ['classifier', 'accuracy %', 'macro F1']
    note = (
        'Above, all folds are pooled: every image once, read by the run that has not seen it. The interval draws '
        f'whole {folds["by"]}s.'
    )
    return [titled(workdir, index), table(words, header, rows, numbers=(1, 2)), tag('p', note, class_='muted')]


def classes_section(workdirs: Sequence[Workdir]) -> Element | None:
    """Precision, recall and F1 of every class; workdirs with the same classes stand side by side."""
    groups = list(_of_same_classes(workdirs))
    if not groups:
        return None
    return section('classes', 'Classes', [_classes_table(names, group) for names, group in groups])


def _of_same_classes(workdirs: Sequence[Workdir]) -> Iterator[tuple[tuple[str, ...], list[tuple[int, Workdir]]]]:
    groups: dict[tuple[str, ...], list[tuple[int, Workdir]]] = {}
    for index, workdir in enumerate(workdirs):
        if workdir.entry:
            groups.setdefault(tuple(workdir.entry['class_names']), []).append((index, workdir))
    yield from groups.items()


def _classes_table(names: Sequence[str], group: Sequence[tuple[int, Workdir]]) -> Element:
    several = len(group) > 1
    header, above = ['class'], [('', 1)]
    for index, workdir in group:
        header += ['examples', 'precision', 'recall', 'F1']
        above.append(([badge(workdir, index), f' {workdir.name}, {workdir.who}'], 4))
    rows: list[list[Child]] = [[name] for name in names]
    rows.append([tag('i', 'mean')])
    for _, workdir in group:
        scores = [workdir.entry['ensemble']['per_class'][name] for name in names]
        for row, of in zip(rows, scores, strict=False):
            row += [f'{of["support"]:,}', *(f'{of[key]:.4f}' for key in ('precision', 'recall', 'f1'))]
        means = [np.mean([of[key] for of in scores]) for key in ('precision', 'recall', 'f1')]
        rows[-1] += [f'{sum(of["support"] for of in scores):,}', *(f'{mean:.4f}' for mean in means)]
    splits = ' and '.join(dict.fromkeys(_split_words(workdir) for _, workdir in group))
    words = f'Precision, recall and F1 per class on {splits}' + (f', {len(group)} workdirs' if several else '')
    return table(words, header, rows, numbers=range(1, len(header)), groups=above)


def _split_words(workdir: Workdir) -> str:
    return 'all folds pooled' if workdir.split == ALL_FOLDS else workdir.split


def confusion_section(workdirs: Sequence[Workdir]) -> Element | None:
    """The confusion matrix of each ensemble, counts and per cent of each true class."""
    parts = [_confusion(workdir, index) for index, workdir in enumerate(workdirs) if workdir.entry]
    if not parts:
        return None
    words = 'A row is a true class, a column what it was taken for: the number of images, and per cent of the row.'
    return section('confusion', 'Confusion', tag('p', words, class_='muted'), tag('div', parts, class_='side-by-side'))


def _confusion(workdir: Workdir, index: int) -> Element:
    entry = workdir.entry
    counts = np.array(entry['ensemble']['confusion'])
    names, support = entry['class_names'], counts.sum(axis=1)
    columns = [tag('th', tag('span', name), scope='col', class_='turned') for name in names]
    head = tag('tr', tag('th', 'true \\ predicted', scope='col'), columns)
    body = []
    for row, name in enumerate(names):
        cells = [_cell(int(counts[row, column]), int(support[row]), row == column) for column in range(len(names))]
        label = tag('th', name, tag('small', f'n = {support[row]:,}'), scope='row')
        body.append(tag('tr', label, cells))
    words = f'Confusion of {workdir.name} on {_split_words(workdir)}, {workdir.who}, {entry["num_examples"]:,} images'
    made = tag('table', titled_by(words), tag('thead', head), tag('tbody', body), class_='confusion')
    return tag('div', titled(workdir, index), scrolling(words, made))


def _cell(count: int, support: int, right: bool) -> Element:
    share = count / support if support else 0.0
    inside = [f'{count:,}', tag('small', f'{100 * share:.1f} %')] if support else '–'
    return tag('td', inside, style=f'--share:{share:.3f}', class_='right' if right else None)
