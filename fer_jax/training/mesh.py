"""One mesh with one data axis over the devices of the run."""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

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


def make_placement(batch_size: int, devices: list[jax.Device] | None = None) -> Placement:
    """All local devices (or those given) on one data axis.

    Raises:
        UserError: if the batch does not divide evenly over them.
    """
    devices = devices or jax.devices()
    if batch_size % len(devices):
        raise UserError(f'a batch of {batch_size} does not divide over {len(devices)} devices; take a multiple of them')
    # Auto axes: linen's Dense and Dropout raise ShardingTypeError under make_mesh's default, Explicit.
    return Placement(jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices))
