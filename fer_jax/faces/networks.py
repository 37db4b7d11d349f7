"""MTCNN's proposal, refinement and output network (Zhang et al. 2016, arXiv:1604.02878) as pure functions.

Pixels are uint8 RGB; the networks take (pixel - 127.5) / 128. Weights: see `fer_jax.faces.weights`.
Legend: N tiles or crops, H and W pixels, y and x places of the 12-pixel window, two pixels apart.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

Layers = Mapping[str, Mapping[str, Array]]

_PRECISION = jax.lax.Precision.HIGHEST  # the same faces on every device: GPUs would multiply in fewer bits


def pnet(layers: Layers, tiles_NHWC: UInt8[Array, 'N H W 3']) -> tuple[Float[Array, 'N y x'], Float[Array, 'N y x 4']]:
    """Probability of a face in the 12x12 window at pixel (2 y, 2 x), and by how much of its side each edge is off."""
    x = _pool(_conv(_scaled(tiles_NHWC), layers['conv1']), 2)
    x = _conv(_conv(x, layers['conv2']), layers['conv3'])
    return _face(_conv(x, layers['face'])), _conv(x, layers['box'])


def rnet(layers: Layers, crops_NHWC: UInt8[Array, 'N 24 24 3']) -> tuple[Float[Array, ' N'], Float[Array, 'N 4']]:
    """Probability of a face, and by how much of the crop's side each edge of the box is off."""
    x = _pool(_conv(_scaled(crops_NHWC), layers['conv1']), 3)
    x = _pool(_conv(x, layers['conv2']), 3)
    x = _dense(_flat(_conv(x, layers['conv3'])), layers['dense'])
    return _face(_dense(x, layers['face'])), _dense(x, layers['box'])


def onet(
    layers: Layers, crops_NHWC: UInt8[Array, 'N 48 48 3']
) -> tuple[Float[Array, ' N'], Float[Array, 'N 4'], Float[Array, 'N 5 2']]:
    """As `rnet`, and the five points as (x, y) in sides of the crop, from its left upper corner."""
    x = _pool(_conv(_scaled(crops_NHWC), layers['conv1']), 3)
    x = _pool(_conv(x, layers['conv2']), 3)
    x = _pool(_conv(x, layers['conv3']), 2)
    x = _dense(_flat(_conv(x, layers['conv4'])), layers['dense'])
    points = _dense(x, layers['points']).reshape(-1, 2, 5).swapaxes(1, 2)
    return _face(_dense(x, layers['face'])), _dense(x, layers['box']), points


def _scaled(pixels: Array) -> Array:
    return (pixels.astype(jnp.float32) - 127.5) / 128


def _conv(x: Array, layer: Mapping[str, Array]) -> Array:
    order = ('NHWC', 'HWIO', 'NHWC')
    y = jax.lax.conv_general_dilated(x, layer['kernel'], (1, 1), 'VALID', dimension_numbers=order, precision=_PRECISION)
    return _prelu(y + layer['bias'], layer)


def _dense(x: Array, layer: Mapping[str, Array]) -> Array:
    return _prelu(jnp.dot(x, layer['kernel'], precision=_PRECISION) + layer['bias'], layer)


def _prelu(x: Array, layer: Mapping[str, Array]) -> Array:
    return jnp.where(x > 0, x, x * layer['slope']) if 'slope' in layer else x


def _pool(x: Array, window: int) -> Array:
    """Maximum of every second window; one that reaches over the end counts where it would leave pixels out."""
    size = [2 * -(-(side - window) // 2) + window for side in x.shape[1:3]]
    ends = [(0, 0), *((0, wanted - side) for wanted, side in zip(size, x.shape[1:3], strict=True)), (0, 0)]
    x = jnp.pad(x, ends, constant_values=-jnp.inf)
    rows, columns = (wanted - window + 1 for wanted in size)
    # Slices and maximum: XLA's own pooling runs at a fraction of the speed on a CPU.
    parts = [x[:, dy : dy + rows : 2, dx : dx + columns : 2] for dy in range(window) for dx in range(window)]
    return functools.reduce(jnp.maximum, parts)


def _flat(x: Array) -> Array:
    """Columns before rows, as the weights were trained (in Matlab's order)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], -1)


def _face(logits: Array) -> Array:
    return jax.nn.softmax(logits)[..., 1]


NETWORKS = {'pnet': pnet, 'rnet': rnet, 'onet': onet}
