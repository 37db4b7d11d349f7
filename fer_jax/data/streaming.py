"""The streaming feed: batches are read, decoded and put on the devices while the steps before them run.

Shape letters: N examples, H and W pixels, C channels, T steps of one dispatch, B images of a batch, L of them local.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fer_jax.data.dataset import Split
from fer_jax.data.feed import batch_indices

_READERS = 2  # batches decoded at a time, each by all cores: one alone leaves them idle at its end
_ENDLESS = 2**62  # steps


class StreamingFeed:
    """Batches in the order of `batch_indices`, prefetched by grain: decoded ones on the host, then on the devices."""

    def __init__(
        self,
        split: Split,
        seed: int,
        batch_size: int,
        dispatch: int = 1,
        *,
        cut: jax.sharding.Sharding | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ):
        """Reads nothing yet.

        Args:
            split: its images are an array, or better what reads when it is indexed.
            batch_size: B, over all processes.
            dispatch: T.
            cut: places a batch, cut along its axis 1.
            process_index, process_count: which rows of each batch are read here, see `read_batch`.
        """
        self.waited = 0.0
        self._read = lambda step: read_batch(split, seed, batch_size, step, process_index, process_count)
        self._cut = cut or jax.sharding.SingleDeviceSharding(jax.devices()[0])
        self._batch_size, self._dispatch = batch_size, dispatch
        self._step, self._iterator = -1, None
        stack = lambda parts: jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
        self._stack = jax.jit(stack, out_shardings=cut)

    def batches(self, step: int, count: int, is_idle: Callable[[], bool] = lambda: True) -> dict[str, Array]:
        """See `Feed`; steps in a row are quick, any other step starts reading anew."""
        asked = time.perf_counter()
        if step != self._step:
            self._start(step)
        parts = [next(self._iterator) for _ in range(count)]
        if is_idle():
            self.waited += time.perf_counter() - asked
        self._step = step + count
        if self._dispatch == 1:
            return parts[0]
        return self._stack(parts + parts[-1:] * (self._dispatch - count))

    def close(self) -> None:
        """See `Feed`."""
        if self._iterator is not None:
            self._iterator.close()
        self._step, self._iterator = -1, None

    def _start(self, step: int) -> None:
        import grain  # here, since it takes seconds that a resident run need not spend

        self.close()
        ahead = max(2 * self._dispatch, _READERS)
        batches = grain.MapDataset.range(step, _ENDLESS).map(self._read)
        batches = batches.to_iter_dataset(grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=ahead))
        placed = grain.experimental.ThreadPrefetchIterDataset(
            batches.map(self._place), prefetch_buffer_size=2 * self._dispatch
        )
        self._iterator = iter(placed)

    def _place(self, batch: dict[str, np.ndarray]) -> dict[str, Array]:
        whole = lambda array: (1, self._batch_size, *array.shape[2:])
        return {
            name: jax.make_array_from_process_local_data(self._cut, array, whole(array))
            for name, array in batch.items()
        }


def read_batch(
    split: Split, seed: int, batch_size: int, step: int, process_index: int = 0, process_count: int = 1
) -> dict[str, np.ndarray]:
    """The rows of one step's batch that belong to a process: an even share, in the order of the processes.

    Returns:
        `images` uint8 [1, L, H, W, C], `labels` int32 [1, L] and, where the split has them, `targets` [1, L, K].
    """
    share = batch_size // process_count
    rows_L = batch_indices(seed, step, 1, len(split), batch_size)[0][process_index * share :][:share]
    there = {'images': split.images, 'labels': split.labels, 'targets': split.extra.get('targets')}
    return {name: array[rows_L][None] for name, array in there.items() if array is not None}
