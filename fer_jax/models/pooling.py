"""Maxima of four numbers whose gradients are quick on a CPU, of an array and of a layer.

Shape letters: B images, H and W pixels, I and O input and output channels, K side of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.convolution import (
    SUMMED,
    Pads,
    alone,
    by_onednn,
    convolve,
    convolve_on_cpu,
    count_parts,
    gradients,
    in_parts,
    rearranged,
    rows_apart,
)
from fer_jax.models.fusion import apart
from fer_jax.models.norms import add_bias, sum_rows

_NONE = 4  # of the four numbers has a gradient, where ReLU has none


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(x: Float[Array, '*any'], axes: tuple[int, ...]) -> Float[Array, '*fewer']:
    """The maximum over axes that together hold four numbers; the gradient goes to the first of equal ones.

    (jnp.max shares it among them, at the price of a count.)
    """
    return jax.lax.reduce_max(x, axes) if _in_few_channels(x, axes) else reduce(jnp.maximum, _parts(x, axes))


def _largest_forward(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    if _in_few_channels(x, axes):
        most = largest(x, axes)
        which = jnp.where(x == jnp.expand_dims(most, axes), _numbers(x.ndim, axes), 3)
        return most, jax.lax.reduce_min(which, axes).astype(jnp.uint8)
    return _largest_of(_parts(x, axes))


def _largest_of(parts: Sequence[Array]) -> tuple[Array, Array]:
    """The maximum, and the first of those that are it."""
    most, which = parts[0], jnp.zeros(parts[0].shape, jnp.uint8)
    for index, part in enumerate(parts[1:], 1):
        which = jnp.where(part > most, jnp.uint8(index), which)
        most = jnp.maximum(most, part)
    return most, which


def _in_few_channels(x: Array, axes: tuple[int, ...]) -> bool:
    """Whether XLA makes quick code of a reduction alone.

    Of 16 channels .17 ms for .60, but of 2x2 pixels .67 for .18, and in bfloat16 3.3 for .66.
    """
    return axes == (x.ndim - 2,) and x.shape[-1] < 32 and x.dtype == jnp.float32


def _numbers(rank: int, axes: tuple[int, ...]) -> Array:
    """0 to 3 along the axes."""
    numbers = jnp.arange(4).reshape([2 if len(axes) == 2 else 4] * len(axes))
    return jnp.expand_dims(numbers, [axis for axis in range(rank) if axis not in axes])


def _largest_backward(axes: tuple[int, ...], which: Array, change: Array) -> tuple[Array]:
    def spread(which: Array, change: Array) -> Array:
        which, change = jnp.expand_dims(which, axes), jnp.expand_dims(change, axes)
        return jnp.where(which == _numbers(which.ndim, axes).astype(jnp.uint8), change, 0)

    return (apart(spread, which, change),)


largest.defvjp(_largest_forward, _largest_backward)


def convolve_and_pool(
    x_BHWI: Float[Array, 'B H W I'],
    kernel_KKIO: Float[Array, 'K K I O'],
    bias_P: Float[Array, ' P'],
    padding: Sequence[tuple[int, int]],
    blocked: bool,
    few: bool = False,
) -> Float[Array, 'B H2 W2 P']:
    """A convolution of stride 1, the maximum of each four numbers, bias, ReLU; a CPU's cache holds what lies between.

    Args:
        bias_P: added to the maximum, which is as good as to all four.
        blocked: whether the four are channels that lie O/4 apart, P = O/4, instead of 2x2 pixels, H2 = H/2 and P = O,
            whose sides are even.
        few: see `convolve`.
    """
    padding = tuple(map(tuple, padding))
    if alone():
        return _convolve_and_pool(x_BHWI, kernel_KKIO, bias_P, padding, blocked, few)
    fours, axes = _fours(convolve(x_BHWI, kernel_KKIO, (1, 1), padding, few=few), blocked)
    return jax.nn.relu(add_bias(largest(fours, axes) if rearranged() else jnp.max(fours, axes), bias_P))


def _fours(x_BHWC: Array, blocked: bool) -> tuple[Array, tuple[int, ...]]:
    b, h, w, c = x_BHWC.shape
    if blocked:
        return x_BHWC.reshape(b, h, w, 4, c // 4), (3,)
    return x_BHWC.reshape(b, h // 2, 2, w // 2, 2, c), (2, 4)


def _pooled(x_BHWI: Array, kernel_KKIO: Array, padding: Pads, blocked: bool, few: bool) -> tuple[Array, Array]:
    """The maximum of each of the convolution's fours, and which it is."""
    rows = None if blocked else rows_apart(x_BHWI, kernel_KKIO, padding)
    if rows is None:
        return _largest_forward(*_fours(convolve_on_cpu(x_BHWI, kernel_KKIO, (1, 1), padding, few), blocked))
    # Rows that come apart are compared as they are: put together first, they are written and read once more.
    b, h, w, o = rows[0].shape
    cut = [row.reshape(b, h, w // 2, 2, o) for row in rows]
    fours = [[row[:, :, :, column] for row in pair for column in (0, 1)] for pair in (cut[:2], cut[2:])]
    stack = lambda *arrays: jnp.stack(arrays, 2).reshape(b, 2 * h, w // 2, o)
    return jax.tree.map(stack, *map(_largest_of, fours))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _convolve_and_pool(
    x_BHWI: Array, kernel_KKIO: Array, bias_P: Array, padding: Pads, blocked: bool, few: bool
) -> Array:
    def of_part(x_BHWI: Array) -> tuple[Array, tuple[()]]:
        return jax.nn.relu(add_bias(_pooled(x_BHWI, kernel_KKIO, padding, blocked, few)[0], bias_P)), ()

    return in_parts(of_part, _count(x_BHWI, kernel_KKIO, few), x_BHWI)[0]


def _count(x_BHWI: Array, kernel_KKIO: Array, few: bool, images: int = 1) -> int:
    # In bfloat16 oneDNN's steps took 109 and 45 ms (wider, shallow network) without parts, 122 and 50 with them.
    return 1 if by_onednn(x_BHWI, few) else count_parts(x_BHWI, kernel_KKIO, images)


def _convolve_and_pool_forward(
    x_BHWI: Array, kernel_KKIO: Array, bias_P: Array, padding: Pads, blocked: bool, few: bool
) -> tuple[Array, tuple[Array, ...]]:
    def of_part(x_BHWI: Array) -> tuple[tuple[Array, Array], tuple[()]]:
        most, which = _pooled(x_BHWI, kernel_KKIO, padding, blocked, few)
        out = jax.nn.relu(add_bias(most, bias_P))
        return (out, jnp.where(out > 0, which, jnp.uint8(_NONE))), ()

    (out, which), _ = in_parts(of_part, _count(x_BHWI, kernel_KKIO, few), x_BHWI)
    return out, (x_BHWI, kernel_KKIO, bias_P, which)


def _convolve_and_pool_backward(
    padding: Pads, blocked: bool, few: bool, saved: tuple[Array, ...], change: Array
) -> tuple[Array, Array, Array]:
    x_BHWI, kernel_KKIO, bias_P, which = saved

    def of_part(x_BHWI: Array, which: Array, change: Array) -> tuple[Array, tuple[Array, Array]]:
        kept = jnp.where(which == _NONE, 0, change).astype(jnp.float32)
        by_bias = sum_rows(kept)
        (change,) = _largest_backward((3,) if blocked else (2, 4), which, change)
        sizes = [size + sum(ends) - len(kernel_KKIO) + 1 for size, ends in zip(x_BHWI.shape[1:], padding, strict=False)]
        change_BHWO = change.reshape(len(x_BHWI), *sizes, kernel_KKIO.shape[-1])
        by_input, by_kernel = gradients((1, 1), padding, few, (x_BHWI, kernel_KKIO), change_BHWO)
        return by_input, (by_kernel, by_bias)

    by_input, (by_kernel, by_bias) = in_parts(of_part, _count(x_BHWI, kernel_KKIO, few, SUMMED), x_BHWI, which, change)
    return by_input, by_kernel, by_bias.astype(bias_P.dtype)


_convolve_and_pool.defvjp(_convolve_and_pool_forward, _convolve_and_pool_backward)


def _parts(x: Array, axes: tuple[int, ...]) -> list[Array]:
    parts = [x]
    for axis in reversed(axes):
        parts = [
            jax.lax.index_in_dim(part, index, axis, keepdims=False) for index in range(x.shape[axis]) for part in parts
        ]
    return parts
