"""One mesh with one data axis over the devices of the run."""

from __future__ import annotations

import dataclasses
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
        """Devices on the data axis."""
        return self.mesh.size

    def everywhere(self, tree: Any) -> Any:
        """Puts arrays, which every process holds alike on one of its own devices or on the host, on every device."""
        return jax.tree.map(lambda array: place(np.asarray(array), self.replicated), tree)


def make_placement(batch_size: int = 0, devices: list[jax.Device] | None = None) -> Placement:
    """All devices of the run, those of other processes too (or those given), on one data axis.

    Args:
        batch_size: images of a batch over all of them; 0 for batches that are padded to fit.
        devices: those of one process in a row.

    Raises:
        UserError: if the batch does not divide evenly over them.
    """
    devices = devices or jax.devices()
    if batch_size % len(devices):
        below = batch_size // len(devices) * len(devices)
        raise UserError(
            f'a batch of {batch_size} does not divide over {len(devices)} devices; take a multiple of them, '
            f'such as config.train.batch_size={below or len(devices)}'
        )
    # Auto axes: linen's Dense and Dropout raise ShardingTypeError under make_mesh's default, Explicit.
    return Placement(jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices))
