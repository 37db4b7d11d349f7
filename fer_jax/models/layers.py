"""Layers that several families share. Shape letters: B images, H and W pixels, C channels."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool_2x2(x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H//2 W//2 C']:
    """2x2 max-pooling with stride 2; an odd last row or column is left out, as with padding VALID.

    By reshape and max: on a CPU XLA's reduce_window and its gradient take several times as long.
    """
    b, h, w, c = x_BHWC.shape
    x_BHWC = x_BHWC[:, : h // 2 * 2, : w // 2 * 2]
    return jnp.max(x_BHWC.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
