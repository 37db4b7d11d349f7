"""Normalisation over images and pixels, and biases, whose sums are quick on a CPU.

Shape letters: G groups that are normalised apart, N values of each group and channel, B images, H and W pixels, C
channels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.convolution import alone

_ROUNDED = 64  # of those sums that one number of a product adds up, for the sake of its rounding
_TOGETHER = 12  # rows that are summed in one loop over channels; XLA takes loops of 32 and more for what it must cut up


class BatchNorm(nn.BatchNorm):
    """flax's BatchNorm, in training over the whole batch or over each of several equal parts of it.

    Part g is the g-th run of B / G images in a row, wherever these lie: a network's numbers depend on the groups and
    not on the number of devices. Where every device holds whole parts, nothing is sent before the output; running
    averages are the mean over the parts, and the variance among them that within a part.

    Attributes:
        groups: G; one is over all of the batch on all devices.
    """

    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, 'B *any C']) -> Float[Array, 'B *any C']:
        """Normalises.

        Raises:
            ValueError: if the batch does not divide into the groups.
        """
        usual = self.use_scale and self.use_bias and self.axis in (-1, x.ndim - 1) and not self.axis_name
        ours = self.groups > 1 or usual and x.size and alone()
        if self.use_running_average or self.is_initializing() or not ours:
            return super().__call__(x)
        channels = x.shape[-1]
        running = {name: self.variable('batch_stats', name) for name in ('mean', 'var')}
        scale = self.param('scale', self.scale_init, (channels,), self.param_dtype)
        bias = self.param('bias', self.bias_init, (channels,), self.param_dtype)
        if len(x) % self.groups:
            raise ValueError(f'a batch of {len(x)} does not divide into {self.groups} groups')
        dtype = self.dtype or jnp.promote_types(x.dtype, self.param_dtype)
        out, *found = normalize(x.reshape(self.groups, -1, channels), scale, bias, self.epsilon, dtype)
        for name, of_groups in zip(('mean', 'var'), found, strict=True):
            running[name].value = self.momentum * running[name].value + (1 - self.momentum) * of_groups.mean(0)
        return out.reshape(x.shape)


def instance_norm(x_BHWC: Float[Array, 'B H W C'], epsilon: float = 1e-5) -> Float[Array, 'B H W C']:
    """Zero mean and unit variance for each image and channel, without parameters; computed in float32."""
    if not alone():
        wide = x_BHWC.astype(jnp.float32)
        centred = wide - wide.mean((1, 2), keepdims=True)
        variance = jnp.square(centred).mean((1, 2), keepdims=True)
        return (centred * jax.lax.rsqrt(variance + epsilon)).astype(x_BHWC.dtype)
    b, *_, channels = x_BHWC.shape
    ones = jnp.ones(channels)
    out, *_ = normalize(x_BHWC.reshape(b, -1, channels), ones, 0 * ones, epsilon, x_BHWC.dtype, centred=True)
    return out.reshape(x_BHWC.shape)


def normalize(
    x_GNC: Float[Array, 'G N C'],
    scale_C: Float[Array, ' C'],
    bias_C: Float[Array, ' C'],
    epsilon: float,
    dtype: Any = jnp.float32,
    centred: bool = False,
) -> tuple[Float[Array, 'G N C'], Float[Array, 'G C'], Float[Array, 'G C']]:
    """What is normalised over N, scaled and shifted; mean and variance, in float32.

    Gradients are those of the first alone: nothing flows through the mean and variance that are returned.

    Args:
        dtype: of the first.
        centred: whether the variance is the mean of squared distances, which a second pass takes, instead of the mean
            square less the squared mean.
    """
    out, mean, var = _normalize(x_GNC, scale_C, bias_C, epsilon, dtype, centred)
    return out, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(
    x_GNC: Array, scale_C: Array, bias_C: Array, epsilon: float, dtype: Any, centred: bool
) -> tuple[Array, ...]:
    exact = x_GNC.astype(jnp.float32)
    mean = _mean(exact)
    if centred:
        var = _mean(jnp.square(exact - mean[:, None]))
    else:
        var = jnp.maximum(0.0, _mean(jnp.square(exact)) - jnp.square(mean))
    factor = jax.lax.rsqrt(var + epsilon) * scale_C
    return ((exact - mean[:, None]) * factor[:, None] + bias_C).astype(dtype), mean, var


def _forward(x_GNC: Array, scale_C: Array, bias_C: Array, epsilon: float, dtype: Any, centred: bool) -> Any:
    found = _normalize(x_GNC, scale_C, bias_C, epsilon, dtype, centred)
    return found, (x_GNC, scale_C, *found[1:])


def _backward(
    epsilon: float, dtype: Any, centred: bool, saved: tuple[Array, ...], changes: tuple[Array, ...]
) -> tuple[Array, ...]:
    x_GNC, scale_C, mean, var = saved
    change = changes[0].astype(jnp.float32)
    inverse = jax.lax.rsqrt(var + epsilon)
    normal = (x_GNC.astype(jnp.float32) - mean[:, None]) * inverse[:, None]
    shifted, scaled = _mean(change), _mean(change * normal)
    by_x = (inverse * scale_C)[:, None] * (change - shifted[:, None] - normal * scaled[:, None])
    n = x_GNC.shape[1]
    by_scale, by_bias = (n * part.sum(0).astype(scale_C.dtype) for part in (scaled, shifted))
    return by_x.astype(x_GNC.dtype), by_scale, by_bias


_normalize.defvjp(_forward, _backward)


@jax.custom_vjp
def add_bias(x: Float[Array, '*any C'], bias_C: Float[Array, ' C']) -> Float[Array, '*any C']:
    """Adds the bias; its gradient is summed in float32.

    Written plainly, XLA's CPU backend rounds a sum of bfloat16 numbers at every one of them (4,096 ones made 256),
    and took 17 ms for what takes .5 (32 images of 48x48x64).
    """
    return x + bias_C.astype(x.dtype)


def _add_bias_backward(like_C: Array, change: Array) -> tuple[Array, Array]:
    return change, sum_rows(change.astype(jnp.float32)).astype(like_C.dtype)


add_bias.defvjp(lambda x, bias_C: (add_bias(x, bias_C), bias_C), _add_bias_backward)


def sum_rows(values: Float[Array, '*any C']) -> Float[Array, ' C']:
    """The sum over all axes but the last."""
    if not alone():
        return values.sum(tuple(range(values.ndim - 1)))
    return _sum(values.reshape(1, -1, values.shape[-1]))[0]


def _mean(values_GNC: Float[Array, 'G N C']) -> Float[Array, 'G C']:
    return _sum(values_GNC) / values_GNC.shape[1]


def _sum(values_GNC: Float[Array, 'G N C']) -> Float[Array, 'G C']:
    """The sum over N.

    XLA cuts a sum over many rows into four, each of which then goes down the columns number by number: 6.1 ms for
    a sum and one of squares over 14 MB, instead of .8 in loops over few rows. Sums of those sums XLA would join with
    them again, were they no products with ones; of those each is of few rows too, for the sake of its rounding.
    """
    g, n, c = values_GNC.shape
    part = _largest_divisor(n, _TOGETHER) if alone() and n else 1
    if part == 1:
        return values_GNC.sum(1)
    rows, parts = n // part, values_GNC.reshape(g, n // part, part, c).sum(2)
    few = _largest_divisor(rows, _ROUNDED)
    parts = jnp.einsum('gmr,gmrc->gmc', jnp.ones((g, rows // few, few)), parts.reshape(g, rows // few, few, c))
    return parts.sum(1)


def _largest_divisor(number: int, most: int) -> int:
    return max(part for part in range(1, most + 1) if number % part == 0)
