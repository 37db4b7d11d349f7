"""What keeps XLA from fusing."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


def apart(function: Callable[..., Array], *arrays: Array) -> Array:
    """`function(*arrays)` as a computation of its own, which XLA fuses with nothing before or after it.

    XLA's CPU backend makes one loop of whatever is element by element, be it that the loop then reads across the grain
    of the cache, or makes an array again for each of its readers. Nothing is fused into or out of the branch of a
    condition; that it is always true XLA does not see.
    """
    like = jax.eval_shape(function, *arrays)
    true = jax.lax.optimization_barrier(jnp.asarray(True))
    return jax.lax.cond(true, function, lambda *_: jnp.zeros(like.shape, like.dtype), *arrays)
