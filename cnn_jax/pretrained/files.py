"""A file of weights, whoever wrote it: what it is, by its first bytes, and its tensors by name."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from cnn_jax.errors import UserError
from cnn_jax.pretrained import keras_files, torch_files
from cnn_jax.pretrained.tensor import DAMAGED, Tensor

OURS, TORCH, KERAS = "cnn_jax", "torch", "keras"  # publishers


class Weights(NamedTuple):
    """The tensors of a file, of a publisher; `told`: what the file says of them, where it is ours."""

    publisher: str
    tensors: dict[str, Tensor]
    told: dict[str, Any]


def opened(path: Path) -> Weights:
    """What is in the file, its tensors still to be read; raises UserError where that cannot be told."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        return _opened(path, start)
    except FileNotFoundError as error:
        raise UserError("no such file") from error
    except IsADirectoryError as error:
        raise UserError("is a folder; give the file in it") from error
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(
            f"cannot be read, it may be damaged or cut short: {' '.join(str(error).split()):.200}"
        ) from error


def _opened(path: Path, start: bytes) -> Weights:
    if start[8:] == b"{":  # first, as what comes before it is a length: any bytes
        return _safetensors(path)
    if start.startswith(b"\x89HDF"):
        return Weights(KERAS, keras_files.read_h5(path), {})
    if start.startswith(b"PK"):
        archive = zipfile.ZipFile(path)
        if "model.weights.h5" in archive.namelist():
            return Weights(KERAS, keras_files.read_zip(archive), {})
        if any(entry.endswith("/data.pkl") for entry in archive.namelist()):
            return Weights(TORCH, torch_files.read_zip(archive), {})
    if start.startswith(b"\x80"):
        return Weights(TORCH, torch_files.read_stream(path), {})
    raise UserError("is no .safetensors, .pth, .h5 or .keras file")


def _safetensors(path: Path) -> Weights:
    file = safetensors.safe_open(path, "numpy")
    shape = lambda name: tuple(file.get_slice(name).get_shape())
    keys = list(file.keys())  # noqa: SIM118
    tensors = {name: Tensor(shape(name), lambda name=name: file.get_tensor(name)) for name in keys}
    told = (file.metadata() or {}).get(OURS)
    return Weights(OURS, tensors, json.loads(told)) if told else Weights(TORCH, tensors, {})


def safetensors_bytes(tensors: dict[str, Any], told: dict[str, Any]) -> bytes:
    """The bytes of a .safetensors file of ours."""
    return safetensors.numpy.save(tensors, {"format": "np", OURS: json.dumps(told)})
