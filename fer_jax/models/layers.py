"""Layers that several families share.

Shape letters: B images, H and W pixels, C channels, I and O input and output channels.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.draws import in_a_row
from fer_jax.errors import UserError
from fer_jax.models.convolution import by_onednn, convolve, goes_in_rows, rearranged
from fer_jax.models.initial import he_normal
from fer_jax.models.norms import add_bias
from fer_jax.models.pooling import convolve_and_pool, largest


def check_side(model: nn.Module, images_BHWC: Array, least: int) -> None:
    """Refuses images whose shorter side has fewer than `least` pixels: nothing would be left of them."""
    side = min(images_BHWC.shape[1:3])
    if side < least:
        raise UserError(
            f'{type(model).__name__} needs images of at least {least} pixels a side; it would see {side} '
            '(config.data.size and config.data.crop set that)'
        )


def last_maps(model: nn.Module, x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H W C']:
    """The last convolutional features, passed through; to these saliency adds `saliency/shift` where it is given.

    So the gradient of a logit by these features can be taken, without a second program for the rest of the network.
    """
    if model.has_variable('saliency', 'shift'):
        return x_BHWC + model.get_variable('saliency', 'shift')
    return x_BHWC


def max_pool_2x2(x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H//2 W//2 C']:
    """2x2 max-pooling with stride 2; an odd last row or column is left out, as with padding VALID.

    By reshape and max: on a CPU XLA's reduce_window and its gradient take several times as long. Of equal pixels the
    first has the gradient there; elsewhere they share it.
    """
    b, h, w, c = x_BHWC.shape
    x_BHWC = x_BHWC[:, : h // 2 * 2, : w // 2 * 2]
    blocks = x_BHWC.reshape(b, h // 2, 2, w // 2, 2, c)
    return largest(blocks, (2, 4)) if rearranged() else jnp.max(blocks, (2, 4))


class Dropout(nn.Module):
    """As flax's, with the same numbers.

    Attributes:
        rate: share of the values that are set to zero; the others are divided by 1 - rate.
        deterministic: whether nothing is done.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.rate == 0 or self.deterministic:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        kept = 1.0 - self.rate
        mask = in_a_row(jax.random.bernoulli, self.make_rng('dropout'), x.shape, p=kept)
        return jnp.where(mask, x / kept, jnp.zeros_like(x))


class Conv(nn.Conv):
    """As flax's, computed as `convolve` does, with a bias as `add_bias` has it.

    Attributes:
        adds_bias: whether the bias is added; if not it is a parameter all the same, which nothing changes.
    """

    use_bias: bool = False  # stays so: of flax's layer, which would add one of its own
    conv_general_dilated: Any = convolve
    adds_bias: bool = True

    @nn.compact
    def __call__(self, x_BHWI: Float[Array, 'B H W I']) -> Float[Array, 'B h w O']:
        """Convolves."""
        out = super().__call__(x_BHWI)
        bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype)
        return add_bias(out, bias) if self.adds_bias else out


class ConvPoolReLU(nn.Module):
    """Convolution (stride 1, zero padding that keeps the size, bias), 2x2 max-pool and ReLU. Parameters as `nn.Conv`'s.

    ReLU after the pool gives the same values on a quarter of the pixels.

    With few input channels a CPU runs it much faster in blocks: 2x2 pixels become channels, one convolution with four
    times the channels gives the four pixels that the pool compares, and the pool needs no shuffling. The result is
    the same. With 3x3 kernels the baseline's step (32 images of 224 pixels) took .46 s of CPU time against .60.

    Attributes:
        features: O.
        kernel_size: odd side of the kernel.
        dtype: of the computation.
        blocked: whether to compute in blocks; None: on a CPU with at most 16 input channels and no quicker way.
        few: whether oneDNN computes it where it can, see `by_onednn`.
    """

    features: int
    kernel_size: int = 5
    dtype: Any = jnp.float32
    blocked: bool | None = None
    few: bool = False

    @nn.compact
    def __call__(self, x_BHWI: Float[Array, 'B H W I']) -> Float[Array, 'B H//2 W//2 O']:
        _, h, w, i = x_BHWI.shape
        shape = (self.kernel_size, self.kernel_size, i, self.features)
        kernel = self.param('kernel', he_normal, shape).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        x_BHWI = x_BHWI.astype(self.dtype)
        few = self.few and by_onednn(x_BHWI, few=True)
        blocked = self.blocked
        if blocked is None:
            blocked = rearranged() and i <= 16 and not few and not goes_in_rows(kernel)
        pad = self.kernel_size // 2
        if h % 2 or w % 2:
            x_BHWO = convolve(x_BHWI, kernel, (1, 1), [(pad, pad)] * 2, few=few)
            return nn.relu(add_bias(max_pool_2x2(x_BHWO), bias))
        if not blocked:
            return convolve_and_pool(x_BHWI, kernel, bias, [(pad, pad)] * 2, blocked=False, few=few)
        odd = pad % 2
        pad = (pad - odd) // 2
        # Where the kernel reaches an odd number of pixels, a border of one pixel lets its reach begin with a block:
        # else the kernel for blocks of a 3x3 one is 3x3 instead of 2x2, and the work 2.25 times as much.
        x_BHWI = jnp.pad(x_BHWI, ((0, 0), (odd, odd), (odd, odd), (0, 0)))
        return convolve_and_pool(blocks_2x2(x_BHWI), block_kernel(kernel), bias, [(pad, pad)] * 2, blocked=True)


def blocks_2x2(x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H//2 W//2 4*C']:
    """Each 2x2 block of pixels as the channels of one pixel, row by row."""
    b, h, w, c = x_BHWC.shape
    return x_BHWC.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def block_kernel(kernel_KKIO: Float[Array, 'K K I O']) -> Float[Array, 'L L 4*I 4*O']:
    """The kernel that does on `blocks_2x2` what the given one (odd side) does on pixels, and for four pixels at once.

    The pixels in rows 2 Y and 2 Y + 1 together read K + 1 rows, which are L = (K + 1) / 2 blocks where the first
    of them is even; the kernel of the pixel in row y of its block is shifted by y within these.
    """
    side, _, i, o = kernel_KKIO.shape
    length = (side + 1) // 2
    shifted = [jnp.pad(kernel_KKIO, ((y, 1 - y), (x, 1 - x), (0, 0), (0, 0))) for y in (0, 1) for x in (0, 1)]
    shifted = jnp.stack(shifted).reshape(4, length, 2, length, 2, i, o)
    return shifted.transpose(1, 3, 2, 4, 5, 0, 6).reshape(length, length, 4 * i, 4 * o)
