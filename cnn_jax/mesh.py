"""The device mesh: one axis, 'batch', over all devices; an array is whole on each of them or split over it."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import UserError

BATCH = "batch"
_meant: ContextVar[str | None] = ContextVar("_meant", default=None)


def platform() -> str:
    """cpu | gpu | tpu: where what is traced now will run; JAX's default, unless `compiling_for` says otherwise."""
    return _meant.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """What is traced inside is meant for this platform, of which this machine may have no device."""
    token = _meant.set(name)
    try:
        yield
    finally:
        _meant.reset(token)


def batch_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices (or of those given) along the batch."""
    devices = devices or jax.devices()
    # Auto on purpose: the compiler propagates shardings; make_mesh's default asks the model to state them.
    return jax.make_mesh((len(devices),), (BATCH,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The first dimension is split evenly over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, the same in every process, on the devices as the sharding says."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def check_divides(batch: int, devices: int, field: str) -> None:
    """Raises UserError, naming the nearest batch that works, if the devices cannot share the batch evenly."""
    if batch < 1 or batch % devices:
        below, above = batch // devices * devices, (batch // devices + 1) * devices
        near = f"{below} or {above}" if below > 0 else f"{above}"
        raise UserError(f"{field}={batch} does not divide over {devices} devices: set it to {near}")
