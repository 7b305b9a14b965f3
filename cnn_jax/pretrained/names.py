"""Maps our tensors to those of public files, by rules for each publisher and family of models.

A module's path ("stage1_block2/conv1") becomes the publisher's name by its family's rules: regular
expressions and their replacements, applied in order.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cnn_jax.errors import UserError, suggest_names
from cnn_jax.models import inception, vgg
from cnn_jax.pretrained import preprocessing
from cnn_jax.pretrained.preprocessing import Preprocessing
from cnn_jax.pretrained.tensor import Tensor

Rule = tuple[str, str | Callable[[re.Match], str]]  # A pattern, and what replaces it.
Tensors = Mapping[str, Tensor]
VGG_COLUMNS = {"vgg_a": "A", "vgg_b": "B", "vgg_d": "D", "vgg_e": "E"}
RESNETS = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))
BOTTLENECKS = RESNETS[2:]


class FileLayout(NamedTuple):
    """How a publisher's file holds a model, and how the model's images are prepared.

    Attributes:
      rules: Patterns and replacements, applied in order, that turn the path of a module in our
        model into the name in the file.
      preprocessing: The preprocessing of the images on which the publisher trained the model.
      options: Options of `models.create` with which our model computes what the publisher's does.
      flattened_channels: Number of channels of the feature map that torch flattens before a dense
        layer.
      without_scale: Whether the publisher's batch norm has no scale. The scale of ours is then 1.
    """

    rules: tuple[Rule, ...]
    preprocessing: Preprocessing
    options: dict[str, Any]
    flattened_channels: int = 0
    without_scale: bool = False


def find_layout(publisher: str, name: str, tensors: Tensors) -> FileLayout:
    """Returns the layout of a publisher's file of a model.

    Args:
      publisher: torch or keras.
      name: Name of the model.
      tensors: The tensors of the file, which tell variants of a model apart.

    Raises:
      UserError: If the publisher has no weights of the model.
    """
    known = LAYOUTS[publisher]
    if name not in known:
        near = suggest_names(name, known)
        raise UserError(f"is of {publisher}, which has no weights of {name}; {near}")
    return known[name](name, tensors)


def find_name(publisher: str, layout: FileLayout, path: str) -> str:
    """Returns the publisher's name of a parameter or statistic.

    Args:
      publisher: torch or keras.
      layout: The result of `find_layout`.
      path: The path in our model, such as "stage1_block2/conv1/kernel".
    """
    module, _, leaf = path.rpartition("/")
    norm = re.search(r"norm[^/]*$", module)
    for pattern, replacement in layout.rules:
        module = re.sub(pattern, replacement, module)
    if publisher == "torch":
        return f"{module}.{TORCH_LEAVES[leaf]}".replace("/", ".")
    return f"{module}/{'beta' if norm and leaf == 'bias' else KERAS_LEAVES[leaf]}"


TORCH_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
KERAS_LEAVES = {
    "kernel": "kernel",
    "bias": "bias",
    "scale": "gamma",
    "mean": "moving_mean",
    "var": "moving_variance",
}
# torch counts the batches of each batch norm for averages that do not decay, which no model here
# has.
UNUSED = {"torch": r"(^|\.)num_batches_tracked$", "keras": r"(?!)"}


def _torch_alexnet(_: str, tensors: Tensors) -> FileLayout:
    numbers = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
    rules = [(f"^{ours}$", f"features.{number}") for ours, number in numbers.items()]
    dense = [("^fc6$", "classifier.1"), ("^fc7$", "classifier.4"), ("^fc8$", "classifier.6")]
    return FileLayout((*rules, *dense), preprocessing.TORCHVISION, {}, flattened_channels=256)


def _torch_vgg(name: str, tensors: Tensors) -> FileLayout:
    norm = "features.1.running_mean" in tensors
    rules, number = [], 0  # A number for each convolution, norm, ReLU and pooling.
    for block, row in enumerate(vgg.TABLE[VGG_COLUMNS[name]], start=1):
        for layer in range(1, len(row) + 1):
            rules += [
                (f"^conv{block}_{layer}$", f"features.{number}"),
                (f"^norm{block}_{layer}$", f"features.{number + 1}"),
            ]
            number += 3 if norm else 2
        number += 1
    if "head.fc.weight" in tensors:  # timm's, whose dense layers are convolutions.
        dense = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
    else:
        dense = ("classifier.0", "classifier.3", "classifier.6")
    rules += [(f"^fc{number}$", layer) for number, layer in enumerate(dense, start=6)]
    first = tensors.get(dense[0] + ".weight")
    inputs = math.prod(first.shape[1:]) if first else 0
    resized = _resize_vgg_recipe(preprocessing.TORCHVISION, inputs)
    return FileLayout(tuple(rules), resized, {"norm": "bn"} if norm else {}, flattened_channels=512)


def _resize_vgg_recipe(given: Preprocessing, inputs: int) -> Preprocessing:
    """Returns the preprocessing for the image size implied by fc6's number of inputs.

    They are 512 for each 32x32 pixels.
    """
    side = 32 * math.isqrt(inputs // 512)
    if inputs != (side // 32) ** 2 * 512 or not 0 < side <= 10_000 or side == given.crop:
        return given
    return dataclasses.replace(given, crop=side, resize=side * given.resize // given.crop)


def _torch_googlenet(_: str, tensors: Tensors) -> FileLayout:
    rules = (
        (r"^conv2/", "conv3/"),
        (r"^conv2_reduce/", "conv2/"),
        (r"/branch1_1/", ".branch1/"),
        (r"/branch([23])_(\d)/", lambda m: f".branch{m[1]}.{int(m[2]) - 1}/"),
        (r"/projection/", ".branch4.1/"),
        (r"^aux4a/", "aux1/"),
        (r"^aux4d/", "aux2/"),
        (r"/dense$", ".fc1"),
        (r"/head$", ".fc2"),
        (r"^head$", "fc"),
        (r"/norm$", ".bn"),
    )
    heads = any(key.startswith("aux") for key in tensors)
    return FileLayout(
        rules, preprocessing.TORCHVISION_GOOGLENET, {"aux_heads": heads}, flattened_channels=128
    )


_STEM = {
    "conv1a": "1a_3x3",
    "conv1b": "2a_3x3",
    "conv1c": "2b_3x3",
    "conv2": "3b_1x1",
    "conv3": "4a_3x3",
}


def _torch_inception(_: str, tensors: Tensors) -> FileLayout:
    rules = (
        (r"^(mixed35.)/branch2_", r"\1/branch5x5_"),
        (r"^(mixed35.)/branch3_", r"\1/branch3x3dbl_"),
        (r"^(reduce35)/branch1_1", r"\1/branch3x3"),
        (r"^(reduce35)/branch2_", r"\1/branch3x3dbl_"),
        (r"^(mixed17.)/branch2_", r"\1/branch7x7_"),
        (r"^(mixed17.)/branch3_", r"\1/branch7x7dbl_"),
        (r"^(reduce17)/branch1_", r"\1/branch3x3_"),
        (r"^(reduce17)/branch2_", r"\1/branch7x7x3_"),
        (r"^(mixed8.)/branch2_", r"\1/branch3x3_"),
        (r"^(mixed8.)/branch3_", r"\1/branch3x3dbl_"),
        (r"(\d)_1x3/", r"\1a/"),
        (r"(\d)_3x1/", r"\1b/"),
        (r"/branch1_1/", "/branch1x1/"),
        (r"/projection/", "/branch_pool/"),
        # Our letters count from a; their a is what reduces the grid before.
        (r"^mixed(35|17|8)(.)/", lambda m: f"Mixed_{_GRIDS[m[1]]}{chr(ord(m[2]) + 1)}/"),
        (r"^reduce35/", "Mixed_6a/"),
        (r"^reduce17/", "Mixed_7a/"),
        (r"^(conv\w+)/", lambda m: f"Conv2d_{_STEM[m[1]]}/"),
        (r"^aux/conv/", "AuxLogits.conv0/"),
        (r"^aux/full/", "AuxLogits.conv1/"),
        (r"^aux/head$", "AuxLogits.fc"),
        (r"^head$", "fc"),
        (r"/norm$", ".bn"),
    )
    heads = any(key.startswith("AuxLogits.") for key in tensors)
    return FileLayout(
        rules, preprocessing.TORCHVISION_INCEPTION, {"aux_heads": heads, "count_padding": True}
    )


_GRIDS = {"35": "5", "17": "6", "8": "7"}


def _torch_resnet(name: str, _: Tensors) -> FileLayout:
    rules = (
        (r"^stem$", "conv1"),
        (r"^stem_norm$", "bn1"),
        (r"^stage(\d)_block(\d+)/", lambda m: f"layer{m[1]}.{int(m[2]) - 1}."),
        (r"\.norm(\d)$", r".bn\1"),
        (r"projection$", "downsample.0"),
        (r"projection_norm$", "downsample.1"),
        (r"^head$", "fc"),
    )
    return FileLayout(
        rules, preprocessing.TORCHVISION, {"stride_in": "3x3"} if name in BOTTLENECKS else {}
    )


def _keras_vgg(_: str, tensors: Tensors) -> FileLayout:
    rules = (
        (r"^conv(\d)_(\d)$", r"block\1_conv\2"),
        ("^fc6$", "fc1"),
        ("^fc7$", "fc2"),
        ("^fc8$", "predictions"),
    )
    first = tensors.get("fc1/kernel")
    return FileLayout(
        rules,
        _resize_vgg_recipe(preprocessing.KERAS_CAFFE, math.prod(first.shape[:-1]) if first else 0),
        {},
    )


def _keras_resnet(_: str, tensors: Tensors) -> FileLayout:
    rules = (
        (r"^stem$", "conv1_conv"),
        (r"^stem_norm$", "conv1_bn"),
        (r"/conv(\d)$", r"_\1_conv"),
        (r"/norm(\d)$", r"_\1_bn"),
        (r"/projection$", "_0_conv"),
        (r"/projection_norm$", "_0_bn"),
        (r"^stage(\d)_", lambda m: f"conv{int(m[1]) + 1}_"),
        (r"^head$", "probs" if "probs/kernel" in tensors else "predictions"),  # probs: Keras 2.3.
    )
    return FileLayout(
        rules,
        preprocessing.KERAS_CAFFE,
        {"stride_in": "1x1", "conv_bias": True, "bn_epsilon": 1.001e-5},
    )


def _keras_inception(_: str, tensors: Tensors) -> FileLayout:
    # Keras numbers the convolutions in the order in which the model was built, and continues from
    # where the last model of the program stopped.
    rules: list[Rule] = [(r"^head$", "predictions")]
    order = list(_STEM)
    for module, (branches, projection), _reduces in inception.V3_TABLE:
        units = [
            unit
            for b, branch in enumerate(branches, start=1)
            for unit in _list_units(f"{module}/branch{b}", branch)
        ]
        order += units + [f"{module}/projection"] * bool(projection)
    for ours, kind in (("conv", "conv2d"), ("norm", "batch_normalization")):
        numbers = [
            int(m[1] or 0) for key in tensors if (m := re.match(rf"{kind}(?:_(\d+))?/", key))
        ]
        for number, unit in enumerate(order, start=min(numbers, default=0)):
            rules.append((f"^{unit}/{ours}$", f"{kind}_{number}" if number else kind))
    return FileLayout(
        tuple(rules), preprocessing.KERAS_TENSORFLOW, {"aux_heads": False}, without_scale=True
    )


def _list_units(branch: str, steps: tuple) -> list[str]:
    """Returns the paths of a branch's convolutions in order; the last step may be a fork."""
    *chain, last = steps
    units = [f"{branch}_{i}" for i in range(1, len(chain) + 1)]
    if isinstance(last[0], tuple):
        return units + [f"{branch}_{len(steps)}_{height}x{width}" for height, width, _ in last]
    return [*units, f"{branch}_{len(steps)}"]


LAYOUTS: dict[str, dict[str, Callable[[str, Tensors], FileLayout]]] = {
    "torch": {
        "alexnet_owt": _torch_alexnet,
        **dict.fromkeys(VGG_COLUMNS, _torch_vgg),
        "googlenet_bn": _torch_googlenet,
        "inception_v3": _torch_inception,
        **dict.fromkeys(RESNETS, _torch_resnet),
    },
    "keras": {
        **dict.fromkeys(("vgg_d", "vgg_e"), _keras_vgg),
        "inception_v3": _keras_inception,
        **dict.fromkeys(BOTTLENECKS, _keras_resnet),
    },
}
