"""The resident feed: the whole split on the device as uint8, batches gathered there.

Shape letters: N examples, H and W pixels, C channels, T steps of one dispatch, B images of a batch.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Int, UInt8

from fer_jax.data.dataset import Split


@flax.struct.dataclass
class Resident:
    """A split on the device.

    Attributes:
        images_NHWC: uint8.
        labels_N: int32.
    """

    images_NHWC: UInt8[Array, 'N H W C']
    labels_N: Int[Array, N]

    def batch(self, indices_B: Int[Array, B]) -> dict[str, Array]:
        """The named examples: `images` uint8 [B, H, W, C] and `labels` int32 [B]."""
        return {'images': self.images_NHWC[indices_B], 'labels': self.labels_N[indices_B]}


def put_resident(split: Split, sharding: jax.sharding.Sharding | None = None) -> Resident:
    """Moves a split to the device or devices, once for the whole run."""
    return jax.device_put(Resident(split.images, split.labels), sharding)


def batch_indices(seed: int, step: int, steps: int, num_examples: int, batch_size: int) -> Int[np.ndarray, 'T B']:
    """Which examples the batches of `steps` steps from `step` on hold: a pure function of seed and step.

    The examples are dealt from one permutation per epoch after another, without a gap: a batch may end one epoch
    and begin the next, and no example is dropped or seen twice in an epoch.
    """
    positions = np.arange(step * batch_size, (step + steps) * batch_size, dtype=np.int64)
    epochs, offsets = positions // num_examples, positions % num_examples
    indices = np.empty(len(positions), np.int32)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        indices[here] = _permutation(seed, int(epoch), num_examples)[offsets[here]]
    return indices.reshape(steps, batch_size)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_examples).astype(np.int32)
