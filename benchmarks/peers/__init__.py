"""The peers of a comparison, one module each.

Each module has a function `make_peer(spec, weights) -> Peer`. All peers train the same model from
the same weights on the same batch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# Every peer's optimizer: SGD whose weight decay is added to the gradients of all parameters.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-5, 0.9, 1e-4


class Spec(NamedTuple):
    """One comparison: a model on a batch of images, computed by one peer."""

    peer: str
    variant: str  # The peer's variant; empty where it has only one.
    model: str
    batch: int
    image: tuple[int, int, int]  # [H, W, C], float32.
    classes: int
    precision: str  # Of activations: float32 or bfloat16. Parameters are float32.
    weights: str  # The .npz file that `benchmarks.draw` writes.
    platform: str = "cpu"  # JAX's platform, which the other frameworks use too.


class Peer(NamedTuple):
    """A training step on one device, which holds the batch."""

    step: Callable[[], None]  # Starts one training step.
    # Waits for all steps; returns the mean loss of those since the last call.
    read_loss: Callable[[], float]
    # Returns the peak memory of the device in bytes, or None where that is the process's.
    read_peak_memory: Callable[[], int | None]


def nest(weights: Mapping[str, np.ndarray], root: str) -> dict[str, Any]:
    """Converts the paths below `root`, {root/layer/name: array}, to nested dictionaries."""
    nested: dict[str, Any] = {}
    for path in [path for path in weights if path.startswith(f"{root}/")]:
        *layers, name = path.split("/")[1:]
        parent = nested
        for layer in layers:
            parent = parent.setdefault(layer, {})
        parent[name] = weights[path]
    return nested


def read_jax_peak_memory() -> int | None:
    """Returns the peak memory of JAX's first device in bytes, or None on CPU."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
