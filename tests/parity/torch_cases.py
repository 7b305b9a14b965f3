"""The models, images and weights that are compared with PyTorch, without importing it.

Every weight follows from its name (see `weights`), so only reference values need to be stored.
"""

import importlib
import math
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from cnn_jax import models
from cnn_jax.layers.rbf import draw_bitmaps
from parity.torch_tensors import to_torch

CLASSES = 10
# Without optimization: each program runs only once.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

LARGE = 60.0  # Scale of images for which LRN's sum of squares is not small beside its k = 2.
LABELS = np.array([3, 1, 4, 1], np.int32)


class Case(NamedTuple):
    """One of our models, and the same model in torch.nn.

    Attributes:
      id: Names the case in the files of reference values.
      name: Our model.
      shape: Of its images, [H, W, C].
      net: The function that makes the PyTorch model, as module.function.
      arguments: Arguments of that function.
      scale: Approximate size of pixels and of biases, so that biases matter.
      gain: Factor of batch norm's scales, which keeps the size of a deep model's activations.
      shift: Added to batch norm's shifts; 1 keeps most units active and rounding errors small.
      count: Number of images.
      options: Of our model.
    """

    id: str
    name: str
    shape: tuple[int, int, int]
    net: str
    arguments: dict[str, Any]
    scale: float = 1.0
    gain: float = 1.0
    shift: float = 0.0
    count: int = 2
    options: Mapping[str, Any] = MappingProxyType({})

    def model(self) -> models.Model:
        """Returns our model."""
        return models.create(self.name, CLASSES, **self.options)

    def make(self) -> Any:
        """Returns the PyTorch model, which needs PyTorch."""
        module, function = self.net.split(".")
        return getattr(importlib.import_module(f"parity.{module}"), function)(**self.arguments)


def case(name, height, width, net, arguments=None, channels=3, id=None, **more):
    options = more.get("options", {})
    said = "-".join(
        [f"{name}-{height}x{width}", *(f"{key}={options[key]}" for key in sorted(options))]
    )
    return Case(id or said, name, (height, width, channels), net, arguments or {}, **more)


def sized(net, name, height, width, arguments=None, **more):
    """Returns a case whose dense layers depend on the size of the images."""
    arguments = {"size": (height, width), "classes": CLASSES} | (arguments or {})
    return case(name, height, width, net, arguments, **more)


def headless(net, name, height, width, arguments=None, **more):
    arguments = {"heads": False} | (arguments or {})
    return sized(net, name, height, width, arguments, options={"aux_heads": False}, **more)


