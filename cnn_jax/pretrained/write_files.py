"""Writes tensors as PyTorch's .pth, as .safetensors and as Keras' .h5, without those libraries."""

import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from cnn_jax.errors import UserError

if TYPE_CHECKING:
    import h5py

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}  # torch's classes, by dtype.
KERAS_ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def to_pth(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of the file that torch.save writes of a state dict.

    Args:
      tensors: By name, float32 or int64.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickle_state(tensors))
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(tensors.values()):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            archive.writestr(f"archive/data/{number}", little.tobytes())
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def _pickle_state(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the pickle of a state dict, protocol 2, whose tensors lie beside it.

    The opcodes are written by hand, because pickle can name torch's functions only where torch is
    installed.
    """
    body = b"\x80\x02}("  # Protocol 2, an empty dictionary, a mark.
    for number, (name, array) in enumerate(tensors.items()):
        elements = array.size
        strides = np.empty(array.shape, np.int8).strides  # Of single bytes: counted in elements.
        # ("storage", class, key, device, elements), a reference to what lies beside the pickle.
        storage = (
            b"("
            + _pickle_text("storage")
            + f"ctorch\n{STORAGES[array.dtype.name]}\n".encode()
            + _pickle_text(str(number))
            + _pickle_text("cpu")
            + _pickle_integer(elements)
            + b"tQ"
        )
        body += _pickle_text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
        body += _pickle_integer(0) + _pickle_integers(array.shape) + _pickle_integers(strides)
        body += b"\x89ccollections\nOrderedDict\n)RtR"  # No gradient, no hooks; the call.
    return body + b"u."


def _pickle_text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _pickle_integer(number: int) -> bytes:
    return b"J" + number.to_bytes(4, "little", signed=True)


def _pickle_integers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_pickle_integer, numbers)) + b"t"


def to_safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of a .safetensors file as PyTorch's libraries write it."""
    return safetensors.numpy.save(dict(tensors), {"format": "pt"})


def to_h5(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of the .h5 file that Keras' load_weights(path, by_name=True) reads.

    Args:
      tensors: By layer and variable, such as "conv1_bn/gamma".

    Raises:
      UserError: If h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise UserError("format=keras: h5py writes files of Keras: pip install h5py") from None
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in tensors.items():
        layer, _, variable = name.rpartition("/")
        layers.setdefault(layer, {})[variable] = array
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"jax"
        for layer, variables in layers.items():
            _write_layer(file.create_group(layer), layer, variables)
    return stream.getvalue()


def _write_layer(group: "h5py.Group", layer: str, variables: Mapping[str, Any]) -> None:
    ordered = sorted(variables, key=KERAS_ORDER.index)
    group.attrs["weight_names"] = [f"{layer}/{variable}".encode() for variable in ordered]
    for variable in ordered:
        group.create_dataset(f"{layer}/{variable}", data=variables[variable])


WRITERS = {".pth": to_pth, ".safetensors": to_safetensors, ".h5": to_h5}
