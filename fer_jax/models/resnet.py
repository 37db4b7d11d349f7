"""Residual networks (He et al. 2016) for small faces: a 3x3 stem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.convolution import convolve
from fer_jax.models.initial import lecun_normal, variance_scaling
from fer_jax.models.layers import Dropout, blocks_2x2, last_maps
from fer_jax.models.norms import BatchNorm

_conv_init = variance_scaling(2.0, 'fan_out', 'normal')


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut (1x1 where the shape changes)."""

    channels: int
    stride: int
    dtype: Any
    norm_groups: int = 1

    @nn.compact
    def __call__(self, x_BHWC: Float[Array, 'B H W C'], train: bool) -> Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=_conv_init, conv_general_dilated=convolve)
        norm = partial(
            BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype, groups=self.norm_groups
        )
        stride = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.channels, (3, 3), stride, padding=1)(x_BHWC)))
        y = norm(scale_init=nn.initializers.zeros)(conv(self.channels, (3, 3), padding=1)(y))
        if x_BHWC.shape != y.shape:
            x_BHWC = norm()(conv(self.channels, (1, 1), stride)(x_BHWC))
        return nn.relu(x_BHWC + y)


class ResNet(nn.Module):
    """Stem, stages of basic blocks, each at half the side of the one before it, mean over pixels, linear head.

    Attributes:
        num_classes: K.
        blocks: basic blocks per stage.
        widths: channels per stage.
        stem_blocks: whether the stem reads blocks of 2x2 pixels and leaves half the side: a 6x6 convolution of stride
            2. A 3x3 one and a max-pool took eight times as long on a CPU, a fifth of the whole step.
        dropout: share of the pooled features dropped in training.
        dtype: of the computation; parameters and statistics are float32.
        norm_groups: parts of the batch that are normalised apart, see `BatchNorm`.
    """

    num_classes: int
    blocks: Sequence[int]
    widths: Sequence[int] = (64, 128, 256, 512)
    stem_blocks: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self, images_BHWC: Float[Array, 'B H W C'], train: bool = False
    ) -> tuple[Float[Array, 'B K'], dict[str, Array]]:
        """Logits (float32), and intermediates: `maps`, the last stage's output; `features` [B, D], their mean."""
        x = images_BHWC.astype(self.dtype)
        if self.stem_blocks:
            x = blocks_2x2(jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))))
        x = nn.Conv(
            self.widths[0],
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_conv_init,
            conv_general_dilated=convolve,
        )(x)
        norm = BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, groups=self.norm_groups)
        x = nn.relu(norm(x))
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=False)):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(width, stride, self.dtype, self.norm_groups)(x, train)
        maps_BHWC = last_maps(self, x)
        features_BD = maps_BHWC.mean((1, 2))
        x = Dropout(self.dropout, deterministic=not train)(features_BD)
        logits_BK = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=lecun_normal, name='head')(x)
        return logits_BK.astype(jnp.float32), {'features': features_BD, 'maps': maps_BHWC}


class ResNet18(ResNet):
    """Seed 003's ResNet18: 2, 2, 2 and 2 blocks, dropout 50 % before the head.

    The seed names the network only; this is the one of the code it follows (WuJie1010,
    Facial-Expression-Recognition.Pytorch), but for the last pool: a window of 4 pixels there, which at a crop of 44
    reads 16 of the 36 pixels that are left, here the mean of all of them.
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    dropout: float = 0.5


class ResNet34(ResNet):
    """Seed 002's third network: 3, 4, 6 and 3 blocks."""

    blocks: Sequence[int] = (3, 4, 6, 3)


class ResNet10(ResNet):
    """A small one for CPUs: a stem on blocks, then 1, 2 and 1 blocks at 48, 96 and 192 channels; 0.9 M parameters."""

    blocks: Sequence[int] = (1, 2, 1)
    widths: Sequence[int] = (48, 96, 192)
    stem_blocks: bool = True
