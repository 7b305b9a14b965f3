"""Keras' weights by layer and variable: .h5 of Keras 1 to 3, .weights.h5 and .keras of Keras 3."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.pretrained.tensor import Tensor
from cnn_jax.pretrained.zip_entries import find_stored, read_entry

if TYPE_CHECKING:
    import h5py

# The last part of a dataset's name, such as kernel:0; Keras 1 wrote block1_conv1_W_1:0.
LEAF = re.compile(
    r"(?:^|_)(kernel|bias|gamma|beta|moving_mean|moving_variance|W|b)(?:_\d+)?(?::0)?$"
)
KERAS_1 = {"W": "kernel", "b": "bias"}
# Keras 3 numbers a layer's variables. A batch norm without scale=True has no gamma.
NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")
LEAVES = ("kernel", "bias")
CLASSES = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}
MAX_CONFIG_BYTES = 4 * 2**20  # ResNet-152's has 0.3 MB.
MAX_WEIGHTS_BYTES = 2**30  # VGG-19's have 0.6 GB. They are held in memory.
MAX_OBJECTS = 20_000  # Groups and datasets of a file; ResNet-152's has 3,000.
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_zip(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """Returns the tensors of a .keras file, by layer and variable.

    Raises:
      UserError: If it is larger than weights are, or holds anything but numbers.
    """
    config = json.loads(read_entry(archive, "config.json", MAX_CONFIG_BYTES))
    layers = config["config"]["layers"]
    names: dict[str, str] = {}
    for kind, prefix in CLASSES.items():
        own = [layer["config"]["name"] for layer in layers if layer["class_name"] == kind]
        names |= {f"{prefix}_{i}" if i else prefix: name for i, name in enumerate(own)}
    entry = "model.weights.h5"
    with archive.open(find_stored(archive, entry)) as file:
        if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
            raise UserError(f"holds a {entry} that is no HDF5 file: it may be damaged or cut short")
    weights = read_entry(archive, entry, MAX_WEIGHTS_BYTES)
    return _read(io.BytesIO(weights), len(weights), names)


def read_h5(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of an .h5 or .weights.h5 file, by layer and variable.

    Raises:
      UserError: If h5py is missing, or the file holds anything but numbers of its own.
    """
    return _read(path, path.stat().st_size, {})


def _read(file: Path | io.BytesIO, size: int, names: dict[str, str]) -> dict[str, Tensor]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError("is a file of Keras, which h5py reads: pip install h5py") from error
    opened = h5py.File(file, "r")
    tensors: dict[str, Tensor] = {}
    for path, dataset in _list_datasets(opened).items():
        parts = path.removeprefix("model_weights/").split("/")
        if parts[0].startswith("optimizer"):
            continue
        numbered = parts[0] == "layers"
        name = _name_numbered(opened, parts, names) if numbered else _name_dataset(parts)
        if name in tensors:
            raise UserError(f"has two tensors {name!r}")
        tensors[name] = _make_tensor(name, dataset, size)
    return tensors


def _list_datasets(opened: "h5py.File") -> dict[str, "h5py.Dataset"]:
    """Returns the datasets that lie in this file, by path: links to others are not followed."""
    import h5py

    found: dict[str, h5py.Dataset] = {}
    objects = 0

    def visit(path: str, item: Any) -> None:
        nonlocal objects
        objects += 1
        if objects > MAX_OBJECTS:
            raise UserError(f"holds more than {MAX_OBJECTS:,} objects: more than weights have")
        if isinstance(item, h5py.Dataset):
            found[path] = item

    opened.visititems(visit)
    return found


def _name_dataset(parts: list[str]) -> str:
    """Returns layer/variable of a dataset of .h5, layer/[...]/variable."""
    leaf = LEAF.search(parts[-1])
    return f"{parts[0]}/{KERAS_1.get(leaf[1], leaf[1])}" if leaf else "/".join(parts)


def _name_numbered(opened: "h5py.File", parts: list[str], names: dict[str, str]) -> str:
    """Returns layer/variable of a dataset of .weights.h5, layers/class_number/vars/number.

    The layer's own name is beside it, or in `names`.
    """
    if len(parts) != 4 or parts[2] != "vars" or not parts[3].isdecimal():
        return "/".join(parts)
    variables = opened["/".join(parts[:3])]
    layer = names.get(parts[1]) or variables.attrs.get("name")
    if layer is None:
        raise UserError(
            f"does not hold the name of layer {parts[1]}, which not every Keras 3 writes: save it"
            " as .keras"
        )
    is_norm = parts[1].startswith("batch_normalization")
    leaves = NORM_LEAVES[-len(variables) :] if is_norm else LEAVES
    number = int(parts[3])
    return f"{layer}/{leaves[number] if number < len(leaves) else number}"


def _make_tensor(name: str, dataset: "h5py.Dataset", size: int) -> Tensor:
    if dataset.shape is None or dataset.dtype.kind != "f":
        raise UserError(f"tensor {name!r} is of type {dataset.dtype}, not of numbers")
    if dataset.external or dataset.is_virtual:
        raise UserError(f"tensor {name!r} lies in another file: not read")
    if dataset.nbytes > size:
        raise UserError(
            f"tensor {name!r} says {dataset.nbytes} bytes, the file has {size}: not read"
        )

    def read() -> np.ndarray:
        return dataset[()]

    return Tensor(dataset.shape, read)
