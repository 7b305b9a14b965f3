"""Measures the speed of a device, or takes it from the table of chips."""

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import models
from cnn_jax.config import Experiment
from cnn_jax.cost import chips


def find_chip(experiment: Experiment, topology: str | None) -> chips.Chip:
    """Returns the chip of a topology or of this machine: TPUs from the table, others measured."""
    if topology is not None:
        return chips.parse_topology(topology).chip
    kind = jax.devices()[0].device_kind
    if kind in chips.DEVICE_KINDS:
        return chips.TPUS[chips.DEVICE_KINDS[kind]]
    return measure_chip(models.DTYPES[find_dtype(experiment)])


def find_dtype(experiment: Experiment) -> str:
    """Returns the name of the data type that a model computes in."""
    return str(experiment.model.args.get("dtype", "float32"))


def measure_chip(dtype: Any) -> chips.Chip:
    """Measures one of this machine's devices in about a second, by matrix products and a copy.

    The devices of a CPU share its memory and cores.

    Args:
      dtype: Data type of the products.
    """
    device = jax.devices()[0]
    sharing = jax.local_device_count() if device.platform == "cpu" else 1
    square, copy = jax.jit(lambda x: x @ x), jax.jit(jnp.negative, donate_argnums=0)
    flops, side, took = 0.0, 512, 0.0
    while took < 0.02:  # A larger product is closer to the peak.
        took = _time_fastest(square, jnp.zeros((side, side), dtype), repeat=False)
        flops, side = max(flops, 2 * side**3 / took), 2 * side
    size = 2**25  # Larger than a cache.
    took = _time_fastest(copy, jnp.zeros(size, "float32"), repeat=True)
    return chips.Chip(
        name=f"{device.device_kind}, measured",
        memory=_find_memory(device) / sharing,
        bandwidth=2 * 4 * size / took / sharing,  # Read and written.
        flops=flops / sharing,
        interconnect=None,
    )


def _time_fastest(compute: Callable, x: jax.Array, repeat: bool) -> float:
    """Calls a function for a third of a second; returns the seconds of the fastest call.

    Args:
      compute: A compiled function of one array.
      x: The array.
      repeat: Whether each call takes the previous result instead of x.
    """
    times: list[float] = []
    result = jax.block_until_ready(compute(x))
    while len(times) < 3 or sum(times) < 0.3:
        begin = time.perf_counter()
        result = jax.block_until_ready(compute(result if repeat else x))
        times.append(time.perf_counter() - begin)
    return min(times)


def _find_memory(device: jax.Device) -> float:
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
