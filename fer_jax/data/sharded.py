"""The sharded feed: a split that is too large for one device lies on all of them together, a part of its rows on each.

Shape letters: N examples, R of them on each device, T steps of one dispatch, B images of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from fer_jax.data.dataset import Split
from fer_jax.data.feed import batch_indices


class ShardedFeed:
    """Every device holds an even run of the rows as uint8, put there once; batches are exchanged between them.

    A process reads the rows of its own devices and no others. Per step each device picks out those images of the
    whole batch that it holds, and a reduce-scatter gives each its share: the set is never whole anywhere, and
    besides its rows a device holds one batch.
    """

    waited = None

    def __init__(self, split: Split, seed: int, batch_size: int, dispatch: int = 1, *, cut: NamedSharding):
        """`dispatch` is T; `cut` places a batch along its axis 1."""
        self._order = functools.partial(batch_indices, seed, num_examples=len(split), batch_size=batch_size)
        self._shape = (dispatch, batch_size)
        axis = cut.spec[1]
        rows = NamedSharding(cut.mesh, PartitionSpec(axis))
        there = {'images': split.images, 'labels': split.labels, 'targets': split.extra.get('targets')}
        self._rows = {name: _spread(array, rows) for name, array in there.items() if array is not None}
        self._gather = jax.jit(
            jax.shard_map(
                functools.partial(_exchange, axis),
                mesh=cut.mesh,
                in_specs=(PartitionSpec(axis), PartitionSpec()),
                out_specs=cut.spec,
            )
        )

    def batches(self, step: int, count: int, is_idle: Callable[[], bool] = lambda: True) -> dict[str, Array]:
        """See `Feed`."""
        indices_TB = np.zeros(self._shape, np.int32)
        indices_TB[:count] = self._order(step, count)
        return self._gather(self._rows, indices_TB)

    def close(self) -> None:
        """See `Feed`."""


def _spread(array: Any, rows: NamedSharding) -> Array:
    """An array of N rows, or what reads them, cut over the devices; the last ones are padded with zeros."""
    parts = rows.mesh.shape[rows.spec[0]]
    num, on_each = len(array), -(-len(array) // parts)

    def read(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(on_each * parts)
        wanted = slice(min(start, num), min(stop, num))
        lazy = hasattr(array, 'load')
        part = array.select(np.arange(num)[wanted]).load('reading train') if lazy else array[wanted]
        return np.concatenate([part, np.zeros((stop - start - len(part), *part.shape[1:]), part.dtype)])

    return jax.make_array_from_callback((on_each * parts, *array.shape[1:]), rows, read)


def _exchange(axis: str, rows: dict[str, Array], indices_TB: Int[Array, 'T B']) -> dict[str, Array]:
    """On one device: its share of every batch, from the rows that it and the others hold."""
    on_each = len(rows['labels'])
    places_TB = indices_TB - jax.lax.axis_index(axis) * on_each

    def share(array: Array, places_B: Array) -> Array:
        mine_B = (places_B >= 0) & (places_B < on_each)
        found = array[jnp.clip(places_B, 0, on_each - 1)]
        # Each image is zero everywhere but on the device that holds it.
        found = jnp.where(mine_B.reshape(-1, *[1] * (found.ndim - 1)), found, jnp.zeros((), found.dtype))
        return jax.lax.psum_scatter(found, axis, tiled=True)

    return jax.lax.map(lambda places_B: {name: share(array, places_B) for name, array in rows.items()}, places_TB)
