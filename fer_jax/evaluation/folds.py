"""Scores of a cross-validation, made from the files of its folds: the mean over folds, and all predictions pooled.

A workdir holds `folds.csv` (which image is tested in which fold, and what it stays together with), a run per fold in
`fold0`, `fold1`, …, and, once all of them have been read on test, `folds.json`:

    {"dataset", "manifest", "class_names", "num_examples", "num_folds", "by", "num_units", "validation", "tta",
     "folds": [{"fold", "num_examples", "absent", "step", "seconds",
                "single": {"accuracy", "macro_f1"}, "ensemble": {"members", "accuracy", "macro_f1"}}],
     "single": {"accuracy": {"mean", "sd"}, "macro_f1": {"mean", "sd"}, "pooled": {…}},
     "ensemble": the same}

`absent` names the classes of which a fold tests no image; its macro F1 counts them as 0, as scores.json does. `mean`
and `sd` (with n - 1) are over folds. `pooled` has every image once, with the prediction of the run that did not see
it: the metrics of scores.json, and `accuracy_ci95_units`, whose bootstrap draws whole units (subjects, sequences,
images: what `by` says), since the frames of one person are not so many independent trials.

Shapes: N examples of all folds, K classes.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions, load_predictions
from fer_jax.evaluation.scores import (
    ProbabilitiesNK,
    classification_scores,
    ensemble_probabilities,
    read_scores,
    softmax,
)

CorrectN = Bool[np.ndarray, 'N']
FoldsN = Int[np.ndarray, 'N']
IdsN = Shaped[np.ndarray, 'N']
UnitsN = Shaped[np.ndarray, 'N']

FOLDS_CSV, FOLDS_JSON = 'folds.csv', 'folds.json'
_BOOTSTRAP_SEED = 20130701
# What may differ between the folds of one cross-validation: which is tested, where its batches come from, what is read.
_OF_THE_FOLD = ('data.fold', 'data.feed', 'evaluation.splits')


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Which fold tests each image, in the order of the ids.

    Attributes:
        ids: str [N], unique.
        units: str [N], what each stays together with: its subject, its sequence, or its own id.
        folds: int [N].
    """

    ids: IdsN
    units: UnitsN
    folds: FoldsN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Assignment) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ('ids', 'units', 'folds')
        )


def write_assignment(path: str | os.PathLike[str], assignment: Assignment) -> None:
    """Writes `folds.csv`, aside first."""
    path = Path(path)
    aside = path.with_name(path.name + '.partial')
    with aside.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('id', 'unit', 'fold'))
        writer.writerows(zip(assignment.ids, assignment.units, assignment.folds, strict=True))
    os.replace(aside, path)


