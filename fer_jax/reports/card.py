"""A model card (Mitchell et al. 2019): what a packed model is, how it was made, and what it scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.reports.tables import markdown_table


def write_card(
    path: Path, title: str, header: Mapping[str, Any], changed: Sequence[Mapping[str, Any]], notes: str
) -> None:
    """Writes the card as Markdown, aside first.

    Args:
        path: of the card.
        title: the model's file and its size.
        header: of the model, see `fer_jax.packed`.
        changed: of each run the fields of its configuration that are not as by default.
        notes: Markdown, what it is for and its limits, by people.
    """
    sections = [f'# {title}\n', notes.strip() + '\n' if notes else '', _facts(header), _results(header['scores'])]
    sections += [_classes(split, entry) for split, entry in header['scores'].items()]
    sections += [_recipe(header['runs'], changed)]
    aside = path.with_name(path.name + '.partial')
    aside.write_text('\n'.join(section for section in sections if section), encoding='utf-8')
    os.replace(aside, path)


def _facts(header: Mapping[str, Any]) -> str:
    described = [run['config.json'] for run in header['runs']]
    members = [f'{header["runs"][run]["name"]}@{step}' for run, step in header['members']]
    first, each = described[0], lambda words: '; '.join(dict.fromkeys(map(words, described)))
    manifest, align = first['manifest'], first['manifest'].get('align')  # of all alike
    rows = [
        ['network', each(_network)],
        ['members', f'{len(members)}: {", ".join(members)}' + '; the mean of their probabilities' * (len(members) > 1)],
        ['classes', ', '.join(manifest['class_names'])],
        ['faces', f'aligned by {align["detector"]} to {align["size"]} pixels' if align else 'cut out about their box'],
        ['input', each(_input)],
        ['test-time augmentation', header['tta']],
        ['temperature', f'{header["temperature"]:.3f}, fitted on validation'],
        ['data', f'{first["config"]["data"]["name"]}, manifest {first["manifest_hash"]}'],
        ['seeds', ', '.join(str(run['config']['seed']) for run in described)],
        ['trained on', each(lambda run: f'{run["devices"]["count"]} x {run["devices"]["kind"]}')],
    ]
    return '## What it is\n\n' + markdown_table(('', ''), rows)


def _network(run: Mapping[str, Any]) -> str:
    name, of = run['config']['model']['name'], run['model_summary']
    return f'{name}: {of["parameters"]:,} parameters, {of["flops_per_image"] / 1e6:,.0f} MFLOP an image'


def _input(run: Mapping[str, Any]) -> str:
    how = run['preprocessing']
    return f'{how["crop"] or how["size"]} of {how["size"]} pixels a side, {"grey" if how["channels"] == 1 else "RGB"}'


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


def _recipe(runs: Sequence[Mapping[str, Any]], changed: Sequence[Mapping[str, Any]]) -> str:
    text = '## Recipe\n'
    for run, fields in zip(runs, changed, strict=True):
        described = run['config.json']
        lines = '\n'.join(f'config.{field} = {value!r}' for field, value in fields.items())
        versions = ', '.join(f'{package} {version}' for package, version in described['versions'].items())
        text += f'\n{run["name"]}, revision {described["git_revision"]}, {versions}:\n\n```\n{lines}\n```\n'
    return text
