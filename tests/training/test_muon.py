"""Muon in batches is optax's Muon, its state included."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.training.optimizer import OptimizerOptions, make_optimizer


def parameters():
    shapes = {
        'Conv_0': {'kernel': (3, 3, 4, 8), 'bias': (8,)},
        'Conv_1': {'kernel': (3, 3, 4, 8)},
        'Conv_2': {'kernel': (1, 1, 4, 40)},  # more outputs than inputs
        'Conv_3': {'kernel': (1, 1, 40, 4)},  # the same sides the other way round
        'Dense_0': {'kernel': (12, 20)},
        'head': {'kernel': (20, 3), 'bias': (3,)},
    }
    random = np.random.default_rng(0)
    make = lambda shape: jnp.asarray(random.standard_normal(shape), jnp.float32)
    return jax.tree.map(make, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))


def of_optax(rate):
    """The same by optax alone, kernel by kernel."""

    def matrices(params):
        def numbers(path, array):
            if array.ndim < 2 or path[0].key == 'head':
                return None
            return optax.contrib.MuonDimensionNumbers(tuple(range(array.ndim - 1)), array.ndim - 1)

        return jax.tree_util.tree_map_with_path(numbers, params)

    return optax.contrib.muon(
        rate,
        beta=0.9,
        nesterov=True,
        weight_decay=0.1,
        weight_decay_mask=lambda params: jax.tree.map(lambda array: array.ndim > 1, params),
        adam_b1=0.8,
        adam_b2=0.9,
        adam_learning_rate=lambda step: 0.1 * rate(step),
        muon_weight_dimension_numbers=matrices,
    )


def test_updates_and_state_are_those_of_optax():
    rate = lambda step: 0.1 / (1 + step)
    options = OptimizerOptions('muon', momentum=0.9, nesterov=True, weight_decay=0.1, b1=0.8, b2=0.9)
    ours, theirs = make_optimizer(options, rate), optax.chain(of_optax(rate))
    params = other = parameters()
    state, other_state = ours.init(params), theirs.init(other)
    assert jax.tree.structure(state) == jax.tree.structure(other_state)  # so that runs of either go on
    gradients = parameters()
    for _ in range(3):
        changes, state = ours.update(gradients, state, params)
        expected, other_state = theirs.update(gradients, other_state, other)
        for change, wanted in zip(jax.tree.leaves(changes), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(change, wanted, rtol=2e-4, atol=1e-6)
        params, other = optax.apply_updates(params, changes), optax.apply_updates(other, expected)
        gradients = jax.tree.map(lambda array: 0.5 * array + 0.1, gradients)
