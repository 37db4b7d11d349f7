"""audit.md and figures of an audit, made from what its methods said."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fer_jax.data.dataset import Split
from fer_jax.evaluation.audit import Audit, FlagsN
from fer_jax.reports import _suspects
from fer_jax.reports.tables import duration, markdown_table, plain_table

RowsF = Int[np.ndarray, 'F']

_SHEET = 40  # faces

# Columns, and where audit.json has them in the `detection` of a method.
MEASURES = {
    'AUROC': ('auroc',),
    'average precision': ('average_precision',),
    'precision': ('flags', 'precision'),
    'recall': ('flags', 'recall'),
    'F1': ('flags', 'f1'),
    'F1 at the true rate': ('true_rate', 'f1'),
    'relabel accuracy': ('relabel_accuracy',),
}
COLUMNS = ('method', 'scored', 'flagged', *MEASURES, 'trained', 'judged')


@dataclasses.dataclass(frozen=True)
class Suspects:
    """What a method said of a split.

    Attributes:
        method: its name.
        audit: of the images that it scored.
        scored_N: which of all those are.
    """

    method: str
    audit: Audit
    scored_N: FlagsN

    def flagged(self) -> RowsF:
        """The rows of the flagged images in the split, the most suspect first."""
        flagged = np.flatnonzero(self.audit.flags)
        order = np.argsort(-self.audit.scores[flagged], kind='stable')
        return np.flatnonzero(self.scored_N)[flagged[order]]

    def of(self, rows: RowsF) -> tuple[np.ndarray, np.ndarray]:
        """Score and suggested class of some rows that were scored."""
        places = (np.cumsum(self.scored_N) - 1)[rows]
        return self.audit.scores[places], self.audit.suggested[places]


def write_audit_report(
    output: str | os.PathLike[str], told: Mapping[str, Any], found: Mapping[str, Suspects], split: Split, page: Path
) -> str:
    """Writes `audit.md` and `figures/*.png`.

    Args:
        told: audit.json.
        found: by method, those of this call; audit.md has the tables of earlier ones too.
        split: the training split.
        page: the review page, for the link.

    Returns:
        The table of methods as plain text.
    """
    output, names = Path(output), told['manifest']['class_names']
    truth = split.extra.get('true_label')
    wrong_N = None if truth is None or not (truth != split.labels).any() else truth != split.labels
    pictures = [name for suspects in found.values() for name in _draw(output, told, suspects, split, wrong_N)]
    curves = {name: (of.audit, wrong_N[of.scored_N]) for name, of in found.items()} if wrong_N is not None else {}
    curves = {name: of for name, of in curves.items() if of[1].any()}  # which it may have left unscored
    if curves:
        title, subtitle = 'What is found, and at which price', f'{_subtitle(told, split)} · points: what is flagged'
        path = output / 'figures' / 'precision_recall.png'
        _suspects.precision_recall(curves, path, title=title, subtitle=f'{subtitle}; n: images that are scored')
        pictures.append(path.name)
    rows = method_rows(told['methods'])
    sections = [
        f'# Audit of the training labels of {told["manifest"]["dataset"]}\n',
        f'{len(split):,} images. No image of validation or test is judged.\n',
        '## Methods\n\n' + markdown_table(COLUMNS, rows, right=range(1, len(COLUMNS))),
        _rules(told['methods']),
        '## Flagged per class\n\n' + _per_class(told['methods'], names),
        _how_to_use(told['methods'][next(iter(found))]['file'], page),
        f'## How it was run\n\n```\n{told["command"]}\n```\n\nData manifest {told["manifest_hash"]}, labels '
        f'{told["labels_hash"]}, git revision {told["git_revision"]}; audit.json has the rest.\n',
        '## Figures\n\n' + '\n'.join(f'![{name.removesuffix(".png")}](figures/{name})\n' for name in pictures),
    ]
    aside = output / 'audit.md.partial'
    aside.write_text('\n'.join(section for section in sections if section), encoding='utf-8')
    os.replace(aside, output / 'audit.md')
    return f'{plain_table(COLUMNS, rows, left=1)}\nreport: {output / "audit.md"}   page: {page}'


def method_rows(methods: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the table of methods, '-' where the truth is not known."""
    number = lambda value: '-' if value is None else f'{value:.4f}'
    rows = []
    for name, of in methods.items():
        counts = [f'{of["scored"]:,}', f'{of["flagged"]:,}']
        seconds = [duration(of[key]) for key in ('training_seconds', 'seconds')]
        rows.append([name, *counts, *map(number, measures(of).values()), *seconds])
    return rows