def read_assignment(path: str | os.PathLike[str]) -> Assignment:
    """Reads `folds.csv`.

    Raises:
        UserError: if it is missing or not one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} does not exist; fer_jax.crossvalidate writes it')
    try:
        with path.open(newline='', encoding='utf-8') as file:
            header, *rows = csv.reader(file)
        ids, units, folds = zip(*rows, strict=True)
        if header != ['id', 'unit', 'fold'] or len(set(ids)) < len(ids):
            raise ValueError('its columns are not id, unit and fold, or an id is there twice')
        return Assignment(np.array(ids, str), np.array(units, str), np.array(folds, int))
    except (ValueError, csv.Error) as error:
        raise UserError(f'{path} is damaged ({error}); move it away and run fer_jax.crossvalidate again') from None


def fold_directory(workdir: str | os.PathLike[str], fold: int) -> Path:
    """Where the run of a fold lies."""
    return Path(workdir) / f'fold{fold}'


def score_folds(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """What `folds.json` holds, from `folds.csv` and the folds' config.json, scores.json and predictions.

    Raises:
        UserError: if a fold is missing or has not been read on test, if the folds are of different experiments, or if
            not every image is tested once, by the fold that it was assigned to.
    """
    assignment = read_assignment(Path(workdir) / FOLDS_CSV)
    runs = [_Fold.read(fold_directory(workdir, fold), fold) for fold in range(int(assignment.folds.max()) + 1)]
    first = runs[0]
    for run in runs[1:]:
        run.refuse_other_experiment(first)
    _check_assignment(assignment, runs)
    data = first.config['data']
    place = {identity: index for index, identity in enumerate(assignment.ids.tolist())}
    units_N = assignment.units[[place[identity] for run in runs for identity in run.predictions.ids.tolist()]]
    kinds = {kind: _score_kind(runs, kind, units_N, data['fold_by']) for kind in ('single', 'ensemble')}
    return {
        **{name: first.scores[name] for name in ('dataset', 'manifest', 'class_names')},
        'num_examples': len(assignment.ids),
        'num_folds': len(runs),
        'by': data['fold_by'],
        'num_units': len(np.unique(assignment.units)),
        'validation': data['fold_validation'],
        'tta': first.scores['tta'],
        'folds': [
            {
                'fold': fold,
                'num_examples': run.predictions.num_examples,
                'absent': [name for name, of in run.scores['single']['per_class'].items() if not of['support']],
                'step': run.scores['single']['step'],
                'seconds': run.seconds,
                'single': kinds['single']['per_fold'][fold],
                'ensemble': {'members': run.predictions.num_members, **kinds['ensemble']['per_fold'][fold]},
            }
            for fold, run in enumerate(runs)
        ],
        **{kind: {name: value for name, value in of.items() if name != 'per_fold'} for kind, of in kinds.items()},
    }


def write_folds_json(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Scores the folds into `folds.json`, aside first, and returns what it holds."""
    scores = score_folds(workdir)
    path = Path(workdir) / FOLDS_JSON
    aside = path.with_name(path.name + '.partial')
    aside.write_text(json.dumps(scores, indent=2, allow_nan=False) + '\n', encoding='utf-8')
    os.replace(aside, path)
    return scores


def read_folds_json(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads `folds.json`.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = Path(workdir) / FOLDS_JSON
    if not path.is_file():
        raise UserError(f'{path} does not exist; fer_jax.crossvalidate writes it when all folds are done')
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}); remove it and run fer_jax.crossvalidate again') from None


def cluster_interval(
    correct_N: CorrectN, units_N: UnitsN, resamples: int = 2000, seed: int = _BOOTSTRAP_SEED
) -> tuple[float, float]:
    """The 95 % percentile interval of the accuracy under a bootstrap that draws whole units with replacement.

    Source: Davison & Hinkley 1997, Bootstrap methods and their application, section 3.8 (its first strategy).
    """
    _, index_N = np.unique(units_N, return_inverse=True)
    size_U, right_U = np.bincount(index_N), np.bincount(index_N, correct_N)
    generator = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for index in range(resamples):  # one by one: 2,000 rows of as many units would take gigabytes
        times_U = np.bincount(generator.integers(len(size_U), size=len(size_U)), minlength=len(size_U))
        draws[index] = (times_U @ right_U) / (times_U @ size_U)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    """`mean` and `sd`, the standard deviation with n - 1."""
    return {'mean': float(np.mean(values)), 'sd': float(np.std(values, ddof=1))}


