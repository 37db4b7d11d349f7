"""Accuracy on a split from which an audit's flagged images are taken, as seed 001 measured: no result, a comparison."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions
from fer_jax.evaluation.scores import ensemble_probabilities, softmax


def filtered_accuracy(predictions: Predictions, flagged: Set[str], member: int | None = None) -> tuple[float, float]:
    """Accuracy on the images that are not flagged, and what share of all that is.

    Args:
        flagged: ids.
        member: whose accuracy; None: that of the ensemble of all.

    Raises:
        UserError: if everything is flagged, or an id is not of this split.
    """
    strange = flagged - set(predictions.ids.tolist())
    if strange:
        raise UserError(f'the audit flags {min(strange)!r}, which is no image of this split')
    kept_N = np.array([identity not in flagged for identity in predictions.ids.tolist()])
    if not kept_N.any():
        raise UserError('the audit flags every image of this split')
    logits = predictions.logits
    probabilities_NK = ensemble_probabilities(logits) if member is None else softmax(logits[member])
    right_N = probabilities_NK.argmax(1) == predictions.labels
    return float(right_N[kept_N].mean()), float(kept_N.mean())
