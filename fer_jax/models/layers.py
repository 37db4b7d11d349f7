"""Layers that several families share. Shape letters: B images, H and W pixels, I and O input and output channels."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_AXES = ('NHWC', 'HWIO', 'NHWC')


def max_pool_2x2(x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H//2 W//2 C']:
    """2x2 max-pooling with stride 2; an odd last row or column is left out, as with padding VALID.

    By reshape and max: on a CPU XLA's reduce_window and its gradient take several times as long.
    """
    b, h, w, c = x_BHWC.shape
    x_BHWC = x_BHWC[:, : h // 2 * 2, : w // 2 * 2]
    return jnp.max(x_BHWC.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


class ConvMaxPool(nn.Module):
    """Convolution (stride 1, zero padding that keeps the size, bias), then 2x2 max-pool. Parameters as `nn.Conv`'s.

    With few input channels a CPU runs it much faster in blocks: 2x2 pixels become channels, one convolution with four
    times the channels gives the four pixels that the pool compares, and the pool needs no shuffling. The result is
    the same. On 2 cores (batch 128, float32, four interleaved rounds) the shallow network's training step ran at 1,176
    images/s at best, median 632, against 768 and 441; the wider one's, all in blocks, at 266 against 286.

    Attributes:
        features: O.
        kernel_size: odd side of the kernel.
        dtype: of the computation.
        blocked: whether to compute in blocks; None: on a CPU with at most 16 input channels.
    """

    features: int
    kernel_size: int = 5
    dtype: Any = jnp.float32
    blocked: bool | None = None

    @nn.compact
    def __call__(self, x_BHWI: Float[Array, 'B H W I']) -> Float[Array, 'B H//2 W//2 O']:
        _, h, w, i = x_BHWI.shape
        shape = (self.kernel_size, self.kernel_size, i, self.features)
        kernel = self.param('kernel', nn.initializers.he_normal(), shape).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x_BHWI = x_BHWI.astype(self.dtype)
        blocked = self.blocked
        if blocked is None:
            blocked = jax.default_backend() == 'cpu' and i <= 16
        if not blocked or h % 2 or w % 2:
            out = jax.lax.conv_general_dilated(x_BHWI, kernel, (1, 1), 'SAME', dimension_numbers=_AXES)
            return max_pool_2x2(out) + bias
        out = jax.lax.conv_general_dilated(
            blocks_2x2(x_BHWI), block_kernel(kernel), (1, 1), 'SAME', dimension_numbers=_AXES
        )
        first, second, third, fourth = jnp.split(out, 4, -1)
        return jnp.maximum(jnp.maximum(first, second), jnp.maximum(third, fourth)) + bias


def blocks_2x2(x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H//2 W//2 4*C']:
    """Each 2x2 block of pixels as the channels of one pixel, row by row."""
    b, h, w, c = x_BHWC.shape
    return x_BHWC.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def block_kernel(kernel_KKIO: Float[Array, 'K K I O']) -> Float[Array, 'L L 4*I 4*O']:
    """The kernel that does on `blocks_2x2` what the given one (odd side, zero padding) does on pixels.

    The pixel in row y of output block Y reads input rows 2 Y + y + k - K // 2; in blocks of two these begin
    at Y - q with q = ceil((K // 2) / 2), so the kernel is shifted by y + 2 q - K // 2 within L blocks.
    """
    side, _, i, o = kernel_KKIO.shape
    start = side // 2 % 2
    length = -(-(side + 1 + start) // 2)
    before = lambda offset: (start + offset, 2 * length - side - start - offset)
    shifted = jnp.stack([jnp.pad(kernel_KKIO, (before(y), before(x), (0, 0), (0, 0))) for y in (0, 1) for x in (0, 1)])
    shifted = shifted.reshape(4, length, 2, length, 2, i, o)
    return shifted.transpose(1, 3, 2, 4, 5, 0, 6).reshape(length, length, 4 * i, 4 * o)
