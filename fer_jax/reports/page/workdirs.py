"""What lies in a workdir, read for the page: nothing is computed that a file does not hold."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.evaluation.folds import FOLDS_CSV, FOLDS_JSON, fold_directory, read_folds_json
from fer_jax.evaluation.mistakes import Mistakes
from fer_jax.evaluation.paired import Answers
from fer_jax.evaluation.predictions import Predictions, load_predictions
from fer_jax.evaluation.scores import confusion_matrix, ensemble_probabilities, negative_log_likelihood, read_scores
from fer_jax.reports.figures import read_metrics

ALL_FOLDS = 'all folds'  # what stands in place of a split where every image was tested by one of several runs
_OF_AN_ENTRY = ('dataset', 'manifest', 'num_examples', 'num_twins', 'class_names', 'members', 'single', 'ensemble')
_OF_A_SCORE = (
    *('accuracy', 'accuracy_ci95', 'accuracy_without_twins', 'macro_f1', 'nll', 'ece'),
    *('per_class', 'confusion'),
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """One column of the page.

    Attributes:
        letter: that it is called by on the page.
        directory: as it was named.
        kind: 'run', 'evaluation', 'folds' or 'pair'.
        split: that is shown of it.
        description: config.json; of folds that of the first.
        scores: scores.json, in the order shown; of folds one entry, ALL_FOLDS.
        answers: of its ensemble on the split; None where there are none, or others than were scored.
        members: str [M], `RUN@STEP` of that ensemble.
        records: metrics.jsonl.
        pair: pair.json.
        notes: what is missing, and why.
        mistakes: faces and maps of its worst mistakes; None where they could not be had.
        why_no_faces: why not; '' where they could, or nobody tried.
    """

    letter: str
    directory: Path
    kind: str
    split: str
    description: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Any]]
    answers: Answers | None = None
    members: np.ndarray | None = None
    records: tuple[Mapping[str, float], ...] = ()
    pair: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    mistakes: Mistakes | None = None
    why_no_faces: str = ''

    @property
    def name(self) -> str:
        return self.directory.name or str(self.directory)

    @property
    def entry(self) -> Mapping[str, Any] | None:
        """The scores on the split."""
        return self.scores.get(self.split)

    @property
    def who(self) -> str:
        """The classifier that everything but the first table is about."""
        count = self.entry['ensemble']['members']
        return f'ensemble of {count}' if count > 1 else 'only member'

    def noted(self, *notes: str) -> Workdir:
        return dataclasses.replace(self, notes=(*self.notes, *notes))


def read_workdir(directory: Path, letter: str, split: str) -> Workdir:
    """Reads what training, evaluation, cross-validation or a pair's training left.

    Raises:
        UserError: if it is none of these, or one of its files is damaged.
    """
    if not directory.is_dir():
        raise UserError(f'{directory} {"is a file; a workdir is wanted" if directory.exists() else "does not exist"}')
    if (directory / FOLDS_CSV).exists() or (directory / FOLDS_JSON).exists():
        return _read_folds(directory, letter)
    description = _read_json(directory / 'config.json', _other_workdirs(directory))
    config = description.get('config') or {}
    if not isinstance(config, Mapping):
        raise UserError(f'{directory / "config.json"} holds no configuration')
    records = _read_records(directory)
    found = {'description': description, 'records': records}
    if config.get('task') == 'cyclegan':
        pair = _read_json(directory / 'pair.json') if (directory / 'pair.json').exists() else None
        note = () if pair else ('This pair is not trained to its end: it has no pair.json yet.',)
        return Workdir(letter, directory, 'pair', split, scores={}, pair=pair, notes=note, **found)
    path = directory / 'scores.json'
    scores = read_scores(path) if path.exists() else {}
    scores = {name: scores[name] for name in sorted(scores, key=lambda name: name != split)}
    for name, entry in scores.items():
        _check_entry(entry, f'{path}: {name}')
    workdir = Workdir(letter, directory, 'run' if config else 'evaluation', split, scores=scores, **found)
    if split not in scores:
        has = f'; it has {", ".join(scores)}' if scores else ''
        return workdir.noted(f'It has no scores on {split}{has}.')
    return _with_answers(workdir)


def _with_answers(workdir: Workdir) -> Workdir:
    path = workdir.directory / 'predictions' / f'{workdir.split}.npz'
    if not path.exists():
        return workdir.noted(
            f'predictions/{path.name} is not there: its calibration, changes and mistakes are left out.'
        )
    predictions = load_predictions(path)
    answers = _answers([predictions])
    if not _were_scored(answers, workdir.entry) or _names(predictions) != _scored_members(workdir.entry):
        return workdir.noted(
            f'predictions/{path.name} holds other predictions than those that scores.json speaks of: calibration, '
            f'changes and mistakes are left out. fer_jax.evaluate --split={workdir.split} renews both.'
        )
    return dataclasses.replace(workdir, answers=answers, members=np.array(_names(predictions)))


def _read_folds(directory: Path, letter: str) -> Workdir:
    if not (directory / FOLDS_JSON).exists():
        raise UserError(
            f'{directory} is a cross-validation that is not done yet; finish it, or name its folds, '
            f'such as {fold_directory(directory, 0)}'
        )
    folds = read_folds_json(directory)
    try:
        read = [read_scores(fold_directory(directory, of['fold']) / 'scores.json')['test'] for of in folds['folds']]
        entry = {
            **{name: folds[name] for name in ('dataset', 'manifest', 'class_names', 'num_examples', 'tta')},
            'num_twins': sum(of['num_twins'] for of in read),
            'members': [],
            'readings': max(of['readings'] for of in read),
            'single': _pooled(folds['single']['pooled']),
            'ensemble': _pooled(folds['ensemble']['pooled']) | {'members': folds['folds'][0]['ensemble']['members']},
            'folds': folds,
        }
        entry['single']['validation_accuracy'] = 1 if folds['validation'] else None
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f'{directory / FOLDS_JSON} is damaged: it lacks {error}; run fer_jax.crossvalidate again'
        ) from None
    _check_entry(entry, str(directory / FOLDS_JSON))
    description = _read_json(fold_directory(directory, 0) / 'config.json')
    workdir = Workdir(letter, directory, 'folds', ALL_FOLDS, description, {ALL_FOLDS: entry})
    paths = [fold_directory(directory, of['fold']) / 'predictions' / 'test.npz' for of in folds['folds']]
    answers = _answers([load_predictions(path) for path in paths]) if all(path.exists() for path in paths) else None
    if answers is None or not _were_scored(answers, entry):
        return workdir.noted('The predictions of its folds are not those of folds.json: its calibration is left out.')
    return dataclasses.replace(workdir, answers=answers)


def _pooled(of: Mapping[str, Any]) -> dict[str, Any]:
    """A score with the interval that draws whole units."""
    return {**of, 'accuracy_ci95': of['accuracy_ci95_units']}


def _answers(parts: list[Predictions]) -> Answers:
    join = lambda arrays: np.concatenate(list(arrays))
    return Answers(
        ids=join(part.ids for part in parts),
        labels=join(part.labels for part in parts),
        probabilities=join(ensemble_probabilities(part.logits) for part in parts),
        class_names=tuple(parts[0].class_names.tolist()),
    )


def _were_scored(answers: Answers, entry: Mapping[str, Any]) -> bool:
    """Whether scores.json speaks of these predictions: they make its confusion matrix and its likelihood."""
    if list(answers.class_names) != entry['class_names']:
        return False
    found = confusion_matrix(answers.labels, answers.predicted, len(answers.class_names))
    likelihood = negative_log_likelihood(answers.probabilities, answers.labels)
    of = entry['ensemble']
    return found.tolist() == of['confusion'] and math.isclose(likelihood, of['nll'], rel_tol=1e-9)


def _names(predictions: Predictions) -> list[str]:
    return [f'{run}@{step}' for run, step in zip(predictions.member_runs, predictions.steps, strict=True)]


def _scored_members(entry: Mapping[str, Any]) -> list[str]:
    return [f'{member["run"]}@{member["step"]}' for member in entry['members']]


def _read_records(directory: Path) -> tuple[Mapping[str, float], ...]:
    path = directory / 'metrics.jsonl'
    return tuple(read_metrics(path)) if path.is_file() else ()


def _read_json(path: Path, hint: str = '') -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f'{path.parent} has no {path.name}; {hint or "is it a workdir?"}')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error})') from None
    if not isinstance(content, dict):
        raise UserError(f'{path} holds no JSON object')
    return content


def _other_workdirs(directory: Path) -> str:
    """Where a directory holds workdirs instead of being one, words that name them."""
    found = sorted(str(path.parent) for path in directory.glob('*/config.json'))
    return f'name the workdirs in it: {",".join(found[:3])}{",…" if len(found) > 3 else ""}' if found else ''


def _check_entry(entry: Mapping[str, Any], place: str) -> None:
    """Refuses scores that lack what the page shows."""
    missing = [name for name in _OF_AN_ENTRY if name not in entry]
    try:
        if not missing:
            missing = [f'{k}.{name}' for k in ('single', 'ensemble') for name in _OF_A_SCORE if name not in entry[k]]
        if not missing:
            of = entry['ensemble']
            sizes = {len(entry['class_names']), len(of['confusion']), len(of['per_class']), *map(len, of['confusion'])}
            missing = ['tables of one size'] if len(sizes) > 1 else []
    except TypeError as error:
        missing = [f'numbers that can be read ({error})']
    if missing:
        raise UserError(f'{place} lacks {", ".join(missing)}; evaluate again')
