"""report.md and figures/ of a cross-validation, made from the files that its folds left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.evaluation.folds import fold_directory, read_folds_json
from fer_jax.reports import _markdown, _style, figures
from fer_jax.reports.tables import duration, markdown_table, mean_and_sd, plain_table

Folds = Mapping[str, Any]

_COLUMNS = (
    'classifier',
    'accuracy %, mean ± sd over folds',
    'macro F1, mean ± sd over folds',
    'pooled accuracy %',
    '95 % interval',
    'pooled macro F1',
    'NLL',
    'ECE %',
)


def write_folds_report(workdir: str | os.PathLike[str]) -> Path:
    """Writes `report.md` and `figures/*.png` of a cross-validation from its `folds.json` and its runs' config.json.

    Returns:
        The path of the report.

    Raises:
        UserError: if `folds.json` is missing or damaged.
    """
    workdir = Path(workdir)
    folds = read_folds_json(workdir)
    config = json.loads((fold_directory(workdir, 0) / 'config.json').read_text(encoding='utf-8'))
    config = {**config, 'seconds': sum(fold['seconds'] for fold in folds['folds'])}
    pooled = {
        'single': folds['single']['pooled'],
        'ensemble': {**folds['ensemble']['pooled'], 'members': _members(folds)},
    }
    sections = [
        f'# {folds["dataset"]}: {folds["num_folds"]} folds by {folds["by"]}\n',
        '## Results\n\n' + markdown_table(_COLUMNS, _rows(folds), right=range(1, len(_COLUMNS))),
        _how_to_read(folds),
        _protocol(folds),
        '## Folds\n\n' + _per_fold(folds),
        '## Classes\n',
        _markdown.per_class('all folds pooled', pooled),
        _markdown.model(config),
        _markdown.how_it_was_run(config, {'pooled': folds}),
        _markdown.pictures({'All folds pooled': _draw(workdir, folds)}),
    ]
    path = workdir / 'report.md'
    aside = path.with_name(path.name + '.partial')
    aside.write_text('\n'.join(section for section in sections if section), encoding='utf-8')
    os.replace(aside, path)
    return path


def folds_table(folds: Folds) -> str:
    """The scores of a cross-validation as plain text, for the terminal."""
    return plain_table(_COLUMNS, _rows(folds), left=1)


def _members(folds: Folds) -> int:
    return folds['folds'][0]['ensemble']['members']


def _rows(folds: Folds) -> list[list[str]]:
    """An ensemble of one is that member, and gets no row of its own."""
    members = _members(folds)
    names = {'single': 'best single' if folds['validation'] else 'last member', 'ensemble': f'ensemble of {members}'}
    if members == 1:
        names = {'single': 'only member'}
    rows = []
    for kind, name in names.items():
        of, pooled = folds[kind], folds[kind]['pooled']
        low, high = pooled['accuracy_ci95_units']
        rows.append(
            [
                name,
                mean_and_sd(of['accuracy'], percent=True),
                mean_and_sd(of['macro_f1'], percent=False),
                f'{100 * pooled["accuracy"]:.2f}',
                f'{100 * low:.2f} to {100 * high:.2f}',
                f'{pooled["macro_f1"]:.4f}',
                f'{pooled["nll"]:.4f}',
                f'{100 * pooled["ece"]:.2f}',
            ]
        )
    return rows


def _how_to_read(folds: Folds) -> str:
    text = (
        'Pooled: every image once, with the prediction of the run that did not see it. The interval is a percentile '
        f'bootstrap (2,000 resamples) that draws whole {folds["by"]}s. The standard deviation has n - 1. Macro F1 is '
        'the mean over all classes, those that a fold has no image of included.\n'
    )
    absent = {fold['fold']: fold['absent'] for fold in folds['folds'] if fold['absent']}
    for fold, names in absent.items():
        text += (
            f'Fold {fold} tests no image of {", ".join(names)}, which lowers its macro F1; the pooled one is whole.\n'
        )
    return text


def _protocol(folds: Folds) -> str:
    chosen = (
        'In each fold, step and member were chosen on the fold after the tested one, which was not trained on.'
        if folds['validation']
        else 'In each fold all the others were trained on, and nothing was chosen: the last member is read.'
    )
    kept = {
        'image': 'Images were drawn one by one: the same person, and frames of the same sequence where there are '
        'several, are in training and in test.',
        'sequence': 'No sequence is in training and in test; the same person can be.',
        'subject': 'Nobody is in training and in test.',
    }[folds['by']]
    return (
        f'## Protocol\n\n- {chosen}\n- {kept} There are {folds["num_units"]:,} {folds["by"]}s.\n'
        f'- All {folds["num_examples"]:,} images were tested, each once.\n'
    )


def _per_fold(folds: Folds) -> str:
    several = _members(folds) > 1
    header = ['fold', 'images', 'step', 'accuracy %', 'macro F1', *['ensemble accuracy %'] * several, 'time']
    rows = [
        [
            str(fold['fold']),
            f'{fold["num_examples"]:,}',
            f'{fold["step"]:,}',
            f'{100 * fold["single"]["accuracy"]:.2f}',
            f'{fold["single"]["macro_f1"]:.4f}',
            *[f'{100 * fold["ensemble"]["accuracy"]:.2f}'] * several,
            duration(fold['seconds']),
        ]
        for fold in folds['folds']
    ]
    return markdown_table(header, rows, right=range(len(header)))


def _draw(workdir: Path, folds: Folds) -> list[str]:
    members, names = _members(folds), []
    who = f'ensemble of {members} members' if members > 1 else '1 member'
    subtitle = (
        f'{folds["dataset"]} · {folds["num_folds"]} folds by {folds["by"]} · n = {folds["num_examples"]:,} · {who}'
    )
    pooled = folds['ensemble']['pooled']

    def place(name: str) -> Path:
        names.append(f'{name}.png')
        return workdir / 'figures' / names[-1]

    confusion = np.array(pooled['confusion'])
    figures.confusion(confusion, folds['class_names'], place('confusion_counts'), subtitle=subtitle)
    figures.confusion(confusion, folds['class_names'], place('confusion_ratios'), subtitle=subtitle, ratios=True)
    figures.f1_per_class({'pooled': pooled['per_class']}, place('f1_per_class'), subtitle=subtitle)
    draw_accuracies([fold['ensemble']['accuracy'] for fold in folds['folds']], place('accuracies'), subtitle=subtitle)
    return names


def draw_accuracies(accuracies: Sequence[float], path: str | os.PathLike[str], *, subtitle: str) -> Path:
    """Draws the accuracy of each fold as a point, with their mean as a line and its standard deviation as a band."""
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    figure = _style.canvas(max(0.55 * len(accuracies) + 2, 6.4), 4.2, 'Accuracy of each fold', subtitle)
    axes = figure.subplots()
    _style.tidy(axes, grid='y')
    label = f'mean {100 * mean:.2f} %, standard deviation {100 * deviation:.2f}'
    axes.axhspan(mean - deviation, mean + deviation, color=_style.SKY, alpha=0.25, linewidth=0)
    axes.axhline(mean, color=_style.BLUE, linewidth=1.5, label=label)
    axes.scatter(range(len(accuracies)), accuracies, s=60, color=_style.BLUE, zorder=3, clip_on=False)
    for fold, accuracy in enumerate(accuracies):
        axes.annotate(
            f'{100 * accuracy:.1f}',
            (fold, accuracy),
            (0, 9),
            textcoords='offset points',
            ha='center',
            fontsize=8.5,
            color=_style.INK,
        )
    room = max(0.02, 0.15 * (max(accuracies) - min(accuracies)))
    axes.set_ylim(max(0.0, min(*accuracies, mean - deviation) - room), max(*accuracies, mean + deviation) + room)
    axes.set_xlim(-0.6, len(accuracies) - 0.4)
    _style.class_ticks(axes, [str(fold) for fold in range(len(accuracies))])
    axes.set_xlabel('fold')
    axes.set_ylabel('accuracy')
    _style.in_percent(axes.yaxis)
    axes.legend(frameon=False, fontsize=9, loc='lower left', bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return _style.save(figure, path)
