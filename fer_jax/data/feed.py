"""Where training batches come from. The order is one for every feed; this module has the resident feed.

Step N's batch is a pure function of the seed and N (`batch_indices`), and the order of an epoch one of the seed and the
epoch. So the position in the data is the step that a checkpoint holds already: a resumed run asks for the batch
of its next step, and gets the same one from any feed, on any number of processes.

Shape letters: N examples, H and W pixels, C channels, T steps of one dispatch, B images of a batch, K classes.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from fer_jax.data.dataset import Split
from fer_jax.errors import UserError

FEEDS = ('auto', 'resident', 'sharded', 'streaming')  # each takes less memory than the one before it
_SHARE = 3  # a set is resident if it takes at most one part in so many of the memory
# Bytes/s. Of pixels that one core decodes: JPEGs of 224 px, two busy cores (benchmarks/feed.py). That a host's port
# takes in: three quarters of 400 Gb/s, which is assumed and not measured (docs/scaling.md).
_DECODED, _EXCHANGED = 57e6, 37.5e9


class Feed(Protocol):
    """What a training step is fed from.

    Attributes:
        waited: seconds for which the device had nothing to do because a batch was not there yet; None where that
            cannot be.
    """

    waited: float | None

    def batches(self, step: int, count: int, is_idle: Callable[[], bool] = lambda: True) -> dict[str, Array]:
        """The batches of `count` steps from `step` on, on the devices.

        Args:
            is_idle: says whether the device has done all that it was given.

        Returns:
            `images` uint8 [T, B, H, W, C], `labels` int32 [T, B] and, where the split has them, `targets` float32
            [T, B, K], cut over the devices along B. T is the same in every call; what is beyond `count` is no batch.
        """

    def close(self) -> None:
        """Ends what reads ahead."""


@flax.struct.dataclass
class Resident:
    """A split on the device.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int32 [N].
        targets: float32 [N, K], what is aimed at in place of the labels, or None.
    """

    images: UInt8[Array, 'N H W C']
    labels: Int[Array, N]
    targets: Float[Array, 'N K'] | None = None

    def batch(self, indices: Int[Array, '*any']) -> dict[str, Array]:
        """The named examples: `images`, `labels` and, where there are some, `targets`, by the indices' own shape."""
        there = {'images': self.images, 'labels': self.labels, 'targets': self.targets}
        return {name: array[indices] for name, array in there.items() if array is not None}


class ResidentFeed:
    """The whole split on the devices as uint8, put there once; batches are gathered there."""

    waited = None

    def __init__(
        self,
        split: Split,
        seed: int,
        batch_size: int,
        dispatch: int = 1,
        *,
        everywhere: jax.sharding.Sharding | None = None,
        cut: jax.sharding.Sharding | None = None,
    ):
        """`dispatch` is T; `everywhere` places the split whole on every device, `cut` a batch along its axis 1."""
        self._order = functools.partial(batch_indices, seed, num_examples=len(split), batch_size=batch_size)
        self._shape, self._cut = (dispatch, batch_size), cut
        self._resident = jax.tree.map(
            lambda array: place(array, everywhere),
            Resident(np.asarray(split.images), split.labels, split.extra.get('targets')),
        )
        self._gather = jax.jit(Resident.batch, out_shardings=cut)

    def batches(self, step: int, count: int, is_idle: Callable[[], bool] = lambda: True) -> dict[str, Array]:
        """See `Feed`."""
        indices_TB = np.zeros(self._shape, np.int32)
        indices_TB[:count] = self._order(step, count)
        return self._gather(self._resident, place(indices_TB, self._cut))

    def close(self) -> None:
        """See `Feed`."""


def place(array: np.ndarray, sharding: jax.sharding.Sharding | None) -> Array:
    """Puts an array that every process holds alike on the devices; each process serves its own.

    jax.device_put would first compare it between the processes, every time.
    """
    if sharding is None:
        return jax.device_put(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


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


def choose_feed(
    wanted: str,
    num_bytes: int,
    device: jax.Device,
    num_devices: int = 1,
    on_host: int = 1,
    processes: int = 1,
    hosts: int = 1,
    cores: int = 1,
) -> tuple[str, str]:
    """Decides how a training split of that many bytes (as uint8, at its final size) is fed.

    `auto` takes `resident` where the split is at most a third of the device's memory (what its allocator may use,
    `memory_stats()['bytes_limit']`) and at most a third of what the host has free: all of it is decoded there
    first, by every process, and where the device is the host's own processor there may be two copies. Else `sharded`
    where the same holds for the part that each device has of it, and those of this host together. Else `streaming`,
    and also where the hosts' cores together decode a batch sooner than it goes past every host's port, as it does when
    rows are exchanged.

    Args:
        num_devices: all that the split is cut over.
        on_host: how many of them are on this host.
        processes: of the run on this host.
        hosts: of the run.
        cores: that this host has for it.

    Returns:
        `resident`, `sharded` or `streaming`, and the sizes that speak for it, in words.

    Raises:
        UserError: if `wanted` is none of FEEDS.
    """
    if wanted not in FEEDS:
        raise UserError(f'config.data.feed is {wanted!r}; it can be {", ".join(FEEDS)}')
    memory = {'host': free_memory()}
    limit = (device.memory_stats() or {}).get('bytes_limit')
    if limit:
        memory[device.platform] = limit
    # Devices without a memory of their own hold their copies in the host's.
    part = -(-num_bytes // num_devices)
    if wanted != 'auto':
        chosen = wanted
    elif _fits(memory, device.platform, num_bytes, num_bytes * (processes if limit else on_host)):
        chosen = 'resident'
    else:
        decoded_sooner = hosts > 1 and hosts * cores * _DECODED > _EXCHANGED
        fits = _fits(memory, device.platform, part, part * on_host)
        chosen = 'sharded' if fits and not decoded_sooner else 'streaming'
    sizes = ' and '.join(f'{_words(size)} of {name}' for name, size in memory.items())
    return chosen, f'{_words(num_bytes)} of images, {sizes} memory'


def _fits(memory: dict[str, int], platform: str, on_device: int, on_host: int) -> bool:
    wanted = {'host': on_host, platform: on_device}
    return all(wanted[name] * _SHARE <= size for name, size in memory.items())


def free_memory() -> int:
    """Bytes that this process can still take: what the kernel, or the container's limit, leaves."""
    try:
        with open('/proc/meminfo') as file:
            free = _fields(file)['MemAvailable:'] * 1024
    except OSError:  # not Linux
        free = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2
    try:
        group = Path('/sys/fs/cgroup')
        used, limit = (int((group / name).read_text()) for name in ('memory.current', 'memory.max'))
        with open(group / 'memory.stat') as file:
            return min(free, limit - used + _fields(file)['file'])  # cached files make room
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ('max')
        return free


def _fields(lines: Iterable[str]) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, lines)}


def _words(size: float) -> str:
    unit = min(3, int(math.log(max(size, 1), 1024)))
    return f'{size / 1024**unit:.3g} {("B", "KiB", "MiB", "GiB")[unit]}'


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_examples).astype(np.int32)
