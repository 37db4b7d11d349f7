"""The temperature that makes an ensemble's probabilities as sure as they are right (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

import math

import scipy  # whose parts are imported when they are used

from fer_jax.evaluation.predictions import LabelsN, LogitsMNK
from fer_jax.evaluation.scores import ensemble_probabilities, negative_log_likelihood

_RANGE = (0.05, 20.0)


def fit_temperature(logits_MNK: LogitsMNK, labels_N: LabelsN) -> float:
    """The T for which the mean of the members' softmax(logits / T) has the lowest negative log-likelihood.

    Args:
        logits_MNK: on validation, which fits no parameter of the members.
        labels_N: class indices.
    """
    nll = lambda log: negative_log_likelihood(ensemble_probabilities(logits_MNK / math.exp(log)), labels_N)
    found = scipy.optimize.minimize_scalar(
        nll, bounds=tuple(map(math.log, _RANGE)), method='bounded', options={'xatol': 1e-5}
    )
    return math.exp(found.x)
