"""Converts a model's weights to the tensors of torchvision, timm or Keras: loading, reversed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.pretrained import match, names
from cnn_jax.pretrained.names import RESNETS, VGG_COLUMNS, FileLayout
from cnn_jax.pretrained.tensor import Tensor

# Format -> (whose names it has, the models that it is written for, the endings of its files).
FORMATS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "torchvision": ("torch", tuple(names.LAYOUTS["torch"]), (".pth", ".safetensors")),
    "timm": ("torch", (*RESNETS, *VGG_COLUMNS, "inception_v3"), (".safetensors", ".pth")),
    "keras": ("keras", tuple(names.LAYOUTS["keras"]), (".h5",)),
}
# Fields of a model that change training alone, so that a file need not say them.
TRAINING_ONLY = ("dropout", "initializer", "bn_group", "axis", "num_classes", "aux_weight")


def to_tensors(
    format: str, name: str, arrays: Mapping[str, np.ndarray], num_classes: int, options: Any
) -> dict[str, np.ndarray]:
    """Returns a model's weights by their names and in their layout in another library.

    Args:
      format: A key of `FORMATS`.
      name: The model.
      arrays: Its parameters and statistics by path, as `match.flatten` gives them.
      num_classes: Logits.
      options: Options of the model.

    Raises:
      UserError: If the library has no such model, or its model computes something else.
    """
    publisher, known, _ = FORMATS[format]
    if name not in known:
        raise UserError(f"format={format}: has no {name}; it has {', '.join(known)}")
    module = models.create(name, num_classes, **options).module
    layout = names.find_layout(publisher, name, _list_telling_tensors(format, name, module))
    _check_options(format, name, module, layout)
    tensors = {}
    for path, array in arrays.items():
        if layout.without_scale and path.endswith("/scale"):
            continue
        tensor = names.find_name(publisher, layout, path.partition("/")[2])
        if publisher == "torch":
            ndim = 4 if format == "timm" and path.endswith(("/fc6/kernel", "/fc7/kernel")) else 0
            channels = match.count_flattened_channels(layout, path)
            source = match.find_torch_source(tensor, array.shape, ndim, channels)
            array = source.revert(array) if source.revert else array
        tensors[tensor] = np.ascontiguousarray(array)
        if tensor.endswith(".running_mean"):  # PyTorch counts the batches of each batch norm.
            tensors[tensor.replace("running_mean", "num_batches_tracked")] = np.array(0, np.int64)
    if layout.without_scale:
        _absorb_scales(publisher, layout, arrays, tensors, module.bn_epsilon)
    return tensors


def _list_telling_tensors(format: str, name: str, module: Any) -> dict[str, Tensor]:
    """Returns the tensors by which `names` tells variants of a library's model apart."""
    telling = []
    if name in VGG_COLUMNS and module.norm == "bn":
        telling.append("features.1.running_mean")
    if name in VGG_COLUMNS and format == "timm":
        telling.append("head.fc.weight")
    if getattr(module, "aux_heads", False):
        telling += ["aux1", "AuxLogits."]
    return {tensor: Tensor((), lambda: np.zeros(())) for tensor in telling}


def _check_options(format: str, name: str, module: Any, layout: FileLayout) -> None:
    """Raises UserError if the library's model differs from ours in what it computes."""
    theirs = models.create(name, module.num_classes, **layout.options).module
    for field in dataclasses.fields(theirs):
        ours, needed = getattr(module, field.name), getattr(theirs, field.name)
        if field.name not in (*TRAINING_ONLY, "parent", "name") and ours != needed:
            raise UserError(
                f"format={format}: its {name} has {field.name}={needed!r}, this one"
                f" {field.name}={ours!r}: train it with model.{field.name}={needed}, or save it"
                " in format=native"
            )


def _absorb_scales(
    publisher: str,
    layout: FileLayout,
    arrays: Mapping[str, np.ndarray],
    tensors: dict[str, np.ndarray],
    epsilon: float,
) -> None:
    """Puts the scales of batch norm into its statistics, for a library whose layers have none.

    scale (x - mean) / sqrt(var + epsilon) is (x' - mean') / sqrt(var' + epsilon) with the variance
    var' = (var + epsilon) / scale^2 - epsilon; where the scale is negative, the convolution before
    and the mean change their signs.
    """
    for path, array in arrays.items():
        if not path.endswith("/norm/scale"):
            continue
        unit = path.removeprefix("params/").removesuffix("/norm/scale")
        scale = array.astype(np.float64)
        if not scale.all():
            raise UserError(f"{unit}: a scale of batch norm is 0, which the format cannot hold")
        kernel, mean, variance = (
            names.find_name(publisher, layout, f"{unit}/{leaf}")
            for leaf in ("conv/kernel", "norm/mean", "norm/var")
        )
        sign = np.sign(array)
        tensors[kernel] = tensors[kernel] * sign
        tensors[mean] = tensors[mean] * sign
        wider = (tensors[variance].astype(np.float64) + epsilon) / scale**2 - epsilon
        tensors[variance] = wider.astype(np.float32)
