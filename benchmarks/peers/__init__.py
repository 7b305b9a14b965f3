"""Who is timed: one module each.

Its make(spec, weights) -> Peer trains the same net from the same weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# What every peer's optimiser is told: SGD whose weight decay is added to the gradients of all
# parameters.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-5, 0.9, 1e-4


class Spec(NamedTuple):
    """What is timed, the same for all.

    A peer of a net on images [batch, *image] float32 of `classes` classes.
    """

    peer: str
    variant: str  # of the peer, where there are several
    net: str
    batch: int
    image: tuple[int, int, int]
    classes: int
    precision: str  # of the activations: float32 | bfloat16; the parameters are float32
    weights: str  # the file that `benchmarks.draw` wrote
    platform: str = "cpu"  # on which JAX computes: the others must too


class Peer(NamedTuple):
    """A training step on one device, the batch lying there."""

    step: Callable[[], None]  # starts one more
    # Waits for all of them; the mean loss of those since it was last asked.
    loss: Callable[[], float]
    memory: Callable[[], int | None]  # the peak on the device in bytes; None: it is the process's


def tree(weights: Mapping[str, np.ndarray], root: str) -> dict[str, Any]:
    """What lies under `root` of {root/layer/.../name: array}, as nested dicts."""
    nested: dict[str, Any] = {}
    for path in [path for path in weights if path.startswith(f"{root}/")]:
        *layers, name = path.split("/")[1:]
        place = nested
        for layer in layers:
            place = place.setdefault(layer, {})
        place[name] = weights[path]
    return nested


def jax_memory() -> int | None:
    """JAX's peak on its first device in bytes; None where it keeps no count (CPU)."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
