"""Normalisation with sums that one CPU cuts: against the formula, double precision and flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models.norms import BatchNorm, instance_norm, normalize
from tests.models.near import assert_near, draw


@pytest.mark.parametrize('centred', [False, True])
@pytest.mark.parametrize('shape', [(1, 60, 5), (3, 37, 4)])  # cut into twelves, and a prime number
def test_a_normalisation_and_its_gradients_are_those_of_the_formula(alone, shape, centred):
    x, scale, bias, change = draw(*shape), draw(shape[-1]) + 2, draw(shape[-1] + 1)[:-1], draw(*shape, 2)[..., 1]

    def formula(x, scale, bias):
        mean = x.mean(1, keepdims=True)
        var = jnp.square(x - mean).mean(1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-3) * scale + bias

    ours = lambda *arrays: normalize(*arrays, 1e-3, centred=centred)[0]
    found, pull = jax.vjp(jax.jit(ours), x, scale, bias)
    expected, back = jax.vjp(formula, x, scale, bias)
    for a, b in zip((found, *pull(change)), (expected, *back(change)), strict=True):
        assert_near(a, b, 5e-6)
    _, mean, var = normalize(x, scale, bias, 1e-3, centred=centred)
    np.testing.assert_allclose(mean, x.mean(1), atol=1e-6)
    np.testing.assert_allclose(var, x.var(1), rtol=1e-5)


def test_a_mean_of_many_is_as_exact_as_xlas(alone):
    x = 10 + draw(1, 73728, 8)
    exact = np.asarray(x, np.float64)
    _, mean, var = normalize(x, jnp.ones(8), jnp.zeros(8), 1e-5)
    np.testing.assert_allclose(mean, exact.mean(1), rtol=3e-7)
    np.testing.assert_allclose(var, exact.var(1), rtol=1e-4)


@pytest.mark.parametrize(('dtype', 'of_x'), [(None, 'bfloat16'), ('float32', 'bfloat16'), ('bfloat16', 'float32')])
def test_batch_norm_gives_the_type_that_flaxs_gives(alone, dtype, of_x):
    x = draw(8, 6, 6, 3, dtype=of_x)
    ours, theirs = (kind(use_running_average=False, dtype=dtype) for kind in (BatchNorm, nn.BatchNorm))
    variables = theirs.init(jax.random.key(0), x)
    found, expected = (layer.apply(variables, x, mutable=['batch_stats']) for layer in (ours, theirs))
    jax.tree.map(lambda a, b: assert_near(a, b, 1e-2 if dtype == 'bfloat16' else 1e-6), found, expected)


@pytest.mark.parametrize('options', [{'use_scale': False}, {'use_bias': False}, {'axis': 1}])
def test_batch_norm_of_other_kinds_is_flaxs(alone, options):
    x = draw(8, 6, 6, 3)
    ours, theirs = (kind(use_running_average=False, **options) for kind in (BatchNorm, nn.BatchNorm))
    variables = theirs.init(jax.random.key(0), x)
    found, expected = (layer.apply(variables, x, mutable=['batch_stats']) for layer in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_an_instances_norm_is_the_same_with_its_sums_cut(alone, monkeypatch):
    x, change = 5 + draw(2, 8, 6, 3), draw(2, 8, 6, 3, 2)[..., 1]
    one, pull = jax.vjp(instance_norm, x)
    monkeypatch.setattr(jax, 'device_count', lambda: 8)
    other, back = jax.vjp(instance_norm, x)
    assert_near(one, other, 1e-6)
    assert_near(*pull(change), *back(change), 1e-5)
