"""The models, images and weights that are compared with PyTorch; nothing here needs PyTorch.

Every weight follows from its name, so that reference values alone need to be kept: see `weights`.
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
from cnn_jax.models.lenet import bitmaps

CLASSES = 10
# Our names of tensors as PyTorch has them.
NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "coefficient": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# XLA at its least: one run of each net is not worth an optimized one.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

LARGE = 60.0  # images on which the sums of squares of an LRN count beside its k = 2
LABELS = np.array([3, 1, 4, 1], np.int32)


class Case(NamedTuple):
    """A net of ours, and the same net written in torch.nn.

    Attributes:
      id: names the case in the files of reference values.
      name: of our net.
      shape: of its images, [H, W, C].
      net: the function that makes the torch net, as module.function.
      told: the arguments of that function.
      scale: about the size of the images' numbers, and of biases, which count beside them so.
      gain: what scales of batch norm are multiplied by, so that activations of a deep net keep
        their size.
      shift: what is added to shifts of batch norm; 1 keeps most units alive, and with them rounding
        errors small.
      count: how many images.
      options: of our net.
    """

    id: str
    name: str
    shape: tuple[int, int, int]
    net: str
    told: dict[str, Any]
    scale: float = 1.0
    gain: float = 1.0
    shift: float = 0.0
    count: int = 2
    options: Mapping[str, Any] = MappingProxyType({})

    def model(self) -> models.Model:
        """Return our net."""
        return models.create(self.name, CLASSES, **self.options)

    def make(self) -> Any:
        """Return the torch net, which needs PyTorch."""
        module, function = self.net.split(".")
        return getattr(importlib.import_module(f"parity.{module}"), function)(**self.told)


def case(name, height, width, net, told=None, channels=3, id=None, **more):
    options = more.get("options", {})
    said = "-".join(
        [f"{name}-{height}x{width}", *(f"{key}={options[key]}" for key in sorted(options))]
    )
    return Case(id or said, name, (height, width, channels), net, told or {}, **more)


def sized(net, name, height, width, told=None, **more):
    """A net whose dense layers depend on the size of the images."""
    told = {"size": (height, width), "classes": CLASSES} | (told or {})
    return case(name, height, width, net, told, **more)


def headless(net, name, height, width, told=None, **more):
    told = {"heads": False} | (told or {})
    return sized(net, name, height, width, told, options={"aux_heads": False}, **more)


def cifar(depth, height, width, kind="resnet", **more):
    told = {
        "classes": CLASSES,
        "blocks": ((depth - 2) // 6,) * 3,
        "shortcut": "A" if kind == "resnet" else "plain",
    }
    return case(f"{kind}{depth}", height, width, "torch_nets.resnet", told, **more)


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def imagenet(depth, kind="resnet", gain=0.5, **options):
    told = {"bias" if key == "conv_bias" else key: value for key, value in options.items()}
    told |= {"shortcut": "plain"} if kind == "plain" else {}
    told |= {"classes": CLASSES, "blocks": BLOCKS[depth], "bottleneck": depth >= 50}
    return case(f"{kind}{depth}", 65, 48, "torch_nets.resnet", told, options=options, gain=gain)


def mlp(height, width, *hidden, **more):
    told = {"units": (height * width * 3, *hidden, CLASSES), "activation": "ReLU"}
    return case("mlp", height, width, "torch_nets.mlp", told, options={"hidden": hidden}, **more)


OWT = {"maps": (64, 192, 384, 256, 256), "towers": 1, "padding": 2, "lrn": False}
HALF = {"maps": (48, 128, 192, 192, 256), "towers": 1}
PORT = {"norm": True, "larger": 3, "last_pool": 2}
V2 = {"factorized": False, "head_norm": False, "count_padding": True}
LENET5 = {"bitmaps": bitmaps()}
# Without shortcuts a layer multiplies the variance of what it sees by that of the scales over the
# running variances, 13/12 times log 3; this undoes it. With shortcuts a block adds to what it is
# given: each layer's half is little.
EVEN = math.sqrt(12 / (13 * math.log(3)))

# Odd sizes and unequal sides, where two conventions of padding or flattening would differ.
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

# On small images: one unit that rounding puts on the other side of a ReLU's kink would be a
# difference.
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
RATES = {"lenet5": 2e-4, "alexnet": 1e-6, "resnet20": 5e-4}  # of the steps of SGD

# Grids of 5x8 and 5x6 before the heads: 1x2 places in GoogLeNet's, and 1x2 or 1x1 in the others'.
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
    """Return the generator of random numbers that belongs to a name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def images(case: Case) -> np.ndarray:
    """Return images [count, H, W, C] about as large as the scale, or of 0 to 1 if grey."""
    uniform = seeded("images").random((case.count, *case.shape), np.float32)
    if case.shape[-1] == 1:
        return uniform
    return (uniform - np.float32(0.5)) * np.float32(math.sqrt(12) * case.scale)


def weights(case: Case) -> tuple[Any, Any]:
    """Return our net's parameters and batch statistics; none of them is 0 or 1.

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
        if names[-1] == "kernel":  # of He's variance, so that activations keep their size
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
    """Return our tensors by PyTorch's names and in its layout.

    Kernels become [out, in, h, w], [out, in], or [number, h, w] of C3's single connections.
    """
    tensors = {}
    for tree in trees:
        for (*path, name), leaf in flax.traverse_util.flatten_dict(tree).items():
            leaf, key = np.asarray(leaf), ".".join([*path, NAMES.get(name, name)])
            if name == "kernel":
                leaf = (
                    np.moveaxis(leaf, (-1, -2), (0, 1))
                    if leaf.ndim in (2, 4)
                    else np.moveaxis(leaf, -1, 0)
                )
            assert key not in tensors
            tensors[key] = np.array(leaf)
    return tensors


def measures(tensors: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Return [norm, sum with random signs] of each tensor, which any change of it moves.

    An error of the size e moves the second number by about e, wherever in the tensor it is.
    """
    found = {}
    for name, tensor in tensors.items():
        tensor = np.float64(tensor)
        signs = np.where(seeded(f"{name} signs").random(tensor.shape, np.float32) < 0.5, -1, 1)
        found[name] = [float(np.sqrt((tensor**2).sum())), float((tensor * signs).sum())]
    return found


def difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference, in parts of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def apart(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], tolerance: float
) -> dict[str, float]:
    """Return how much the tensors differ that do by more than the tolerance, in norms."""
    assert ours.keys() == theirs.keys() and all(norm > 0 for norm, _ in theirs.values())
    return {name: d for name in ours if not (d := _off(ours[name], theirs[name])) < tolerance}


def _off(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / theirs[0]
