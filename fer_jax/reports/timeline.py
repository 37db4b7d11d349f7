"""A film's timeline: what each person's face said over time, drawn from the CSV that `predict` writes."""

from __future__ import annotations

import collections
import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_jax.reports import _style

MOST_PEOPLE = 8
_COLOURS = {
    'anger': _style.VERMILLION,
    'contempt': '#8C6BB1',
    'disgust': _style.GREEN,
    'fear': '#CC79A7',
    'happiness': _style.ORANGE,
    'neutral': '#9AA0A6',
    'sadness': _style.BLUE,
    'surprise': _style.SKY,
}
_OTHERS = ('#E69F00', '#56B4E9', '#009E73', '#D55E00', '#0072B2', '#CC79A7', '#8C6BB1', '#9AA0A6')
_PANEL_INCHES = 1.15


def class_colours(class_names: Sequence[str]) -> dict[str, str]:
    """A colour for each class, the same for the same emotion wherever it is drawn."""
    if all(name in _COLOURS for name in class_names):
        return {name: _COLOURS[name] for name in class_names}
    return {name: _OTHERS[index % len(_OTHERS)] for index, name in enumerate(class_names)}


def draw_timeline(table: str | os.PathLike[str], path: str | os.PathLike[str], title: str) -> Path:
    """Draws the table (columns time, person, probability_CLASS …) as shares over time, a panel per person.

    Of more than MOST_PEOPLE those who were seen most often are drawn, in the order of their numbers.
    """
    people = collections.defaultdict(list)
    with open(table, encoding='utf-8', newline='') as file:
        reader = csv.DictReader(file)
        columns = [name for name in reader.fieldnames if name.startswith('probability_')]
        for row in reader:
            people[int(row['person'])].append([float(row[name]) for name in ('time', *columns)])
    names = [name.removeprefix('probability_') for name in columns]
    drawn = sorted(sorted(people, key=lambda number: -len(people[number]))[:MOST_PEOPLE])
    rows = max(1, len(drawn))
    subtitle = f'{len(people)} people' if len(people) != 1 else 'one person'
    subtitle += f', the {len(drawn)} seen most often' if len(drawn) < len(people) else ''
    figure = _style.canvas(9, 1.5 + _PANEL_INCHES * rows, title, f'{subtitle}; smoothed probabilities')
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    colours = class_colours(names)
    gap = _gap(people)
    for axes, number in zip(panels, drawn, strict=False):
        times, *shares = np.array(people[number]).T
        for part in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > gap) + 1):
            # A single look is drawn as wide as a look is, or it could not be seen.
            here = times[part] if len(part) > 1 else times[part[0]] + np.array([0, gap / 3])
            there = [np.resize(share[part], len(here)) for share in shares]
            axes.stackplot(here, there, colors=[colours[name] for name in names], linewidth=0)
        axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        axes.set_ylabel(f'person {number}', fontsize=9)
        _style.tidy(axes)
        _style.in_percent(axes.yaxis)
    panels[-1].set_xlabel('seconds', fontsize=9)
    swatches = [panels[0].fill_between([], [], color=colours[name], label=_style.plain(name)) for name in names]
    figure.legend(handles=swatches, loc='outside lower center', ncols=min(8, len(names)), frameon=False, fontsize=9)
    return _style.save(figure, path)


def _gap(people: dict[int, list[list[float]]]) -> float:
    """Seconds from which on a person was away: three times the usual pause between looks."""
    times = np.unique([row[0] for rows in people.values() for row in rows])
    return 3 * float(np.median(np.diff(times))) if len(times) > 1 else 1.0