@dataclasses.dataclass(frozen=True)
class _Fold:
    """What the run of one fold left: its configuration, its scores and predictions on test, its training time."""

    workdir: Path
    config: Mapping[str, Any]
    scores: Mapping[str, Any]
    predictions: Predictions
    seconds: float

    @classmethod
    def read(cls, workdir: Path, fold: int) -> _Fold:
        if not (workdir / 'scores.json').is_file():
            raise UserError(f'{workdir} has no scores yet; run fer_jax.crossvalidate to its end')
        scores = read_scores(workdir / 'scores.json')
        predictions = load_predictions(workdir / 'predictions' / 'test.npz')
        scored = [(member['run'], member['step']) for member in scores.get('test', {}).get('members', [])]
        if scored != list(zip(predictions.member_runs.tolist(), predictions.steps.tolist(), strict=True)):
            raise UserError(f'{workdir}: scores.json and predictions/test.npz are not of the same members')
        try:
            config = json.loads((workdir / 'config.json').read_text(encoding='utf-8'))['config']
            there = config['data']['fold']
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f'{workdir / "config.json"} cannot be read ({error!r})') from None
        if there != fold:
            raise UserError(f'{workdir} was trained with config.data.fold={there}')
        return cls(workdir, config, scores['test'], predictions, training_seconds(workdir))

    def refuse_other_experiment(self, first: _Fold) -> None:
        here, there = _flat(self.config), _flat(first.config)
        for name in sorted(here.keys() & there.keys()):  # a field that one does not have came with an update
            if name not in _OF_THE_FOLD and here[name] != there[name]:
                raise UserError(
                    f'{self.workdir} and {first.workdir} differ in config.{name}: {here[name]!r} and '
                    f'{there[name]!r}; they are not folds of one cross-validation'
                )
        for name in ('class_names', 'manifest', 'tta'):
            if self.scores[name] != first.scores[name]:
                raise UserError(
                    f'{self.workdir} and {first.workdir} differ in {name.replace("_", " ")}: {self.scores[name]} '
                    f'and {first.scores[name]}; they are not folds of one cross-validation'
                )

    def probabilities(self, kind: str) -> ProbabilitiesNK:
        """Of this fold's best single member, or of its ensemble."""
        logits_MNK = self.predictions.logits
        return (
            softmax(logits_MNK[self.scores['single']['index']])
            if kind == 'single'
            else ensemble_probabilities(logits_MNK)
        )


def _score_kind(runs: Sequence[_Fold], kind: str, units_N: UnitsN, by: str) -> dict[str, Any]:
    metrics = ('accuracy', 'macro_f1')
    per_fold = [{metric: run.scores[kind][metric] for metric in metrics} for run in runs]
    join = lambda name: np.concatenate([getattr(run.predictions, name) for run in runs])
    probabilities_NK, labels_N = np.concatenate([run.probabilities(kind) for run in runs]), join('labels')
    class_names = runs[0].predictions.class_names.tolist()
    pooled = classification_scores(probabilities_NK, labels_N, class_names, join('twin_in_train'))
    pooled['accuracy_ci95_units'] = pooled['accuracy_ci95']
    if by != 'image':
        pooled['accuracy_ci95_units'] = list(cluster_interval(probabilities_NK.argmax(1) == labels_N, units_N))
    over_folds = {metric: mean_and_deviation([scores[metric] for scores in per_fold]) for metric in metrics}
    return {'per_fold': per_fold, **over_folds, 'pooled': pooled}


def _check_assignment(assignment: Assignment, runs: Sequence[_Fold]) -> None:
    """Every image is tested exactly once, by the fold that it was assigned to."""
    for fold, run in enumerate(runs):
        wanted = set(assignment.ids[assignment.folds == fold].tolist())
        found = run.predictions.ids.tolist()
        if len(found) != len(wanted) or set(found) != wanted:
            raise UserError(
                f'{run.workdir} tested {len(found)} images, of which {len(wanted.intersection(found))} are among the '
                f'{len(wanted)} that {FOLDS_CSV} assigns to it; move that directory away and train it again'
            )


def training_seconds(workdir: Path) -> float:
    path = workdir / 'metrics.jsonl'
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith('\n')]  # a kill can cut the last one short
    return float(json.loads(whole[-1])['seconds']) if whole else 0.0


def _flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    fields = {}
    for name, value in config.items():
        fields |= _flat(value, f'{prefix}{name}.') if isinstance(value, Mapping) else {prefix + name: value}
    return fields
