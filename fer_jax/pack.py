"""Packs the members of an evaluation into one .safetensors file that reads faces, and writes its model card beside it.

    python -m fer_jax.pack --evaluation=DIR --output=FILE.safetensors [--single] [--notes=FILE.md]

DIR is what `fer_jax.evaluate` wrote (or a run): its validation predictions fit the temperature, its scores go into the
card; nothing is predicted anew, and test is not read. predict, serve, evaluate and export take the file as a --run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import cli, runtime
from fer_jax.config import default_config, flatten
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions, load_predictions
from fer_jax.evaluation.scores import best_member, classification_scores, ensemble_probabilities, read_scores
from fer_jax.evaluation.temperature import fit_temperature
from fer_jax.members import Member, find_member, load_group
from fer_jax.packed import SUFFIX, write_packed
from fer_jax.reports.card import write_card
from fer_jax.runs import read_description


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and packs; see the module."""
    parser = cli.ArgumentParser(prog='python -m fer_jax.pack', description='One file of the members of an evaluation.')
    add = parser.add_argument
    add('--evaluation', required=True, type=Path, metavar='DIR', help='what fer_jax.evaluate wrote, or a run')
    add('--output', required=True, metavar='FILE', help=f'the model, {SUFFIX}; its card goes beside it, .md')
    add('--single', action='store_true', help='only the best member by validation')
    add('--notes', type=Path, metavar='FILE', help='Markdown for the card: what the model is for, and its limits')
    add('--overwrite', action='store_true', help='replace a model that is there')
    flags = parser.parse_args(argv)
    if not flags.output.endswith(SUFFIX):
        raise UserError(f'--output={flags.output}: a name that ends in {SUFFIX} is wanted')
    flags.card = Path(flags.output).with_suffix('.md')
    for path in (Path(flags.output), flags.card):
        if path.exists() and not flags.overwrite:
            raise UserError(f'{path} is there; choose another --output, or give --overwrite')
    if flags.notes and flags.notes.resolve() == flags.card.resolve():
        raise UserError(f'--notes={flags.notes} is where the card goes; choose another --output')
    runtime.configure()
    pack(flags)
    return 0


def pack(flags: argparse.Namespace) -> None:
    """Fits, scores, writes and says what was written."""
    notes = _read_notes(flags.notes)
    predictions = _read_predictions(flags.evaluation, flags.single)
    chosen = predictions['validation']
    temperature = fit_temperature(chosen.logits, chosen.labels)
    written = read_scores(flags.evaluation / 'scores.json')
    scores = {split: _score(of, temperature, written[split]) for split, of in predictions.items()}
    tta = written['validation']['tta']
    members = _find_members(chosen)
    places = list(dict.fromkeys(member.run.workdir for member in members))
    runs = [(name, read_description(Path(place))) for name, place in zip(_names(places), places, strict=True)]
    packed = [(places.index(member.run.workdir), member.step, _variables(member)) for member in members]
    os.makedirs(os.path.dirname(os.path.abspath(flags.output)), exist_ok=True)
    header = write_packed(flags.output, runs, packed, temperature=temperature, tta=tta, scores=scores)
    size = os.path.getsize(flags.output)
    changed = [_changed_fields(described) for _, described in runs]
    write_card(flags.card, f'{flags.card.stem}{SUFFIX}, {size / 1e6:.2f} MB', header, changed, notes)
    shown = ', '.join(f'{split} {100 * entry["accuracy"]:.2f} %' for split, entry in scores.items())
    print(
        f'{len(members)} member{"s" * (len(members) > 1)}, {size / 1e6:.2f} MB, temperature {temperature:.3f}: {shown}'
    )
    print(f'Wrote {flags.output} and {flags.card}')


def _read_notes(path: Path | None) -> str:
    if path is None:
        return ''
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'--notes={path} cannot be read: {getattr(error, "strerror", None) or "it is no text"}'
        ) from None


def _read_predictions(evaluation: Path, single: bool) -> dict[str, Predictions]:
    """By split, of the members that are packed. Test only where it was scored for the same members."""
    scores = read_scores(evaluation / 'scores.json')
    if 'validation' not in scores:
        raise UserError(
            f'{evaluation} has no scores on validation, on which the temperature is fitted; '
            f'run fer_jax.evaluate with --split=validation --output={evaluation}'
        )
    found = {
        split: load_predictions(evaluation / 'predictions' / f'{split}.npz') for split in scores if split != 'train'
    }
    first = found['validation']
    same = lambda other: (
        (other.member_runs.tolist(), other.steps.tolist()) == (first.member_runs.tolist(), first.steps.tolist())
    )
    if not all(same(of) and scores[split]['tta'] == scores['validation']['tta'] for split, of in found.items()):
        raise UserError(
            f'{evaluation} holds splits of different members or views; evaluate them alike, into a new --output'
        )
    if not single:
        return found
    best = best_member(first)
    of_members = ('logits', 'steps', 'member_names', 'member_runs')
    return {
        split: dataclasses.replace(of, **{name: getattr(of, name)[best : best + 1] for name in of_members})
        for split, of in found.items()
    }


def _score(predictions: Predictions, temperature: float, entry: dict[str, Any]) -> dict[str, Any]:
    names = [str(name) for name in predictions.class_names]
    truth = (predictions.labels, names, predictions.twin_in_train)
    raw = classification_scores(ensemble_probabilities(predictions.logits), *truth)
    return {
        'dataset': entry['dataset'],
        'manifest': entry['manifest'],
        'readings': entry['readings'],
        'num_examples': predictions.num_examples,
        'num_twins': int(predictions.twin_in_train.sum()),
        'before_temperature': {name: raw[name] for name in ('accuracy', 'nll', 'ece')},
        **classification_scores(ensemble_probabilities(predictions.logits / np.float32(temperature)), *truth),
    }


def _find_members(predictions: Predictions) -> list[Member]:
    """The evaluation's members, where their runs lie."""
    members = []
    for place, step in zip(predictions.member_runs.tolist(), predictions.steps.tolist(), strict=True):
        members.append(find_member(place, step))
        if members[-1].packed:
            raise UserError(f'{place} is packed already; evaluate the runs that it was packed from')
    return members


def _names(places: Sequence[str]) -> list[str]:
    """Of each run its directory's name; with numbers before them where two have the same."""
    names = [os.path.basename(os.path.abspath(place)) for place in places]
    return names if len(set(names)) == len(names) else [f'{index}_{name}' for index, name in enumerate(names, 1)]


def _changed_fields(described: dict[str, Any]) -> dict[str, Any]:
    """What a run's configuration changes of the defaults."""
    defaults, there = flatten(default_config()), flatten(ConfigDict(described['config']))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in there.items()}
    return {name: value for name, value in values.items() if defaults.get(name) != value}


def _variables(member: Member) -> Any:
    _, stacked = load_group([member])
    return jax.tree.map(lambda array: np.asarray(array[0]), stacked)


if __name__ == '__main__':
    cli.run(main)
