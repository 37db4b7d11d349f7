"""First values of kernels: those of jax.nn.initializers, drawn in a row.

XLA's CPU backend takes 1 to 9 s to compile a draw of random numbers in the shape of a kernel, for every shape anew, and
.4 s to compile the same numbers in a row (jax 0.10.2, one core of an AMD EPYC). A network has a dozen shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Initializer = Callable[..., jax.Array]

_TRUNCATED = 0.87962566103423978  # deviation of a normal distribution cut off at two deviations


def variance_scaling(scale: float, mode: str, distribution: str) -> Initializer:
    """As `jax.nn.initializers.variance_scaling`, for kernels [..., inputs, outputs].

    Args:
        mode: of what the variance is a part: `fan_in`, `fan_out` or `fan_avg`.
        distribution: `normal`, `truncated_normal` (at two deviations) or `uniform`.
    """

    def init(key, shape, dtype=jnp.float32, **_):
        inputs, outputs = math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]
        fan = {'fan_in': inputs, 'fan_out': outputs, 'fan_avg': (inputs + outputs) / 2}[mode]
        variance, size = jnp.array(scale / fan, dtype), (math.prod(shape),)
        if distribution == 'uniform':
            drawn = jax.random.uniform(key, size, dtype, -1) * jnp.sqrt(3 * variance)
        elif distribution == 'normal':
            drawn = jax.random.normal(key, size, dtype) * jnp.sqrt(variance)
        else:
            drawn = jax.random.truncated_normal(key, -2, 2, size, dtype) * (jnp.sqrt(variance) / _TRUNCATED)
        return drawn.reshape(shape)

    return init


def normal(deviation: float) -> Initializer:
    """As `jax.nn.initializers.normal`."""

    def init(key, shape, dtype=jnp.float32, **_):
        return (jax.random.normal(key, (math.prod(shape),), dtype) * jnp.array(deviation, dtype)).reshape(shape)

    return init


he_normal = variance_scaling(2.0, 'fan_in', 'truncated_normal')
lecun_normal = variance_scaling(1.0, 'fan_in', 'truncated_normal')
glorot_uniform = variance_scaling(1.0, 'fan_avg', 'uniform')
