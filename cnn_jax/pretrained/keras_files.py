"""Keras' weights: .h5 of Keras 1 to 3, and .weights.h5 and .keras of Keras 3, as {"layer/kernel": tensor}."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.pretrained.tensor import Tensor
from cnn_jax.pretrained.torch_files import stored

# The last part of a dataset's name, kernel:0 for example; Keras 1 wrote block1_conv1_W_1:0.
LEAF = re.compile(r"(?:^|_)(kernel|bias|gamma|beta|moving_mean|moving_variance|W|b)(?:_\d+)?(?::0)?$")
KERAS_1 = {"W": "kernel", "b": "bias"}
# Keras 3 numbers a layer's variables.
NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")  # without scale=True, no gamma
LEAVES = ("kernel", "bias")
CLASSES = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}


def read_zip(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """The tensors of a .keras file, by layer and variable."""
    layers = json.loads(stored(archive, "config.json"))["config"]["layers"]
    names: dict[str, str] = {}
    for kind, called in CLASSES.items():
        of_kind = [layer["config"]["name"] for layer in layers if layer["class_name"] == kind]
        names |= {f"{called}_{i}" if i else called: name for i, name in enumerate(of_kind)}
    weights = stored(archive, "model.weights.h5")
    return _read(io.BytesIO(weights), len(weights), names)


def read_h5(path: Path) -> dict[str, Tensor]:
    """The tensors of an .h5 or .weights.h5 file, by layer and variable."""
    return _read(path, path.stat().st_size, {})


def _read(file: Path | io.BytesIO, size: int, names: dict[str, str]) -> dict[str, Tensor]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError("is Keras', which h5py reads: pip install h5py") from error
    datasets: dict[str, Any] = {}
    opened = h5py.File(file, "r")
    # Visits what lies in this file: links to others are not followed.
    opened.visititems(lambda path, item: datasets.update({path: item}) if isinstance(item, h5py.Dataset) else None)
    tensors: dict[str, Tensor] = {}
    for path, dataset in datasets.items():
        parts = path.removeprefix("model_weights/").split("/")
        if parts[0].startswith("optimizer"):
            continue
        name = _numbered(opened, parts, names) if parts[0] == "layers" else _named(parts)
        if name in tensors:
            raise UserError(f"has two tensors {name!r}")
        tensors[name] = _tensor(name, dataset, size)
    return tensors


def _named(parts: list[str]) -> str:
    """Of a dataset of .h5: layer/[...]/variable."""
    leaf = LEAF.search(parts[-1])
    return f"{parts[0]}/{KERAS_1.get(leaf[1], leaf[1])}" if leaf else "/".join(parts)


def _numbered(opened: Any, parts: list[str], names: dict[str, str]) -> str:
    """Of a dataset of .weights.h5, layers/class_number/vars/number; the layer's own name is beside it or in `names`."""
    if len(parts) != 4 or parts[2] != "vars" or not parts[3].isdecimal():
        return "/".join(parts)
    variables = opened["/".join(parts[:3])]
    layer = names.get(parts[1]) or variables.attrs.get("name")
    if layer is None:
        raise UserError(
            f"does not tell the name of layer {parts[1]}, which not every Keras 3 writes: save it as .keras"
        )
    leaves = NORM_LEAVES[-len(variables) :] if parts[1].startswith("batch_normalization") else LEAVES
    number = int(parts[3])
    return f"{layer}/{leaves[number] if number < len(leaves) else number}"


def _tensor(name: str, dataset: Any, size: int) -> Tensor:
    if dataset.shape is None or dataset.dtype.kind != "f":
        raise UserError(f"tensor {name!r} is of type {dataset.dtype}, not of numbers")
    if dataset.external or dataset.is_virtual:
        raise UserError(f"tensor {name!r} lies in another file: not read")
    if dataset.nbytes > size:
        raise UserError(f"tensor {name!r} says {dataset.nbytes} bytes, the file has {size}: not read")

    return Tensor(dataset.shape, lambda: dataset[()])
