"""The two small networks of seed 002: 5x5 convolutions, 2x2 max-pools, one hidden dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.initial import he_normal, lecun_normal
from fer_jax.models.layers import ConvPoolReLU, Dropout, last_maps


class PlainCNN(nn.Module):
    """Convolutions of 5x5, stride 1, each followed by a 2x2 max-pool and ReLU; then a dense layer and the head.

    Attributes:
        num_classes: K.
        channels: output channels of each convolution.
        hidden: units of the dense layer.
        dropout: share of the dense layer's units dropped in training.
        dtype: of the computation; parameters are float32.
        blocked: see `ConvPoolReLU`.
    """

    num_classes: int
    channels: Sequence[int]
    hidden: int = 128
    dropout: float = 0.0
    dtype: Any = jnp.float32
    blocked: bool | None = None

    @nn.compact
    def __call__(
        self, images_BHWC: Float[Array, 'B H W C'], train: bool = False
    ) -> tuple[Float[Array, 'B K'], dict[str, Array]]:
        """Logits (float32), and intermediates: `features`, the dense layer's output; `maps`, the last pool's."""
        x = images_BHWC.astype(self.dtype)
        for layer, channels in enumerate(self.channels):
            x = ConvPoolReLU(channels, dtype=self.dtype, blocked=self.blocked, name=f'Conv_{layer}')(x)
        maps_BHWC = last_maps(self, x)
        x = maps_BHWC.reshape(x.shape[0], -1)
        features_BD = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, kernel_init=he_normal)(x))
        x = Dropout(self.dropout, deterministic=not train)(features_BD)
        logits_BK = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=lecun_normal, name='head')(x)
        return logits_BK.astype(jnp.float32), {'features': features_BD, 'maps': maps_BHWC}


class ShallowCNN(PlainCNN):
    """Seed 002's first network: 16 and 36 channels, no regularisation."""

    channels: Sequence[int] = (16, 36)


class WiderCNN(PlainCNN):
    """Seed 002's second network: 32, 64 and 64 channels, dropout 30 %."""

    channels: Sequence[int] = (32, 64, 64)
    dropout: float = 0.3
