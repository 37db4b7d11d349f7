"""What each row of a table changes against another one: paired over seeds, with what it was trained without or with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fer_jax.reports.tables import markdown_table, mean_and_interval

FILTERED = (
    'The last column is **no result**: accuracy on a validation set from which an audit has removed what looks wrong, '
    'as seed 001 measured. It is there to be compared with the column before it, of the same networks on all of that '
    'set. Nothing is chosen by it, and no image is missing from any other number.'
)


@dataclasses.dataclass(frozen=True)
class Effect:
    """A line of such a table; lists have one entry per seed, and are empty where there is nothing to say.

    Attributes:
        name: what was trained.
        baseline: the row that it is compared with; '' for none.
        differences: to its accuracies, fractions, under the same seeds.
        accuracies: fractions on `split`.
        split: that all were read on.
        trained_on: training images.
        left_out: how many images an audit took from them.
        wrong: how many of those had a wrong label, where the truth is known.
        added: how many images were added.
        honest: validation accuracy, on all of validation.
        filtered: the same on what an audit leaves of it.
        kept: share of validation that it leaves.
    """

    name: str
    baseline: str
    differences: Sequence[float] = ()
    accuracies: Sequence[float] = ()
    split: str = 'test'
    trained_on: Sequence[int] = ()
    left_out: Sequence[int] = ()
    wrong: Sequence[int] = ()
    added: Sequence[int] = ()
    honest: Sequence[float] = ()
    filtered: Sequence[float] = ()
    kept: Sequence[float] = ()


def effects_table(effects: Sequence[Effect]) -> str:
    """A markdown table in per cent and points: means over seeds, the effect with the 95 % interval of its mean."""
    marked = any(effect.filtered for effect in effects)
    header = ['row', 'accuracy', 'effect, points (95 %)', 'per seed', 'against', 'trained on', 'left out']
    header += ['wrong among them', 'added', 'validation'] + ['*filtered* validation, no result'] * marked
    cells = [_cells(effect)[: len(header)] for effect in effects]
    text = markdown_table(header, cells, right=(1, 2, 5, 6, 7, 8, 9, 10))
    return text + f'\n{FILTERED}\n' * marked


def _cells(effect: Effect) -> list[str]:
    differences = [100 * difference for difference in effect.differences]
    wrong = [100 * wrong / out for wrong, out in zip(effect.wrong, effect.left_out, strict=False) if out]
    filtered = _percent(effect.filtered)
    if effect.filtered:
        filtered = f'*{filtered} on {100 * np.mean(effect.kept):.1f} % of it*'
    return [
        effect.name,
        f'{_percent(effect.accuracies)} ({effect.split})' if effect.accuracies else '-',
        _difference(differences),
        ' '.join(f'{value:+.2f}' for value in differences) or '-',
        effect.baseline or '-',
        _count(effect.trained_on),
        _count(effect.left_out),
        f'{np.mean(wrong):.1f} %' if wrong else '-',
        _count(effect.added),
        _percent(effect.honest),
        filtered,
    ]


def _difference(differences: Sequence[float]) -> str:
    if not differences:
        return '-'
    mean, half = mean_and_interval(differences)
    return f'{mean:+.2f} ± -' if half is None else f'{mean:+.2f} ± {half:.2f}'


def _percent(values: Sequence[float]) -> str:
    return f'{100 * np.mean(values):.2f}' if len(values) else '-'


def _count(values: Sequence[int]) -> str:
    return f'{round(np.mean(values)):,}' if len(values) else '-'
