"""The worst mistakes: wrong, and surest of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_jax.evaluation.mistakes import Mistakes
from fer_jax.evaluation.paired import Answers
from fer_jax.reports._faces import pick_confident_errors
from fer_jax.reports.page.elements import Element, section, table, tag
from fer_jax.reports.page.faces import map_picture, picture, place_in_words
from fer_jax.reports.page.scores import titled
from fer_jax.reports.page.workdirs import ALL_FOLDS, Workdir

WORST = 24


def worst(answers: Answers) -> np.ndarray:
    """The rows of the mistakes that are shown, the surest first."""
    return pick_confident_errors(answers.probabilities, answers.labels, WORST)


def mistakes_section(workdirs: Sequence[Workdir]) -> Element | None:
    """Faces with two maps each, where the class that was named was seen and where the true one; of all workdirs."""
    shown = [(index, workdir) for index, workdir in enumerate(workdirs) if workdir.answers]
    if not shown:
        return None
    words = (
        f'The up to {WORST} wrong answers of each ensemble that are most confident. Some labels are wrong themselves. '
        'Maps are Grad-CAM on the last convolutional features, without test-time views: bright is where the network '
        'saw the class that is named under it, as a share of the brightest place of that map.'
    )
    tested = [workdir.letter for _, workdir in shown if workdir.split in ('test', ALL_FOLDS)]
    if tested:
        words += f' Those of {", ".join(tested)} are test images: what is changed because of them is chosen on test.'
    parts = [_of_workdir(workdir, index) for index, workdir in shown]
    return section('mistakes', 'Worst mistakes', tag('p', words, class_='muted'), parts)


def _of_workdir(workdir: Workdir, index: int) -> list[Element | None]:
    rows = worst(workdir.answers)
    total = int((~workdir.answers.correct).sum())
    title = titled(workdir, index)
    count = tag('p', f'{len(rows)} of {total:,} mistakes among {len(workdir.answers.labels):,} images, {workdir.who}.')
    if not len(rows):
        return [title, tag('p', 'No mistake.')]
    if workdir.mistakes is None:
        reason = workdir.why_no_faces or 'No faces and maps are kept in this workdir.'
        return [title, count, tag('p', reason, class_='notes'), _as_table(workdir, rows)]
    found = {identity: place for place, identity in enumerate(workdir.mistakes.ids.tolist())}
    kept = workdir.mistakes
    cards = [_card(workdir.answers, int(row), kept, found.get(str(workdir.answers.ids[row]))) for row in rows]
    note = tag('p', workdir.why_no_faces, class_='notes') if workdir.why_no_faces else None
    if 0 < kept.shown_members < len(kept.members):
        count.text += f' The maps are of the {kept.shown_members} members that have the first one’s network.'
    return [title, count, note, tag('ul', cards, class_='faces')]


def _card(answers: Answers, row: int, kept: Mistakes, place: int | None) -> Element:
    names = answers.class_names
    taken, true = names[int(answers.predicted[row])], names[int(answers.labels[row])]
    identity = str(answers.ids[row])
    if place is None:
        pictures = [tag('span', 'no picture', class_='no-picture')]
    else:
        maps = ((taken, kept.saw_predicted[place]), (true, kept.saw_true[place])) if kept.shown_members else ()
        face = picture(kept.images[place], f'Face labelled {true}, taken for {taken}')
        pictures = [tag('figure', face, tag('figcaption', 'the face'))]
        pictures += [_map(kept.images[place], heat, name) for name, heat in maps]
    told = tag(
        'p',
        tag('b', true),
        ' taken for ',
        tag('b', taken, class_='wrong'),
        f', {100 * answers.confidence[row]:.1f} %',
        tag('small', f'{true} {100 * answers.probabilities[row, answers.labels[row]]:.1f} % · {identity}'),
    )
    return tag('li', tag('div', pictures, class_='three'), told)


def _map(image: np.ndarray, heat: np.ndarray, name: str) -> Element:
    where = place_in_words(heat)
    alt = f'Where {name} was seen, most at the {where}' if where else f'Nothing in the face speaks for {name}'
    return tag('figure', map_picture(image, heat, alt), tag('figcaption', f'{name} here' if where else f'no {name}'))


def _as_table(workdir: Workdir, rows: np.ndarray) -> Element:
    answers = workdir.answers
    cells = [
        [
            str(answers.ids[row]),
            answers.class_names[int(answers.labels[row])],
            answers.class_names[int(answers.predicted[row])],
            f'{100 * answers.confidence[row]:.1f}',
        ]
        for row in rows
    ]
    return table(
        f'Worst mistakes of {workdir.name}', ['image', 'label', 'taken for', 'confidence %'], cells, numbers=(3,)
    )
