"""Numbers drawn in a row are those of jax.random in their shape, and dropout is flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.draws import in_a_row
from fer_jax.models.layers import Dropout


@pytest.mark.parametrize(
    ('draw', 'options'),
    [
        (jax.random.uniform, {'minval': -1.0}),
        (jax.random.bits, {'dtype': jnp.uint32}),
        (jax.random.bernoulli, {'p': 0.3}),
    ],
)
def test_the_numbers_are_those_of_the_shape(draw, options):
    for shape in ((7,), (2, 3, 4)):
        found = in_a_row(draw, jax.random.key(3), shape, **options)
        np.testing.assert_array_equal(found, draw(jax.random.key(3), shape=shape, **options))


class Dropping(nn.Module):
    layer: type
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return self.layer(self.rate, deterministic=not train, name='drop')(x)


@pytest.mark.parametrize('rate', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('train', [True, False])
def test_dropout_is_flaxs(rate, train):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 3)), jnp.float32)
    ours, theirs = (
        Dropping(layer, rate).apply({}, x, train, rngs={'dropout': jax.random.key(1)})
        for layer in (Dropout, nn.Dropout)
    )
    np.testing.assert_array_equal(ours, theirs)
