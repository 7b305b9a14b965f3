"""Files of weights of any publisher: their format, by their first bytes, and their tensors."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from cnn_jax.errors import UserError
from cnn_jax.pretrained import keras_files, torch_files
from cnn_jax.pretrained.tensor import READ_ERRORS, Tensor

OURS, TORCH, KERAS = "cnn_jax", "torch", "keras"  # Publishers.
# Directories of tensors: 1,000 tensors take 100 kB.
MAX_HEADER_BYTES = 4 * 2**20
_ZIP_END = 22 + 2**16  # Where a zip file's end is looked for: its record and its comment.


class Weights(NamedTuple):
    """The tensors of a file.

    Attributes:
      publisher: OURS, TORCH or KERAS.
      tensors: By name.
      metadata: What a file of ours says of them.
    """

    publisher: str
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def open_weights(path: Path) -> Weights:
    """Returns the content of a file. The tensors are read when they are needed.

    Raises:
      UserError: If it is no file of weights, damaged, or larger than weights are.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        return _open_as(path, start)
    except FileNotFoundError as error:
        raise UserError("no such file") from error
    except IsADirectoryError as error:
        raise UserError("is a folder; give the file in it") from error
    except UserError:
        raise
    except READ_ERRORS as error:
        words = " ".join(str(error).split())
        raise UserError(f"cannot be read, it may be damaged or cut short: {words:.200}") from error


def _open_as(path: Path, start: bytes) -> Weights:
    if start[8:] == b"{":  # First, as what comes before it is a length: any bytes.
        return _open_safetensors(path, int.from_bytes(start[:8], "little"))
    if start.startswith(b"\x89HDF"):
        return Weights(KERAS, keras_files.read_h5(path), {})
    if start.startswith(b"PK"):
        _check_zip_directory(path)
        archive = zipfile.ZipFile(path)
        if "model.weights.h5" in archive.namelist():
            return Weights(KERAS, keras_files.read_zip(archive), {})
        if any(entry.endswith("/data.pkl") for entry in archive.namelist()):
            return Weights(TORCH, torch_files.read_zip(archive), {})
    if start.startswith(b"\x80"):
        return Weights(TORCH, torch_files.read_stream(path), {})
    raise UserError("is no .safetensors, .pth, .h5 or .keras file")


def _check_zip_directory(path: Path) -> None:
    """Checks the size that a zip file says its directory has, before it is read."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _ZIP_END))
        end = file.read()
    record, large = end.rfind(b"PK\x05\x06"), end.rfind(b"PK\x06\x06")
    sizes = [end[record + 12 : record + 16]] if record >= 0 else []
    if sizes == [b"\xff" * 4]:  # The size is in the record of the zip64 format.
        sizes = [end[large + 40 : large + 48]] if large >= 0 else []
    for size in sizes:
        _check_header(int.from_bytes(size, "little"))


def _check_header(size: int) -> None:
    if size > MAX_HEADER_BYTES:
        raise UserError(
            f"says that its list of tensors takes {size:,} bytes; at most {MAX_HEADER_BYTES:,} are"
            " read: it may be damaged or cut short"
        )


def _open_safetensors(path: Path, header: int) -> Weights:
    _check_header(header)
    file = safetensors.safe_open(path, "numpy")
    tensors = {}
    for name in file.keys():  # noqa: SIM118 - it is no dictionary.

        def read(name: str = name) -> Any:
            return file.get_tensor(name)

        tensors[name] = Tensor(tuple(file.get_slice(name).get_shape()), read)
    metadata = (file.metadata() or {}).get(OURS)
    if metadata is None:
        return Weights(TORCH, tensors, {})
    return Weights(OURS, tensors, json.loads(metadata))


def to_native_safetensors(tensors: dict[str, Any], metadata: dict[str, Any]) -> bytes:
    """Returns the bytes of a .safetensors file of ours."""
    return safetensors.numpy.save(tensors, {"format": "np", OURS: json.dumps(metadata)})
