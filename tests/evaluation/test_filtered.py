import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.evaluation.filtered import filtered_accuracy
from fer_jax.evaluation.predictions import Predictions


def predictions(chosen_MN, labels_N):
    """Members that choose these of three classes, the first one more surely than the others."""
    logits = 3 * np.eye(3, dtype=np.float32)[np.array(chosen_MN)]
    logits[0] *= 3
    count = len(labels_N)
    ids = np.array([f'v{index}' for index in range(count)])
    return Predictions(
        ids,
        np.array(labels_N, np.int32),
        logits,
        np.arange(len(logits)),
        np.array(['a', 'b', 'c']),
        np.zeros(count, bool),
        np.array(['m'] * len(logits)),
        np.array(['r'] * len(logits)),
    )


def test_flagged_images_do_not_count_and_all_others_do():
    #                     right: v0, v1, v4         right: v0, v1
    of = predictions([[0, 1, 2, 0, 1], [0, 1, 2, 2, 2]], [0, 1, 0, 1, 1])
    assert filtered_accuracy(of, set(), 0) == (pytest.approx(3 / 5), 1.0)
    assert filtered_accuracy(of, {'v2', 'v3'}, 0) == (pytest.approx(3 / 3), pytest.approx(3 / 5))
    assert filtered_accuracy(of, {'v0', 'v3'}, 1) == (pytest.approx(1 / 3), pytest.approx(3 / 5))
    assert filtered_accuracy(of, {'v0', 'v3'}) == (pytest.approx(2 / 3), pytest.approx(3 / 5))  # the surer one decides


def test_flags_of_other_images_and_flags_of_all_are_refused():
    of = predictions([[0, 1]], [0, 1])
    with pytest.raises(UserError, match="'t1', which is no image of this split"):
        filtered_accuracy(of, {'v0', 't1'}, 0)
    with pytest.raises(UserError, match='every image'):
        filtered_accuracy(of, {'v0', 'v1'}, 0)
