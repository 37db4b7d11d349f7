"""First values: of kernels, those of jax.nn.initializers, drawn in a row; and of all of a network.

See `fer_jax.draws`. A network has kernels of a dozen shapes; rows of a few lengths serve for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from fer_jax.models.convolution import as_written

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
        variance = jnp.array(scale / fan, dtype)
        if distribution == 'uniform':
            draw, deviation = partial(jax.random.uniform, minval=-1), jnp.sqrt(3 * variance)
        elif distribution == 'normal':
            draw, deviation = jax.random.normal, jnp.sqrt(variance)
        else:
            draw, deviation = partial(jax.random.truncated_normal, lower=-2, upper=2), jnp.sqrt(variance) / _TRUNCATED
        return _drawn(draw, key, shape, dtype) * deviation

    return init


def normal(deviation: float) -> Initializer:
    """As `jax.nn.initializers.normal`."""

    def init(key, shape, dtype=jnp.float32, **_):
        return _drawn(jax.random.normal, key, shape, dtype) * jnp.array(deviation, dtype)

    return init


def _drawn(draw: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    count = math.prod(shape)
    return draw(key, shape=(1 << (count - 1).bit_length(),), dtype=dtype)[:count].reshape(shape)


@partial(jax.jit, static_argnums=(0, 1))  # traced once, whoever asks for values or shapes
def init_variables(model: nn.Module, shape: tuple[int, ...], key: Key[Array, '']) -> Any:
    """Those that a network for images [B, H, W, C] of the `shape` [H, W, C] has at first.

    Nothing else of it is computed, and layers are traced as they are written, which is quicker.
    """
    with as_written():
        return model.lazy_init(key, jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def variable_shapes(model: nn.Module, shape: tuple[int, ...]) -> Any:
    """Shapes and types of `init_variables`."""
    return jax.eval_shape(partial(init_variables, model, shape), jax.random.key(0))


he_normal = variance_scaling(2.0, 'fan_in', 'truncated_normal')
lecun_normal = variance_scaling(1.0, 'fan_in', 'truncated_normal')
glorot_uniform = variance_scaling(1.0, 'fan_avg', 'uniform')
