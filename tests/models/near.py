"""Arrays to compare, and how near two must be."""

import jax.numpy as jnp
import numpy as np


def draw(*shape, dtype='float32'):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def assert_near(ours, theirs, tolerance):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    theirs = np.asarray(theirs, np.float32)
    np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, atol=tolerance * np.abs(theirs).max(), rtol=0)
