"""report.md and figures/ of one directory, made from the files that training and evaluation left there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions, load_predictions
from fer_jax.evaluation.scores import calibration, ensemble_probabilities, read_scores
from fer_jax.reports import _markdown, figures
from fer_jax.reports._faces import ImagesNHWC


def write_report(directory: str | os.PathLike[str], images_by_split: Mapping[str, ImagesNHWC] | None = None) -> Path:
    """Writes `report.md` and `figures/*.png` from `config.json`, `scores.json`, `predictions/` and `metrics.jsonl`.

    `metrics.jsonl` may be absent, and so may the predictions of a split: its figures are then left out, as they are
    where predictions have been made anew with other members since the split was scored.

    Args:
        directory: what a training run or an evaluation wrote into.
        images_by_split: uint8 [N, H, W, C] in the order of the predictions; splits with images get figures of faces.

    Returns:
        The path of the report.

    Raises:
        UserError: if `config.json` or `scores.json` is missing or damaged, or images and predictions differ in
            number.
    """
    directory = Path(directory)
    config = _read_config(directory / 'config.json')
    scores = _in_order(read_scores(directory / 'scores.json'))
    if not scores:
        raise UserError(f'{directory / "scores.json"} holds no split; run fer_jax.evaluate first')
    drawn, outdated = _draw_run(directory, config, scores), []
    for split, entry in scores.items():
        path = directory / 'predictions' / f'{split}.npz'
        if path.exists():
            predictions = load_predictions(path)
            if not _of_the_same_members(predictions, entry):
                outdated.append(split)
                continue
            images = (images_by_split or {}).get(split)
            drawn[split.capitalize()] = _draw_split(directory, split, entry, predictions, images)
    dataset = next(iter(scores.values()))['dataset']
    sections = [
        f'# {dataset}: {directory.resolve().name}\n',
        _markdown.results(scores),
        _markdown.protocol(scores, outdated),
        '## Classes\n',
        *(_markdown.per_class(split, entry) for split, entry in reversed(scores.items())),
        _markdown.members(scores),
        _markdown.model(config),
        _markdown.how_it_was_run(config, scores),
        _markdown.pictures({section: names for section, names in drawn.items() if names}),
    ]
    path = directory / 'report.md'
    aside = path.with_name(path.name + '.partial')
    aside.write_text('\n'.join(section for section in sections if section), encoding='utf-8')
    os.replace(aside, path)
    return path


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f'{path} does not exist; a report is written for the directory of a run or an evaluation')
    try:
        config = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error})') from error
    if not isinstance(config, dict):
        raise UserError(f'{path} holds no JSON object')
    return config


def _in_order(scores: Mapping[str, Any]) -> dict[str, Any]:
    known = [split for split in ('train', 'validation', 'test') if split in scores]
    return {split: scores[split] for split in (*known, *(split for split in scores if split not in known))}


def _of_the_same_members(predictions: Predictions, entry: Mapping[str, Any]) -> bool:
    scored = [(member['run'], member['step']) for member in entry['members']]
    predicted = list(zip(predictions.member_runs.tolist(), predictions.steps.tolist(), strict=True))
    return scored == predicted and entry['num_examples'] == predictions.num_examples


def _draw_run(directory: Path, config: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, list[str]]:
    """What concerns no split in particular: the data and the training history."""
    entry = next(iter(scores.values()))
    names = []
    manifest = config.get('manifest') or {}
    if manifest.get('counts'):
        name = 'class_counts.png'
        caption = f'{entry["dataset"]} · data manifest {config.get("manifest_hash") or entry["manifest"]}'
        class_names = manifest.get('class_names') or entry['class_names']
        figures.class_counts(manifest['counts'], class_names, directory / 'figures' / name, subtitle=caption)
        names.append(name)
    metrics = directory / 'metrics.jsonl'
    records = figures.read_metrics(metrics) if metrics.is_file() else []
    if figures.has_history(records):
        name = 'history.png'
        seed = f' · seed {config["seed"]}' if 'seed' in config else ''
        caption = f'{directory.resolve().name} · {entry["dataset"]}{seed}'
        figures.epoch_history(records, directory / 'figures' / name, subtitle=caption)
        names.append(name)
    return {'Data and training': names}


def _draw_split(
    directory: Path,
    split: str,
    entry: Mapping[str, Any],
    predictions: Predictions,
    images_NHWC: ImagesNHWC | None,
) -> list[str]:
    """Draws the figures of one split; returns their file names in the order of the report."""
    single, ensemble = entry['single'], entry['ensemble']
    class_names, labels = entry['class_names'], predictions.labels
    several = predictions.num_members > 1
    who = f'ensemble of {predictions.num_members} members' if several else '1 member'
    caption = {'subtitle': f'{entry["dataset"]} · {split} · n = {predictions.num_examples:,} · {who}'}
    probabilities = ensemble_probabilities(predictions.logits)
    by_classifier = {'best single': single['per_class']} if several else {}
    by_classifier['ensemble' if several else 'only member'] = ensemble['per_class']
    names = []
    if images_NHWC is not None and len(images_NHWC) != len(labels):
        raise UserError(f'{split} has {len(images_NHWC)} images but {len(labels)} predictions')

    def place(name: str) -> Path:
        names.append(f'{split}_{name}.png')
        return directory / 'figures' / names[-1]

    figures.f1_per_class(by_classifier, place('f1_per_class'), **caption)
    if several:
        figures.single_against_ensemble(single['per_class'], ensemble['per_class'], place('recall'), **caption)
    confusion = np.array(ensemble['confusion'])
    figures.confusion(confusion, class_names, place('confusion_counts'), **caption)
    figures.confusion(confusion, class_names, place('confusion_ratios'), ratios=True, **caption)
    figures.performance_distribution(probabilities, labels, class_names, place('performance_distribution'), **caption)
    figures.reliability(calibration(probabilities, labels), place('reliability'), **caption)
    if images_NHWC is not None:
        faces = (images_NHWC, labels, probabilities, class_names)
        figures.example_faces(*faces, place('faces'), **caption)
        if figures.confident_errors(*faces, place('confident_errors'), **caption) is None:
            names.pop()
    return names
