"""The peers of a comparison, one module each, and what they train.

Each module has a function `make_peer(spec, weights) -> Peer`. All peers train the same model from
the same weights on the same batch.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

# Every peer's optimizer: SGD whose weight decay is added to the gradients of all parameters.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-5, 0.9, 1e-4
# Of Inception v3's auxiliary loss against the main one.
AUXILIARY_WEIGHT = 0.4


# Test-time views: sides of a crop and of the images' shorter side, in pixels.
CROP, SCALE = 224, 256


class Workload(NamedTuple):
    """A model and the batch that it is trained on.

    Attributes:
      model: The model's name in `cnn_jax.models`.
      image: [H, W, C] of its images.
      classes: Number of classes.
      batch: Images per step.
      peers: The peers that have the model.
      options: Options of the model beside dropout, which is 0.
    """

    model: str
    image: tuple[int, int, int]
    classes: int
    batch: int
    peers: tuple[str, ...] = ("flax", "torch")
    options: Mapping[str, Any] = MappingProxyType({})


ALL_PEERS = ("flax", "torch", "keras")
CIFAR, MNIST, IMAGENET = (32, 32, 3), (28, 28, 1), (224, 224, 3)
TANH = {"activation": "scaled_tanh"}
WORKLOADS = {
    "resnet20": Workload("resnet20", CIFAR, 10, 128, ALL_PEERS),
    "resnet56": Workload("resnet56", CIFAR, 10, 128),
    "plain56": Workload("plain56", CIFAR, 10, 128),
    "resnet50": Workload("resnet50", IMAGENET, 1000, 16, ALL_PEERS),
    "vgg_d": Workload("vgg_d", CIFAR, 10, 128, ALL_PEERS),
    "alexnet": Workload("alexnet", (227, 227, 3), 1000, 32),
    # Its auxiliary heads have a dropout of 0.7, whose masks no two frameworks draw alike.
    "googlenet": Workload("googlenet", IMAGENET, 1000, 8, options={"aux_heads": False}),
    "inception_v3": Workload("inception_v3", (299, 299, 3), 1000, 8),
    "small_cnn": Workload("small_cnn", MNIST, 10, 128),
    "lenet5": Workload("lenet5", MNIST, 10, 128),
    "lenet5_modern": Workload("lenet5_modern", MNIST, 10, 1, ALL_PEERS),
    # Of the study mnist_methods, with its batch.
    "mlp_500_150": Workload("mlp", MNIST, 10, 64, options=TANH | {"hidden": (500, 150)}),
}


class Spec(NamedTuple):
    """One comparison: a model on a batch of images, computed by one peer."""

    peer: str
    variant: str  # The peer's variant; empty where it has only one.
    model: str  # A key of WORKLOADS.
    batch: int
    image: tuple[int, int, int]  # [H, W, C], float32.
    classes: int
    precision: str  # Of activations: float32 or bfloat16. Parameters are float32.
    weights: str  # The .npz file that `benchmarks.draw` writes.
    platform: str = "cpu"  # JAX's platform, which the other frameworks use too.
    protocol: str = ""  # Of `benchmarks.views`: ten_crop or dense.


class Peer(NamedTuple):
    """A training step on one device, which holds the batch."""

    step: Callable[[], None]  # Starts one training step.
    # Waits for all steps; returns the mean loss of those since the last call.
    read_loss: Callable[[], float]
    # Returns the peak memory of the device in bytes, or None where that is the process's.
    read_peak_memory: Callable[[], int | None]
    # Compiles the step once more and returns its HLO; of ours only.
    read_program: Callable[[], str] | None = None


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


def make_photographs(images: np.ndarray) -> np.ndarray:
    """Returns uint8 [B, 256, 320, 3] from standard normal images [B, 224, 224, 3], repeated."""
    wider = np.pad(images, ((0, 0), (0, SCALE - CROP), (0, 320 - CROP), (0, 0)), mode="wrap")
    return (127 + 50 * wider).clip(0, 255).astype(np.uint8)


def read_jax_peak_memory() -> int | None:
    """Returns the peak memory of JAX's first device in bytes, or None on CPU."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
