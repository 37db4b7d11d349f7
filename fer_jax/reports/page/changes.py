"""What the workdirs after the first mend and break, on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.evaluation.paired import Answers, Change, compare, why_not_comparable
from fer_jax.reports.page.elements import Element, section, table, tag
from fer_jax.reports.page.faces import Faces
from fer_jax.reports.page.scores import badge
from fer_jax.reports.page.workdirs import Workdir

EXAMPLES = 8  # faces of what was mended, and of what was broken
_HALF = 50  # per cent of the width of a change's track, from its middle


def why_not_subtracted(first: Workdir, other: Workdir) -> str:
    """Why two workdirs are not subtracted from each other; '' where they are."""
    for workdir in (first, other):
        if workdir.answers is None:
            return f'{workdir.letter} has no predictions here'
    if first.entry['manifest'] != other.entry['manifest']:
        return 'they were read on other data'
    return why_not_comparable(first.answers, other.answers)


def surest(answers: Answers, chosen_N: np.ndarray, most: int = EXAMPLES) -> np.ndarray:
    """The rows of the chosen answers, the surest first."""
    rows = np.flatnonzero(chosen_N)
    return rows[np.argsort(-answers.confidence[rows], kind='stable')][:most]


def changes_section(workdirs: Sequence[Workdir]) -> Element | None:
    """Each workdir against the first; None for a single one."""
    compared = [(index, of) for index, of in enumerate(workdirs) if of.entry]
    if len(compared) < 2:
        return None
    (at, first), *others = compared
    parts = [_change(first, at, other, index) for index, other in others]
    words = (
        f'Each against {first.letter}, the one named first, on the same images: fixed are those that {first.letter} '
        'got wrong and the other right, broken the reverse. McNemar’s exact test asks how often so uneven a split of '
        'the changed answers would come about if both were equally good. It is about these trained networks on these '
        'images, and says nothing of other seeds. Not corrected for several comparisons.'
    )
    return section('changes', 'Changes', tag('p', words, class_='muted'), parts)


def _change(first: Workdir, at: int, other: Workdir, index: int) -> list[Element]:
    title = tag('h3', badge(first, at), ' → ', badge(other, index), f' {other.name}')
    reason = why_not_subtracted(first, other)
    if reason:
        return [title, tag('p', f'Not subtracted: {reason}.', class_='notes')]
    before, after = first.answers, other.answers.in_order_of(first.answers.ids)
    change = compare(before, after)
    pictures = Faces((first, other))
    return [
        title,
        tag('p', _summary(change, first.letter, other.letter)),
        _per_class(change, before, after, first, other),
        _examples(
            f'Fixed by {other.letter}', before, surest(before, change.fixed), pictures, first.letter, other.letter
        ),
        _examples(
            f'Broken by {other.letter}', after, surest(after, change.broken), pictures, other.letter, first.letter
        ),
    ]


def _summary(change: Change, before: str, after: str) -> str:
    fixed, broken = int(change.fixed.sum()), int(change.broken.sum())
    low, high = change.interval
    return (
        f'Accuracy {100 * change.difference:+.2f} points from {before} to {after} (95 % {100 * low:+.2f} to '
        f'{100 * high:+.2f}, bootstrap over images): {fixed:,} fixed, {broken:,} broken, '
        f'{len(change.fixed) - fixed - broken:,} as before; McNemar’s exact p = {p_in_words(change.p_value)}.'
    )


def p_in_words(p_value: float) -> str:
    """Three digits; small ones as a power of ten."""
    return f'{p_value:.3f}' if p_value >= 0.001 else f'{p_value:.1e}'


def _per_class(change: Change, before: Answers, after: Answers, first: Workdir, other: Workdir) -> Element:
    rows, differences = [], []
    for k, name in enumerate(before.class_names):
        of_class = before.labels == k
        count = int(of_class.sum())
        if not count:
            rows.append([name, '0', '–', '–', '–', None, '0', '0'])
            continue
        recalls = [float(answers.correct[of_class].mean()) for answers in (before, after)]
        differences.append(recalls[1] - recalls[0])
        rows.append(
            [
                name,
                f'{count:,}',
                *(f'{100 * recall:.2f}' for recall in recalls),
                f'{100 * differences[-1]:+.2f}',
                differences[-1],
                f'{int((change.fixed & of_class).sum()):,}',
                f'{int((change.broken & of_class).sum()):,}',
            ]
        )
    widest = max(map(abs, differences), default=0) or 1
    rows = [[_track(cell, widest) if column == 5 else cell for column, cell in enumerate(cells)] for cells in rows]
    header = ['class', 'images', f'recall of {first.letter} %', f'of {other.letter} %', 'change']
    header += [f'±{100 * widest:.1f} points', 'fixed', 'broken']
    words = f'Recall per class, from {first.letter} {first.name} to {other.letter} {other.name}, {other.split}'
    return table(words, header, rows, numbers=(1, 2, 3, 4, 6, 7))


def _track(difference: float | None, widest: float) -> Element | None:
    """A bar from the middle, to the right for better; the number beside it says the same."""
    if difference is None:
        return None
    length = _HALF * abs(difference) / widest
    left = _HALF if difference >= 0 else _HALF - length
    bar = tag('span', class_='better' if difference >= 0 else 'worse', style=f'left:{left:.2f}%;width:{length:.2f}%')
    return tag('span', bar, class_='track', aria_hidden='true')


def _examples(
    title: str, wrong: Answers, rows: np.ndarray, pictures: Faces, wrong_letter: str, right_letter: str
) -> Element:
    """Some of what changed, where whoever was wrong was surest."""
    shown: list[Element] = []
    names: Mapping[int, str] = dict(enumerate(wrong.class_names))
    for row in rows:
        taken, true = names[int(wrong.predicted[row])], names[int(wrong.labels[row])]
        sure = f'{100 * wrong.confidence[row]:.0f} %'
        identity = str(wrong.ids[row])
        told = [tag('b', true), f'{wrong_letter}: {taken}, {sure}', tag('small', identity)]
        face = pictures.face(identity, f'Face labelled {true}, which {wrong_letter} took for {taken}')
        shown.append(tag('li', face, tag('p', [tag('span', words) for words in told])))
    if not shown:
        return tag('p', f'{title}: none.')
    words = f'{title}: the {len(shown)} that {wrong_letter} was wrong about and surest of; {right_letter} is right'
    return tag('details', tag('summary', words), tag('ul', shown, class_='faces small'), open='open')
