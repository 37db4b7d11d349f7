"""The two networks of CycleGAN (Zhu et al. 2017): a residual generator and a discriminator of patches.

Layer by layer those of the authors' PyTorch code (junyanz, pytorch-CycleGAN-and-pix2pix: `resnet_9blocks`,
`resnet_6blocks` and `basic`, with instance norm), biases included: 11.378 M and 2.765 M parameters with three channels.

Shape letters: B images, H and W pixels, C channels, I and O input and output channels, K side of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models import layers
from fer_jax.models.convolution import convolve
from fer_jax.models.initial import normal
from fer_jax.models.layers import check_side
from fer_jax.models.norms import instance_norm

_init = normal(0.02)


def reflect(x_BHWC: Float[Array, 'B H W C'], border: int) -> Array:
    """A border that mirrors the image at its outermost pixels."""
    return jnp.pad(x_BHWC, ((0, 0), (border, border), (border, border), (0, 0)), 'reflect')


class Conv(layers.Conv):
    """A convolution of few images that begins as the authors' do.

    Instance norm takes a bias before it away again. The authors have one there, and with `adds_bias=False` it is there
    too, but is neither added nor changed: its gradient is rounding alone, of which Adam would make full steps.
    """

    kernel_init: Any = _init
    conv_general_dilated: Any = partial(convolve, few=True)


class Upsample(nn.Module):
    """The transposed convolution that doubles the side: 3x3, stride 2, padding 1, output padding 1.

    Instance norm follows; its bias is as that of `Conv`.

    A kernel [K, K, I, O] is PyTorch's `ConvTranspose2d` weight [I, O, K, K] with its axes moved. Of the four pixels
    that a pixel becomes, one takes one tap, two take two and one takes four. A convolution over the image spread out
    with zeros multiplies nine for each; as one product with all nine taps, whose results are then shifted and added,
    the nine are computed once. (With such convolutions the kernels of a step of 16 pairs took 18.4 ms of
    an H200, with products 14.0.)

    Attributes:
        features: O.
        dtype: of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BHWI: Float[Array, 'B H W I']) -> Float[Array, 'B 2*H 2*W O']:
        kernel = self.param('kernel', _init, (3, 3, x_BHWI.shape[-1], self.features)).astype(self.dtype)
        self.param('bias', nn.initializers.zeros, (self.features,))
        return _upsample(x_BHWI.astype(self.dtype), kernel)


def _upsample(x_BHWI: Array, kernel_KKIO: Array) -> Array:
    b, h, w, _ = x_BHWI.shape
    taps = jnp.einsum('bhwi,yxio->bhwyxo', x_BHWI, kernel_KKIO)

    def double(taps, axis):
        """Pixel 2 i is tap 1 (of the last axis but one) at i; pixel 2 i + 1 is tap 2 at i and tap 0 at i + 1."""
        first, middle, last = (taps[..., tap, :] for tap in range(3))
        beyond = [(0, int(place == axis)) for place in range(first.ndim)]
        following = jax.lax.slice_in_dim(jnp.pad(first, beyond), 1, None, axis=axis)
        return jnp.stack([middle, last + following], axis + 1)

    return double(double(taps, 2), 1).reshape(b, 2 * h, 2 * w, -1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions over mirrored borders, with instance norm, beside a shortcut."""

    dtype: Any

    @nn.compact
    def __call__(self, x_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H W C']:
        conv = partial(Conv, x_BHWC.shape[-1], (3, 3), padding='VALID', adds_bias=False, dtype=self.dtype)
        y = nn.relu(instance_norm(conv()(reflect(x_BHWC, 1))))
        return x_BHWC + instance_norm(conv()(reflect(y, 1)))


class Generator(nn.Module):
    """c7s1-64, d128, d256, residual blocks of 256, u128, u64, c7s1-C, tanh.

    Images whose sides are no multiples of 4 are mirrored on to the next one at the right and below, and cut again.

    Attributes:
        channels: C, of the images given and made.
        blocks: residual blocks; the paper has 6 for 128 pixels, 9 for 256.
        width: channels of the first layer.
        skip: add to the image instead of making it anew: untrained, such a generator changes nothing, so that
            it need not learn first to give back what it is given. The authors' has no such shortcut.
        dtype: of the computation; parameters and the norms' statistics are float32.
    """

    channels: int
    blocks: int = 9
    width: int = 64
    skip: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B H W C']:
        """From images in [-1, 1] to images in [-1, 1], float32."""
        check_side(self, images_BHWC, 8)
        h, w = images_BHWC.shape[1:3]
        conv = partial(Conv, dtype=self.dtype)
        x = jnp.pad(images_BHWC.astype(self.dtype), ((0, 0), (0, -h % 4), (0, -w % 4), (0, 0)), 'reflect')
        x = nn.relu(instance_norm(conv(self.width, (7, 7), padding='VALID', adds_bias=False)(reflect(x, 3))))
        for factor in (2, 4):
            x = nn.relu(instance_norm(conv(factor * self.width, (3, 3), (2, 2), padding=1, adds_bias=False)(x)))
        for _ in range(self.blocks):
            x = ResidualBlock(self.dtype)(x)
        for factor in (2, 1):
            x = nn.relu(instance_norm(Upsample(factor * self.width, self.dtype)(x)))
        last_init = nn.initializers.zeros if self.skip else _init
        x = conv(self.channels, (7, 7), padding='VALID', kernel_init=last_init)(reflect(x, 3))
        made_BHWC = jnp.tanh(x.astype(jnp.float32))[:, :h, :w]
        return jnp.clip(images_BHWC + 2 * made_BHWC, -1.0, 1.0) if self.skip else made_BHWC


class Discriminator(nn.Module):
    """C64, C128, C256, C512 of 4x4, all but the last at stride 2, then a score for each patch of the image.

    With these channels a score sees 70x70 pixels. Leaky ReLU of .2; instance norm in all layers but the first.

    Attributes:
        channels: of each layer.
        dtype: of the computation; parameters and the norms' statistics are float32.
    """

    channels: Sequence[int] = (64, 128, 256, 512)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images_BHWC: Float[Array, 'B H W C']) -> Float[Array, 'B h w']:
        """Scores, float32: near 1 for what looks real, near 0 for what looks made."""
        check_side(self, images_BHWC, 3 * 2 ** (len(self.channels) - 1))  # so that each norm has 2x2 values or more
        conv = partial(Conv, kernel_size=(4, 4), padding=1, dtype=self.dtype)
        x = images_BHWC.astype(self.dtype)
        for layer, channels in enumerate(self.channels):
            stride = 1 if layer == len(self.channels) - 1 else 2
            x = conv(channels, strides=(stride, stride), adds_bias=not layer)(x)
            x = nn.leaky_relu(instance_norm(x) if layer else x, 0.2)
        return conv(1)(x)[..., 0].astype(jnp.float32)
