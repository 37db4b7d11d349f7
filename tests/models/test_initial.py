"""Kernels begin with the very numbers of jax.nn.initializers."""

import jax
import numpy as np
import pytest

from fer_jax.models import initial

of_jax = jax.nn.initializers
PAIRS = {
    'he_normal': (initial.he_normal, of_jax.he_normal()),
    'lecun_normal': (initial.lecun_normal, of_jax.lecun_normal()),
    'glorot_uniform': (initial.glorot_uniform, of_jax.glorot_uniform()),
    'fan_out': (
        initial.variance_scaling(2.0, 'fan_out', 'normal'),
        of_jax.variance_scaling(2.0, 'fan_out', 'normal'),
    ),
    'normal': (initial.normal(0.02), of_jax.normal(0.02)),
}


@pytest.mark.parametrize('name', PAIRS)
@pytest.mark.parametrize('shape', [(3, 3, 2, 5), (6, 4)], ids=['convolution', 'dense'])
def test_drawn_in_a_row_they_are_the_same_numbers(name, shape):
    ours, theirs = PAIRS[name]
    np.testing.assert_array_equal(ours(jax.random.key(3), shape), theirs(jax.random.key(3), shape))
