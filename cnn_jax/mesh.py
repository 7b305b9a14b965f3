"""The device mesh: one axis, 'batch', over all devices.

An array is either replicated, which means whole on each device, or sharded along its first
dimension.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import UserError

BATCH = "batch"
_target_platform: ContextVar[str | None] = ContextVar("_target_platform", default=None)


def get_platform() -> str:
    """Returns cpu, gpu or tpu, the platform for which code is traced now.

    It is JAX's default backend unless `target_platform` is active.
    """
    return _target_platform.get() or jax.default_backend()


@contextlib.contextmanager
def target_platform(name: str) -> Iterator[None]:
    """Traces code inside the context for a platform that this machine may not have."""
    token = _target_platform.set(name)
    try:
        yield
    finally:
        _target_platform.reset(token)


def make_batch_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of all devices, or of those given, along the batch."""
    devices = devices or jax.devices()
    # Auto on purpose: the compiler propagates shardings. make_mesh's default asks the model to.
    return jax.make_mesh((len(devices),), (BATCH,), axis_types=(AxisType.Auto,), devices=devices)


def make_replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def make_batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array whose first dimension is split evenly over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def make_steps_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays [steps, batch, ...] whose batch is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Copies host arrays, equal in every process, to the devices by the sharding."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put_one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put_one, tree)


def check_divides(batch: int, devices: int, field: str) -> None:
    """Raises UserError, naming the nearest batch that works, if the devices cannot share a batch.

    Args:
      batch: Images per step.
      devices: How many share them.
      field: The name of the batch in the message.
    """
    if batch < 1 or batch % devices:
        below, above = batch // devices * devices, (batch // devices + 1) * devices
        near = f"{below} or {above}" if below > 0 else f"{above}"
        raise UserError(f"{field}={batch} does not divide over {devices} devices: set it to {near}")
