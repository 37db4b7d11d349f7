"""VGG networks (Simonyan & Zisserman 2015) with BatchNorm, for small faces: 3x3 convolutions, 2x2 max-pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.initial import lecun_normal, variance_scaling
from fer_jax.models.layers import Conv, Dropout, check_side, last_maps, max_pool_2x2
from fer_jax.models.norms import BatchNorm

_conv_init = variance_scaling(2.0, 'fan_out', 'normal')


class VGG(nn.Module):
    """Stages of convolution, BatchNorm, ReLU; a max-pool ends each stage. Then hidden layers, if any, and the head.

    Convolutions have a bias, as PyTorch's do: BatchNorm takes it away again, but the parameters are then theirs.
    Without hidden layers what the pools leave is averaged (one pixel at 32 to 63 pixels a side, where that changes
    nothing), so that the head has the same size at any input; with hidden layers it is flattened.

    Attributes:
        num_classes: K.
        stages: output channels of each convolution, stage by stage.
        hidden: units of each hidden dense layer.
        dropout: share dropped in training, of what each dense layer but the first hidden one sees.
        dtype: of the computation; parameters and statistics are float32.
        norm_groups: parts of the batch that are normalised apart, see `BatchNorm`.
    """

    num_classes: int
    stages: Sequence[Sequence[int]]
    hidden: Sequence[int] = ()
    dropout: float = 0.5
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self, images_BHWC: Float[Array, 'B H W C'], train: bool = False
    ) -> tuple[Float[Array, 'B K'], dict[str, Array]]:
        """Logits (float32), and intermediates: `features`, what the head sees, before dropout; `maps`.

        `maps` are the last convolution's, after BatchNorm and ReLU and before the pool, which leaves one pixel of 48.

        Raises:
            UserError: if the images are smaller than the pools need.
        """
        check_side(self, images_BHWC, 2 ** len(self.stages))
        norm = partial(
            BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype, groups=self.norm_groups
        )
        x = images_BHWC.astype(self.dtype)
        for number, stage in enumerate(self.stages, 1):
            for layer, channels in enumerate(stage, 1):
                x = norm()(Conv(channels, (3, 3), padding=1, dtype=self.dtype, kernel_init=_conv_init)(x))
                if layer == len(stage):
                    if number == len(self.stages):
                        x = maps_BHWC = last_maps(self, nn.relu(x))
                    x = max_pool_2x2(x)
                x = nn.relu(x)  # after the pool: the same values from a quarter of the pixels
        x = x.reshape(x.shape[0], -1) if self.hidden else x.mean((1, 2))
        drop = Dropout(self.dropout, deterministic=not train)
        for layer, units in enumerate(self.hidden):
            x = nn.relu(nn.Dense(units, dtype=self.dtype, kernel_init=lecun_normal)(drop(x) if layer else x))
        logits_BK = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=lecun_normal, name='head')(drop(x))
        return logits_BK.astype(jnp.float32), {'features': x, 'maps': maps_BHWC}


class VGG19(VGG):
    """Seed 003's VGG19: sixteen convolutions, one linear layer from 512 to K, dropout 50 % before it.

    The seed names the network only; this is the one of the code it follows (WuJie1010,
    Facial-Expression-Recognition.Pytorch), not the paper's, whose three dense layers hold 120 million parameters.
    """

    stages: Sequence[Sequence[int]] = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


class VGGPairs(VGG):
    """Khaireddin & Chen 2021 (arXiv 2105.03588): pairs of 64 to 512 channels, two dense layers of 4096, dropout 20 %.

    Order and dropout as in the authors' code (usef-kh/fer): dropout on the output of each hidden layer.
    """

    stages: Sequence[Sequence[int]] = ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2)
    hidden: Sequence[int] = (4096, 4096)
    dropout: float = 0.2
