"""The two networks that seeds 001 and 004 trained on AffectNet."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.initial import glorot_uniform, lecun_normal
from fer_jax.models.layers import Conv, ConvPoolReLU, Dropout, check_side, last_maps, max_pool_2x2
from fer_jax.models.norms import BatchNorm


class AffectNetCNN(nn.Module):
    """Seed 001's recogniser: 3x3 convolutions 32-64 | 128 | 256 | 512, dense 256-128-64, BatchNorm throughout.

    The seed's text lists the layers; their order is that of its training script, Keras's defaults included:
    convolutions without padding, ReLU before BatchNorm, BatchNorm with epsilon .001 and momentum .99, Glorot's
    initial values. Dropout of .5 and .4 comes before pool and BatchNorm, that of .3 before BatchNorm and pool.

    The L2 of .01 that the seed puts on the kernels and biases of all layers but the head is no part of the
    network: Keras adds .01 times the sum of squares to the loss, which adds .02 times the weight to its gradient. The
    optimiser does the same for `adam` with a weight decay of .02, which here takes all kernels, the head's
    too, and no biases.

    Attributes:
        num_classes: K.
        dropout: one rate for all five dropouts instead of .5, .3, .4, .25 and .25.
        dtype: of the computation; parameters and statistics are float32.
        norm_groups: parts of the batch that are normalised apart, see `BatchNorm`.
    """

    num_classes: int
    dropout: float | None = None
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self, images_BHWC: Float[Array, 'B H W C'], train: bool = False
    ) -> tuple[Float[Array, 'B K'], dict[str, Array]]:
        """Logits (float32), and intermediates: `features` [B, 64], what the head sees; `maps`, the last convolution.

        Raises:
            UserError: for images below 48 pixels a side, of which the last pool would leave nothing.
        """
        check_side(self, images_BHWC, 48)

        def drop(x, rate):
            return Dropout(rate if self.dropout is None else self.dropout, deterministic=not train)(x)

        def norm(x):
            options = {'momentum': 0.99, 'epsilon': 1e-3, 'dtype': self.dtype, 'groups': self.norm_groups}
            return BatchNorm(use_running_average=not train, **options)(x)

        def conv(x, channels):
            return nn.relu(Conv(channels, (3, 3), padding='VALID', dtype=self.dtype, kernel_init=glorot_uniform)(x))

        def dense(x, units):
            return norm(nn.relu(nn.Dense(units, dtype=self.dtype, kernel_init=glorot_uniform)(x)))

        x = images_BHWC.astype(self.dtype)
        x = norm(conv(x, 32))
        x = max_pool_2x2(norm(conv(x, 64)))
        x = norm(max_pool_2x2(drop(conv(x, 128), 0.5)))
        x = max_pool_2x2(norm(drop(conv(x, 256), 0.3)))
        maps_BHWC = last_maps(self, conv(x, 512))
        x = norm(max_pool_2x2(drop(maps_BHWC, 0.4)))
        x = x.reshape(x.shape[0], -1)
        x = drop(dense(x, 256), 0.25)
        x = drop(dense(x, 128), 0.25)
        features_BD = dense(x, 64)
        logits_BK = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=glorot_uniform, name='head')(features_BD)
        return logits_BK.astype(jnp.float32), {'features': features_BD, 'maps': maps_BHWC}


class BaselineCNN(nn.Module):
    """Seed 004's baseline: 3x3 convolutions 12-12-24-24-24, a max-pool after the first four, one dense layer.

    The seed's text gives no layers; its script has padding 1, ReLU after each convolution, no dropout and no
    BatchNorm, and at 224 pixels a dense layer from 14*14*24 to 8.

    Attributes:
        num_classes: K.
        dropout: share of the dense layer's inputs dropped in training.
        dtype: of the computation; parameters are float32.
        blocked: see `ConvPoolReLU`.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    blocked: bool | None = None

    @nn.compact
    def __call__(
        self, images_BHWC: Float[Array, 'B H W C'], train: bool = False
    ) -> tuple[Float[Array, 'B K'], dict[str, Array]]:
        """Logits (float32), and intermediates: `maps` [B, H//16, W//16, 24], the last convolution; `features`, it flat.

        Raises:
            UserError: for images below 16 pixels a side.
        """
        check_side(self, images_BHWC, 16)
        x = images_BHWC.astype(self.dtype)
        for layer, channels in enumerate((12, 12, 24, 24)):
            x = ConvPoolReLU(channels, 3, dtype=self.dtype, blocked=self.blocked, few=True, name=f'Conv_{layer}')(x)
        x = nn.relu(Conv(24, (3, 3), padding=1, dtype=self.dtype, kernel_init=lecun_normal, name='Conv_4')(x))
        maps_BHWC = last_maps(self, x)
        features_BD = maps_BHWC.reshape(x.shape[0], -1)
        x = Dropout(self.dropout, deterministic=not train)(features_BD)
        logits_BK = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=lecun_normal, name='head')(x)
        return logits_BK.astype(jnp.float32), {'features': features_BD, 'maps': maps_BHWC}