def cifar(depth, height, width, kind="resnet", **more):
    arguments = {
        "classes": CLASSES,
        "blocks": ((depth - 2) // 6,) * 3,
        "shortcut": "A" if kind == "resnet" else "plain",
    }
    return case(f"{kind}{depth}", height, width, "torch_nets.resnet", arguments, **more)


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def imagenet(depth, kind="resnet", gain=0.5, **options):
    arguments = {"bias" if key == "conv_bias" else key: value for key, value in options.items()}
    arguments |= {"shortcut": "plain"} if kind == "plain" else {}
    arguments |= {"classes": CLASSES, "blocks": BLOCKS[depth], "bottleneck": depth >= 50}
    return case(
        f"{kind}{depth}", 65, 48, "torch_nets.resnet", arguments, options=options, gain=gain
    )


def mlp(height, width, *hidden, **more):
    arguments = {"units": (height * width * 3, *hidden, CLASSES), "activation": "ReLU"}
    return case(
        "mlp", height, width, "torch_nets.mlp", arguments, options={"hidden": hidden}, **more
    )


OWT = {"maps": (64, 192, 384, 256, 256), "towers": 1, "padding": 2, "lrn": False}
HALF = {"maps": (48, 128, 192, 192, 256), "towers": 1}
PORT = {"norm": True, "larger": 3, "last_pool": 2}
V2 = {"factorized": False, "head_norm": False, "count_padding": True}
LENET5 = {"bitmaps": draw_bitmaps()}
# Without shortcuts, a layer multiplies the variance of its input by that of scales over running
# variances, 13/12 times log 3; this factor undoes it. With shortcuts a block adds to its input, and
# half per layer is little.
EVEN = math.sqrt(12 / (13 * math.log(3)))

# Odd and unequal sides, for which conventions of padding and flattening would differ.
FORWARD = [
    mlp(9, 7),
    mlp(9, 7, 256),
    case("mlp", 5, 7, "torch_nets.mlp", {"units": (105, 9, 8, 10), "activation": "Tanh"},
         options={"hidden": (9, 8), "activation": "tanh"}),
    case("lenet5", 32, 32, "torch_nets.lenet5", LENET5, channels=1),
    case("lenet5", 28, 28, "torch_nets.lenet5", LENET5, channels=1),
    case("lenet5_modern", 28, 28, "torch_nets.lenet5_modern",
         {"side": 28, "classes": CLASSES}, channels=1),
    case("lenet5_modern", 33, 33, "torch_nets.lenet5_modern",
         {"side": 33, "classes": CLASSES}, channels=1),
    sized("torch_nets.alexnet", "alexnet", 99, 131, scale=LARGE),
    sized("torch_nets.alexnet", "alexnet_one_tower", 67, 99, {"towers": 1}, scale=LARGE),
    sized("torch_nets.alexnet", "alexnet_half", 72, 67, HALF, scale=LARGE),
    sized("torch_nets.alexnet", "alexnet_owt", 63, 97, OWT),
    sized("torch_nets.zfnet", "zfnet", 65, 97, scale=LARGE),
    sized("torch_nets.zfnet", "zfnet", 80, 64, scale=LARGE),
    sized("torch_nets.vgg", "vgg_a", 32, 32, {"column": "A"}),
    sized("torch_nets.vgg", "vgg_a", 32, 65, {"column": "A", "batch_norm": True},
          options={"norm": "bn"}, gain=EVEN),
    sized("torch_nets.vgg", "vgg_a_lrn", 32, 64, {"column": "A-LRN"}, scale=LARGE),
    sized("torch_nets.vgg", "vgg_b", 32, 32, {"column": "B"}),
    sized("torch_nets.vgg", "vgg_c", 65, 33, {"column": "C"}),
    sized("torch_nets.vgg", "vgg_d", 32, 32, {"column": "D"}),
    sized("torch_nets.vgg", "vgg_e", 32, 32, {"column": "E"}),
    headless("torch_inceptions.googlenet", "googlenet", 64, 49, scale=LARGE),
    headless("torch_inceptions.googlenet", "googlenet_bn", 65, 80, PORT, gain=EVEN),
    case("bn_inception", 65, 96, "torch_inceptions.bn_inception", {"classes": CLASSES}, gain=EVEN),
    headless("torch_inceptions.inception_v3", "inception_v3", 75, 97, gain=EVEN),
    cifar(20, 33, 25, gain=0.5),
    cifar(20, 32, 32, "plain", gain=EVEN),
    cifar(32, 32, 32, gain=0.5),
    cifar(56, 32, 32, gain=0.5),
    cifar(110, 32, 32, gain=0.5),
    *(imagenet(depth, shortcut=shortcut) for depth in BLOCKS for shortcut in "AB"),
    *(imagenet(depth, gain=0.75, shortcut="C") for depth in BLOCKS),
    imagenet(50, stride_in="3x3", conv_bias=True),
    imagenet(18, "plain", EVEN),
    imagenet(34, "plain", EVEN),
]  # fmt: skip

# Small images: a single unit that rounding moves across ReLU's kink would make a difference.
GRADIENTS = [
    case("lenet5", 32, 32, "torch_nets.lenet5", LENET5, channels=1, count=4, id="lenet5"),
    sized(
        "torch_nets.alexnet",
        "alexnet",
        67,
        67,
        scale=LARGE,
        count=4,
        options={"dropout": 0.0},
        id="alexnet",
    ),
    cifar(20, 9, 12, shift=1.0, count=4, id="resnet20"),
]
RATES = {"lenet5": 2e-4, "alexnet": 1e-6, "resnet20": 5e-4}  # Of SGD's steps.

# Grids of 5x8 and 5x6 before the heads: 1x2 positions in GoogLeNet's, and 1x2 or 1x1 in the others.
AUXILIARY = [
    sized("torch_inceptions.googlenet", "googlenet", 79, 128, scale=LARGE, shift=1.0,
          id="googlenet"),
    sized("torch_inceptions.googlenet", "googlenet_bn", 79, 128, PORT, shift=1.0,
          id="googlenet_bn"),
    sized("torch_inceptions.inception_v3", "inception_v2", 107, 155, V2, shift=1.0,
          options={"count_padding": True}, id="inception_v2"),
    sized("torch_inceptions.inception_v3", "inception_v3", 107, 155, shift=1.0, id="inception_v3"),
]  # fmt: skip


def seeded(name: str) -> np.random.Generator:
    """Returns the random generator of a name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def images(case: Case) -> np.ndarray:
    """Returns images [count, H, W, C] of about the scale, or from 0 to 1 if gray."""
    uniform = seeded("images").random((case.count, *case.shape), np.float32)
    if case.shape[-1] == 1:
        return uniform
    return (uniform - np.float32(0.5)) * np.float32(math.sqrt(12) * case.scale)


def weights(case: Case) -> tuple[Any, Any]:
    """Returns our model's parameters and batch statistics; none of them is 0 or 1.

    Each tensor is filled with numbers from 0 to 1 of numpy's default_rng, seeded with the CRC-32 of
    the tensor's name, such as stage1_block1/conv1/kernel, and then moved and scaled by the rules
    below.
    """
    shapes = jax.eval_shape(
        case.model().init, jax.random.key(0), jax.ShapeDtypeStruct((1, *case.shape), np.float32)
    )

    def draw(path, leaf):
        names = [key.key for key in path[1:]] if len(path) > 1 else [path[0].key]
        uniform = seeded("/".join(names)).random(leaf.shape, np.float32) - np.float32(0.5)
        if names[-1] == "kernel":  # He's variance, which keeps the size of activations.
            return uniform * np.float32(math.sqrt(12 * 2 / math.prod(leaf.shape[:-1])))
        if names[-1] == "scale":
            return (uniform + 1) * np.float32(case.gain)
        if names[-1] in ("var", "coefficient"):
            return uniform + 1
        of_norm = len(names) > 1 and "norm" in names[-2]
        return uniform * np.float32(0.3 * case.scale) + np.float32(case.shift if of_norm else 0)

    drawn = jax.tree_util.tree_map_with_path(draw, {"params": shapes[0], "stats": shapes[1]})
    return drawn["params"], drawn["stats"]


def as_torch(*trees: Any) -> dict[str, np.ndarray]:
    """Returns the tensors of our parameters or statistics as `to_torch` does."""
    flat: dict[str, np.ndarray] = {}
    for tree in trees:
        flat |= flax.traverse_util.flatten_dict(tree, sep="/")
    return to_torch(flat)


def measures(tensors: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Returns [norm, sum with random signs] of each tensor, which any change affects.

    An error of size e changes the second number by about e, wherever it is in the tensor.
    """
    found = {}
    for name, tensor in tensors.items():
        tensor = np.float64(tensor)
        signs = np.where(seeded(f"{name} signs").random(tensor.shape, np.float32) < 0.5, -1, 1)
        found[name] = [float(np.sqrt((tensor**2).sum())), float((tensor * signs).sum())]
    return found


def difference(ours: Any, theirs: Any) -> float:
    """Returns the largest difference, relative to the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def apart(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], tolerance: float
) -> dict[str, float]:
    """Returns the tensors that differ by more than the tolerance, and by how much in norms."""
    assert ours.keys() == theirs.keys() and all(norm > 0 for norm, _ in theirs.values())
    return {name: d for name in ours if not (d := _off(ours[name], theirs[name])) < tolerance}


def _off(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / theirs[0]
