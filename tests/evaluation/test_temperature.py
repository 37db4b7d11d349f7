import numpy as np
import pytest

from fer_jax.evaluation.scores import softmax
from fer_jax.evaluation.temperature import fit_temperature


@pytest.mark.parametrize('true', [0.3, 1.0, 2.5])
def test_labels_drawn_at_a_temperature_give_it_back(true):
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (1, 60_000, 4)).astype(np.float32)
    shares = softmax(logits[0] / true)
    labels = (random.random((60_000, 1)) > shares.cumsum(1)).sum(1)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


def test_one_members_temperature_meets_the_first_order_condition():
    """Where d NLL / dT is 0, the mean logit of the true class is the mean logit under the tempered probabilities."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 4, (1, 500, 5))
    labels = np.where(random.random(500) < 0.6, logits[0].argmax(1), random.integers(0, 5, 500))
    shares = softmax(logits[0] / fit_temperature(logits, labels))
    assert logits[0, np.arange(500), labels].mean() == pytest.approx((shares * logits[0]).sum(1).mean(), abs=1e-4)
