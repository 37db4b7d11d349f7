"""A model card (Mitchell et al. 2019): what a packed model is, how it was made, and what it scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.config import default_config, flatten
from fer_jax.reports.tables import markdown_table

Runs = Sequence[tuple[str, Mapping[str, Any]]]


def write_card(
    path: Path,
    name: str,
    size: int,
    runs: Runs,
    members: Sequence[str],
    *,
    temperature: float,
    tta: str,
    scores: Mapping[str, Mapping[str, Any]],
    notes: str,
) -> None:
    """Writes the card as Markdown, aside first.

    Args:
        path: of the card.
        name: file name of the model.
        size: in bytes.
        runs: name and config.json of each run.
        members: their names.
        temperature, tta: of the probabilities.
        scores: by split, with the temperature; `before_temperature` holds accuracy, nll and ece without it.
        notes: Markdown, what it is for and its limits, by people.
    """
    sections = [f'# {name}\n', notes.strip() + '\n' if notes else '', _facts(size, runs, members, temperature, tta)]
    sections += [_results(scores), *(_classes(split, entry) for split, entry in scores.items()), _recipe(runs)]
    aside = path.with_name(path.name + '.partial')
    aside.write_text('\n'.join(section for section in sections if section), encoding='utf-8')
    os.replace(aside, path)


def _facts(size: int, runs: Runs, members: Sequence[str], temperature: float, tta: str) -> str:
    described = [run for _, run in runs]
    manifest, first = described[0]['manifest'], described[0]
    prepared = manifest.get('align')
    how = first['preprocessing']
    summary = first.get('model_summary') or {}
    rows = [
        ['file', f'{size / 1e6:.2f} MB, float32'],
        ['members', f'{len(members)}: {", ".join(members)}; the mean of their probabilities'],
        ['network', ', '.join(dict.fromkeys(run['config']['model']['name'] for run in described))],
        [
            'parameters, operations forward',
            f'{summary["parameters"]:,}, {summary["flops_per_image"] / 1e6:,.0f} MFLOP; each',
        ],
        ['classes', ', '.join(manifest['class_names'])],
        [
            'faces',
            f'aligned ({prepared["detector"]}, {prepared["size"]} pixels)' if prepared else 'cut about their box',
        ],
        ['input', f'{how["crop"] or how["size"]} of {how["size"]} pixels a side, {how["channels"]} channels'],
        ['test-time augmentation', tta],
        ['temperature', f'{temperature:.3f}, fitted on validation'],
        ['data', f'{first["config"]["data"]["name"]}, manifest {first["manifest_hash"]}'],
        ['seeds', ', '.join(str(run['config']['seed']) for run in described)],
        ['trained on', f'{first["devices"]["count"]} x {first["devices"]["kind"]}'],
    ]
    return '## What it is\n\n' + markdown_table(('', ''), rows)


def _results(scores: Mapping[str, Mapping[str, Any]]) -> str:
    header = (
        'split',
        'images',
        'accuracy %',
        '95 % over images',
        'without twins %',
        'macro F1',
        'NLL',
        'ECE',
        'NLL, ECE before temperature',
    )
    rows = []
    for split, of in scores.items():
        low, high = of['accuracy_ci95']
        fresh, before = of['accuracy_without_twins'], of['before_temperature']
        rows.append(
            [split, f'{of["num_examples"]:,}', f'{100 * of["accuracy"]:.2f}', f'{100 * low:.1f} to {100 * high:.1f}']
            + ['-' if fresh is None else f'{100 * fresh:.2f}', f'{of["macro_f1"]:.4f}', f'{of["nll"]:.4f}']
            + [f'{of["ece"]:.4f}', f'{before["nll"]:.4f}, {before["ece"]:.4f}']
        )
    read = scores.get('test', {}).get('readings')
    times = {None: 'Test was not read.', 1: 'Test was read once.'}.get(read, f'Test was read {read} times.')
    table = markdown_table(header, rows, right=range(1, len(header)))
    return (
        f'## Scores\n\n{table}\nStep, members and temperature were chosen on validation, whose numbers '
        f'are a little high by that. {times} “Without twins” leaves out images that are in training too, '
        'pixel for pixel.\n'
    )


def _classes(split: str, entry: Mapping[str, Any]) -> str:
    names = list(entry['per_class'])
    rows = []
    for name, row in zip(names, entry['confusion'], strict=True):
        of, total = entry['per_class'][name], max(1, sum(row))
        taken = sorted(((count, other) for count, other in zip(row, names, strict=True) if other != name), reverse=True)
        wrong = ', '.join(f'{other} {100 * count / total:.0f} %' for count, other in taken[:2] if count)
        rows.append([name, f'{of["support"]:,}', *(f'{of[key]:.3f}' for key in ('precision', 'recall', 'f1')), wrong])
    header = ('class', 'images', 'precision', 'recall', 'F1', 'most often taken for')
    return f'### Per class, {split}\n\n' + markdown_table(header, rows, right=range(1, 5))


def _recipe(runs: Runs) -> str:
    defaults = flatten(default_config())
    text = '## Recipe\n'
    for name, described in runs:
        there = flatten(ConfigDict(described['config']))
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in there.items()}
        changed = [f'config.{key} = {value!r}' for key, value in values.items() if defaults.get(key) != value]
        versions = ', '.join(f'{package} {version}' for package, version in described['versions'].items())
        text += (
            f'\n{name}, revision {described.get("git_revision")}, {versions}:\n\n```\n' + '\n'.join(changed) + '\n```\n'
        )
    return text