def measures(told: Mapping[str, Any]) -> dict[str, float | None]:
    """What audit.json says of how well a method finds what is wrong, by `MEASURES`; None where it cannot be said."""
    known = told['detection'] or {}
    return {name: functools.reduce(lambda of, key: (of or {}).get(key), path, known) for name, path in MEASURES.items()}


def _rules(methods: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, of in methods.items():
        line = f'- {name} flags an image where {of["rule"]}.'
        if of.get('folds'):
            line += f' Predictions are out of fold: {of["folds"]["count"]} folds by {of["folds"]["by"]}.'
        if of['not_scored_classes']:
            line += (
                f' {of["images"] - of["scored"]:,} images are not scored: no pair translates '
                f'{", ".join(of["not_scored_classes"])}.'
            )
        lines.append(line)
    if any(of['detection'] for of in methods.values()):
        lines.append(
            '\nThe true labels are known here. Precision, recall and F1 are of the flags; at the true rate, of as many '
            'of the highest scores as labels are wrong. Relabel accuracy: where a label is wrong, how often the '
            'suggested one is right.'
        )
    lines.append('\nTrained: the networks that a method goes by, which methods share; judged: the rest of its time.')
    return '\n'.join(lines) + '\n'


def _per_class(methods: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    rows = [
        [name, *(f'{of["flagged_per_class"][name]:,} of {of["scored_per_class"][name]:,}' for of in methods.values())]
        for name in names
    ]
    return markdown_table(['class', *methods], rows, right=range(1, len(methods) + 1))


def _how_to_use(file: str, page: Path) -> str:
    return (
        f'## What to do with it\n\n- Leave the flagged images out of training: `--config.data.exclude=DIR/{file}` '
        f'(DIR: this directory).\n- Look at them first: open [{page.name}]({page.name}) in a browser, keep, relabel or '
        'drop, and give the file that it exports instead.\n'
    )


def _draw(
    output: Path, told: Mapping[str, Any], suspects: Suspects, split: Split, wrong_N: np.ndarray | None
) -> list[str]:
    name, names = suspects.method, told['manifest']['class_names']
    subtitle, scored_N = _subtitle(told, split), suspects.scored_N
    subtitle += '' if scored_N.all() else f', of which {scored_N.sum():,} are scored'
    paths = [output / 'figures' / f'{name}_scores.png']
    _suspects.score_histograms(
        suspects.audit,
        split.labels[scored_N],
        names,
        paths[0],
        title=f'Scores of {name}',
        subtitle=subtitle,
        threshold=told['methods'][name]['threshold'],
        wrong_N=None if wrong_N is None else wrong_N[scored_N],
    )
    rows = suspects.flagged()[:_SHEET]
    if len(rows):
        captions = [
            (names[split.labels[row]], names[suggested] if suggested >= 0 else '', float(score))
            for row, score, suggested in zip(rows, *suspects.of(rows), strict=True)
        ]
        paths.append(output / 'figures' / f'{name}_suspects.png')
        title = f'The {len(rows)} most suspect labels, by {name}'
        words = f'{subtitle} · bold: the label; below: what is suggested, and the score'
        _suspects.suspect_faces(np.asarray(split.images[rows]), captions, paths[1], title=title, subtitle=words)
    return [path.name for path in paths]


def _subtitle(told: Mapping[str, Any], split: Split) -> str:
    return f'{told["manifest"]["dataset"]} · training · n = {len(split):,}'
