"""Scores of one split, computed from its predictions file alone.

Shapes: M members, N examples, K classes, B bins of confidence.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import FlagsN, LabelsN, LogitsMNK, Predictions

ProbabilitiesNK = Float[np.ndarray, 'N K']
ConfusionKK = Int[np.ndarray, 'K K']
CountsB = Int[np.ndarray, 'B']
ValuesB = Float[np.ndarray, 'B']
AccuraciesM = Float[np.ndarray, 'M']
CorrectN = Bool[np.ndarray, 'N']

_BOOTSTRAP_SEED = 20130701


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    exponentials = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def ensemble_probabilities(logits_MNK: LogitsMNK) -> ProbabilitiesNK:
    """The mean of the members' probabilities; logits are never averaged."""
    return softmax(logits_MNK).mean(axis=0)


def member_accuracies(predictions: Predictions) -> AccuraciesM:
    """The accuracy of each member."""
    return (predictions.logits.argmax(axis=-1) == predictions.labels).mean(axis=-1)


def best_member(validation: Predictions) -> int:
    """The index of the member with the best accuracy on validation; of several, the first."""
    return int(member_accuracies(validation).argmax())


def confusion_matrix(labels_N: LabelsN, predicted_N: LabelsN, num_classes: int) -> ConfusionKK:
    """How often each true class (row) was taken for each class (column)."""
    cells = np.asarray(labels_N, np.int64) * num_classes + predicted_N
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_scores(confusion_KK: ConfusionKK, class_names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Precision, recall, F1 and support of each class; a ratio without a denominator is 0."""
    hits = np.diag(confusion_KK).astype(np.float64)
    support, predicted = confusion_KK.sum(axis=1), confusion_KK.sum(axis=0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        str(name): {
            'precision': float(precision[k]),
            'recall': float(recall[k]),
            'f1': float(f1[k]),
            'support': int(support[k]),
        }
        for k, name in enumerate(class_names)
    }


def negative_log_likelihood(probabilities_NK: ProbabilitiesNK, labels_N: LabelsN) -> float:
    """The mean of -log p of the true class, in nats."""
    true = np.take_along_axis(probabilities_NK, np.asarray(labels_N, np.int64)[:, None], axis=1)
    # JSON knows no infinity, and a float64 softmax reaches 0 once logits lie 745 apart.
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy in bins of equal width over (0, 1].

    Attributes:
        counts: int [B], examples per bin.
        confidence: float [B], their mean confidence; 0 where the bin is empty.
        accuracy: float [B], the share of them that is right; 0 where the bin is empty.
        error: the expected calibration error: the mean of |accuracy - confidence| over examples.
    """

    counts: CountsB
    confidence: ValuesB
    accuracy: ValuesB
    error: float


def calibration(probabilities_NK: ProbabilitiesNK, labels_N: LabelsN, num_bins: int = 15) -> Calibration:
    """Bins examples by the probability of the predicted class.

    Source: Guo et al. 2017, On calibration of modern neural networks, equations 2 and 3; bins are (low, high].
    """
    confidence_N = probabilities_NK.max(axis=1)
    correct_N = probabilities_NK.argmax(axis=1) == labels_N
    edges = np.linspace(0, 1, num_bins + 1)
    bins_N = np.clip(np.searchsorted(edges, confidence_N, side='left') - 1, 0, num_bins - 1)
    counts = np.bincount(bins_N, minlength=num_bins)
    confidence = np.bincount(bins_N, confidence_N, num_bins) / np.maximum(counts, 1)
    accuracy = np.bincount(bins_N, correct_N, num_bins) / np.maximum(counts, 1)
    error = float((counts * np.abs(accuracy - confidence)).sum() / len(labels_N))
    return Calibration(counts, confidence, accuracy, error)


def accuracy_interval(correct_N: CorrectN, resamples: int = 2000, seed: int = _BOOTSTRAP_SEED) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the accuracy, over examples.

    Drawing N right-or-wrong answers with replacement is one binomial draw, so no resample is materialised.
    """
    total = len(correct_N)
    draws = np.random.default_rng(seed).binomial(total, np.mean(correct_N), resamples) / total
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def classification_scores(
    probabilities_NK: ProbabilitiesNK, labels_N: LabelsN, class_names: Sequence[str], twin_in_train_N: FlagsN
) -> dict[str, Any]:
    """Every metric of one classifier on one split, as a JSON object.

    `accuracy_without_twins` leaves out the examples whose image also is in training; it is None if that leaves none.
    `macro_f1` is the mean over all K classes, those without support included.
    """
    predicted_N = probabilities_NK.argmax(axis=1)
    correct_N = predicted_N == labels_N
    confusion_KK = confusion_matrix(labels_N, predicted_N, len(class_names))
    per_class = per_class_scores(confusion_KK, class_names)
    fresh_N = ~np.asarray(twin_in_train_N)
    return {
        'accuracy': float(correct_N.mean()),
        'accuracy_ci95': list(accuracy_interval(correct_N)),
        'accuracy_without_twins': float(correct_N[fresh_N].mean()) if fresh_N.any() else None,
        'macro_f1': float(np.mean([scores['f1'] for scores in per_class.values()])),
        'nll': negative_log_likelihood(probabilities_NK, labels_N),
        'ece': calibration(probabilities_NK, labels_N).error,
        'per_class': per_class,
        'confusion': confusion_KK.tolist(),
    }


def score_predictions(
    predictions: Predictions, validation: Predictions | None, *, dataset: str, manifest: str
) -> dict[str, Any]:
    """The entry of `scores.json` for one split, but for its count of readings.

    Args:
        predictions: of the split to score, which may be validation itself.
        validation: of the same members on the validation split; it alone chooses the best single member. None where
            the data has no validation: nothing is chosen, and the single member is the last.
        dataset: the data set's name.
        manifest: the hash of its manifest.

    Raises:
        UserError: if the two files hold other members or classes.
    """
    if validation is not None:
        _refuse_other_members(predictions, validation)
    names = [str(name) for name in predictions.class_names]
    members = [
        {'step': int(step), 'run': str(run), 'name': str(name), 'accuracy': float(accuracy)}
        for step, run, name, accuracy in zip(
            predictions.steps,
            predictions.member_runs,
            predictions.member_names,
            member_accuracies(predictions),
            strict=True,
        )
    ]
    index = len(members) - 1 if validation is None else best_member(validation)
    accuracy = None if validation is None else float(member_accuracies(validation)[index])
    chosen = {'index': index, **members[index], 'validation_accuracy': accuracy}
    truth = (predictions.labels, names, predictions.twin_in_train)
    return {
        'dataset': dataset,
        'manifest': manifest,
        'num_examples': predictions.num_examples,
        'num_twins': int(predictions.twin_in_train.sum()),
        'class_names': names,
        'members': members,
        'single': chosen | classification_scores(softmax(predictions.logits[index]), *truth),
        'ensemble': {'members': len(members)}
        | classification_scores(ensemble_probabilities(predictions.logits), *truth),
    }


def _refuse_other_members(predictions: Predictions, validation: Predictions) -> None:
    for what in ('class_names', 'member_runs', 'steps'):
        here, there = getattr(predictions, what).tolist(), getattr(validation, what).tolist()
        if here != there:
            raise UserError(
                f'these predictions and those on validation differ in {what}: {here} and {there}; '
                'evaluate the same members on both, since the best single one is chosen on validation'
            )


def read_scores(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads `scores.json`.

    Raises:
        UserError: if it is missing or is not a JSON object of splits.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} does not exist; fer_jax.evaluate writes it')
    try:
        scores = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}); mend it or move it away, as it counts the readings') from error
    if not isinstance(scores, dict) or not all(isinstance(entry, dict) for entry in scores.values()):
        raise UserError(f'{path} holds no object of scores per split; move it away and evaluate again')
    return scores


def update_scores_file(path: str | os.PathLike[str], split: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Writes one split's scores into `scores.json`, keeps the other splits, and counts the reading.

    Returns:
        All splits as written; each has `readings`, how many times it has been scored in this directory.

    Raises:
        UserError: if the file there is not readable, since a fresh one would forget the readings.
    """
    path = Path(path)
    merged = read_scores(path) if path.exists() else {}
    readings = int(merged.get(split, {}).get('readings', 0)) + 1
    merged[split] = {**scores, 'readings': readings}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + '.partial')
    aside.write_text(json.dumps(merged, indent=2, allow_nan=False) + '\n', encoding='utf-8')
    os.replace(aside, path)
    return merged
