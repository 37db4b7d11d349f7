"""The words and tables of report.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fer_jax.reports.tables import SCORE_COLUMNS, duration, markdown_table, score_rows

Scores = Mapping[str, Mapping[str, Any]]
Config = Mapping[str, Any]


def results(scores: Scores) -> str:
    """Splits by classifiers, and how to read them."""
    numbers = range(2, len(SCORE_COLUMNS))
    return (
        '## Results\n\n'
        + markdown_table(SCORE_COLUMNS, score_rows(scores), right=numbers)
        + '\nThe ensemble is the mean of its members’ probabilities. Intervals are percentile bootstraps over examples '
        '(2,000 resamples). Macro F1 is the mean over all classes, those without examples included. ECE has 15 bins '
        'of equal width. “Without twins” leaves out the images that also are in training, pixel for pixel.\n'
    )


def protocol(scores: Scores, outdated: Sequence[str] = ()) -> str:
    """What was chosen on which split, how often each was read, and which scores are of other members than now."""
    lines = ['## Protocol\n']
    for single, count in dict.fromkeys((e['single']['name'], len(e['members'])) for e in scores.values()):
        lines.append(
            f'- The best single member of {count}, {single}, was chosen by its accuracy on validation, never on test.'
            if count > 1
            else f'- There is one member, {single}; nothing was chosen among members.'
        )
    for split, entry in scores.items():
        times = 'once' if entry['readings'] == 1 else f'{entry["readings"]} times'
        lines.append(f'- {split.capitalize()} was read {times} in this directory; all {entry["num_examples"]:,} count.')
    for split in outdated:
        lines.append(
            f'- The scores on {split} are of an earlier evaluation with other members than predictions/{split}.npz '
            f'holds now; evaluate with --split={split} to renew them and to obtain figures.'
        )
    if 'test' not in scores:
        lines.append('- Test has not been read in this directory.')
    return '\n'.join(lines) + '\n'


def per_class(split: str, entry: Mapping[str, Any]) -> str:
    """Precision, recall and F1 of the ensemble per class, beside the best single member's F1."""
    single, ensemble = entry['single']['per_class'], entry['ensemble']['per_class']
    several = entry['ensemble']['members'] > 1
    header = ['class', 'examples', 'precision', 'recall', 'F1'] + ['F1, best single'] * several
    rows = [
        [name, f'{of["support"]:,}', *(f'{of[key]:.4f}' for key in ('precision', 'recall', 'f1'))]
        + [f'{single[name]["f1"]:.4f}'] * several
        for name, of in ensemble.items()
    ]
    who = f'ensemble of {entry["ensemble"]["members"]}' if several else 'only member'
    table = markdown_table(header, rows, right=range(1, len(header)))
    return f'### Per class, {split}, {who}\n\n{table}'


def members(scores: Scores) -> str:
    """The accuracy of every member on every split."""
    accuracies, chosen = {}, {(e['single']['run'], e['single']['step']) for e in scores.values()}
    for split, entry in scores.items():
        for member in entry['members']:
            of = accuracies.setdefault((member['run'], member['step']), {'name': member['name']})
            of[split] = f'{100 * member["accuracy"]:.2f}'
    header = ['member', 'run', 'step', *(f'{split} %' for split in scores), 'chosen']
    rows = [
        [of['name'], run, f'{step:,}', *(of.get(split, '-') for split in scores)]
        + ['best single' if (run, step) in chosen else '']
        for (run, step), of in accuracies.items()
    ]
    return '## Members\n\n' + markdown_table(header, rows, right=range(2, 3 + len(scores)))


def model(config: Config) -> str:
    """Parameters and operations; empty where they were not recorded."""
    summary = config.get('model_summary') or {}
    written = {
        'parameters': ('parameters', '{:,}'.format),
        'flops_per_image': ('FLOPs per image, forward', scaled),
        'train_flops_per_image': ('FLOPs per image, training step', scaled),
    }
    rows = [[name, show(summary[key])] for key, (name, show) in written.items() if summary.get(key) is not None]
    return '## Model\n\n' + markdown_table(('', 'count'), rows, right=(1,)) if rows else ''


def how_it_was_run(config: Config, scores: Scores) -> str:
    """The command, and everything else that the numbers depend on."""
    entry = next(iter(scores.values()))
    facts = {
        'data set': entry['dataset'],
        'data manifest': config.get('manifest_hash') or entry['manifest'],
        'seed': config.get('seed'),
        'devices': devices_in_words(config.get('devices') or {}),
        'time': duration(config['seconds']) if config.get('seconds') is not None else None,
        'git revision': config.get('git_revision'),
        'versions': ', '.join(f'{name} {version}' for name, version in (config.get('versions') or {}).items()),
    }
    rows = [[name, value] for name, value in facts.items() if value not in (None, '')]
    text = '## How it was run\n\n'
    if config.get('command'):
        text += f'```\n{config["command"]}\n```\n\n'
    text += markdown_table(('', ''), rows)
    if config.get('config'):
        settings = json.dumps(config['config'], indent=2, ensure_ascii=False)
        text += f'\n<details><summary>Configuration</summary>\n\n```json\n{settings}\n```\n\n</details>\n'
    return text


def pictures(sections: Mapping[str, Sequence[str]]) -> str:
    """Figures by section, as links relative to the report."""
    text = '## Figures\n'
    for section, names in sections.items():
        text += f'\n### {section}\n\n'
        text += '\n'.join(f'![{_spoken(name)}](figures/{name})\n' for name in names)
    return text


def _spoken(file_name: str) -> str:
    return file_name.removesuffix('.png').replace('_', ' ')


def devices_in_words(devices: Mapping[str, Any]) -> str:
    """`1 x NVIDIA H200 (gpu)`; '' for none."""
    if not devices:
        return ''
    kind, platform = str(devices.get('kind', '')), str(devices.get('platform', ''))
    return f'{devices.get("count", "?")} x {kind or platform}' + (f' ({platform})' if kind and platform != kind else '')


def scaled(number: float) -> str:
    """`60.20 M`."""
    for size, letter in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M')):
        if number >= size:
            return f'{number / size:.2f} {letter}'
    return f'{number:,.0f}'
