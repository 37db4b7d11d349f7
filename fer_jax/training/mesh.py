"""One mesh over the devices of the run: a data axis, and one of members where several are trained together."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fer_jax.data.feed import place
from fer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where arrays lie: whole on every device, or cut along one axis."""

    mesh: jax.sharding.Mesh

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def split(self, axis: int) -> NamedSharding:
        """The given axis cut over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, 'data'))

    @property
    def num_devices(self) -> int:
        """Devices on the data axis, over which a batch is cut."""
        return self.mesh.shape['data']

    @property
    def members(self) -> int:
        """Devices on the axis of members."""
        return self.mesh.size // self.num_devices

    def everywhere(self, tree: Any) -> Any:
        """Puts arrays, which every process holds alike on one of its own devices or on the host, on every device."""
        return jax.tree.map(lambda array: place(np.asarray(array), self.replicated), tree)


def make_placement(batch_size: int = 0, devices: list[jax.Device] | None = None, members: int = 1) -> Placement:
    """All devices of the run, those of other processes too (or those given), on one data axis.

    Args:
        batch_size: images of a batch over all of them; 0 for batches that are padded to fit.
        devices: those of one process in a row.
        members: that are trained at once: as many devices of each process as divide them go to different members, which
            have nothing to send each other, and share their batch with those of the same place in other such groups.

    Raises:
        UserError: if the batch does not divide evenly over them.
    """
    devices = devices or jax.devices()
    apart = math.gcd(members, len(devices) // jax.process_count())
    sharing = len(devices) // apart
    if batch_size % sharing:
        below = batch_size // sharing * sharing
        raise UserError(
            f'a batch of {batch_size} does not divide over {sharing} devices; take a multiple of them, '
            f'such as config.train.batch_size={below or sharing}'
        )
    axes = {'data': sharing} | ({'members': apart} if apart > 1 else {})
    # Auto axes: linen's Dense and Dropout raise ShardingTypeError under make_mesh's default, Explicit.
    types = (AxisType.Auto,) * len(axes)
    return Placement(jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=types, devices=devices))
