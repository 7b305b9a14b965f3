"""PyTorch state dicts (.pth, .pt, .bin): zip files, and the format from before torch 1.6."""

import math
import mmap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.pretrained.tensor import Tensor
from cnn_jax.pretrained.torch_pickle import REMEDY, View, expect, unpickle
from cnn_jax.pretrained.zip_entries import find_stored, read_entry

# What the stream of before torch 1.6 begins with.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MAX_BYTEORDER_BYTES = 16  # "little" or "big".


def read_zip(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """Returns the tensors of a zip file of torch 1.6 or later, by name.

    Raises:
      UserError: If it holds no state dict, or anything but tensors.
    """
    pickle = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
    folder = pickle.removesuffix("data.pkl")
    order = folder + "byteorder"
    if order in archive.namelist() and read_entry(archive, order, MAX_BYTEORDER_BYTES) != b"little":
        raise _make_big_endian_error()
    with archive.open(find_stored(archive, pickle)) as file:
        views = _check_state(unpickle(file))
    tensors = {}
    for name, view in views.items():
        entry = folder + "data/" + view.storage.key
        size = find_stored(archive, entry).file_size if entry in archive.NameToInfo else 0
        _check_view(name, view, size)

        def read(view: View = view, entry: str = entry) -> np.ndarray:
            return _read_view(view, read_entry(archive, entry))

        tensors[name] = Tensor(view.shape, read)
    return tensors


def read_stream(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file of before torch 1.6, by name.

    It holds five pickles, then the storages one after another.

    Raises:
      UserError: If it holds no state dict, or anything but tensors.
    """
    with path.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if unpickle(data) != MAGIC or unpickle(data) != PROTOCOL:
        raise UserError(f"is a pickle, but not of torch.save; {REMEDY}")
    if not expect(dict, unpickle(data)).get("little_endian", True):
        raise _make_big_endian_error()
    views = _check_state(unpickle(data))
    keys = expect(list, unpickle(data))
    storages = {view.storage.key: view.storage for view in views.values()}
    begins, begin = {}, data.tell()
    for key in keys:  # Each: how many numbers, in 8 bytes, then the numbers.
        size = int.from_bytes(data[begin : begin + 8], "little")
        if not isinstance(key, str) or key not in storages or size != storages[key].size:
            break  # Nothing after it can be found: the check below names the first tensor there.
        begins[key] = begin + 8
        begin += 8 + size * storages[key].dtype.itemsize
    tensors = {}
    for name, view in views.items():
        first = begins.get(view.storage.key, len(data))
        size = view.storage.size * view.storage.dtype.itemsize
        _check_view(name, view, min(size, max(0, len(data) - first)))

        def read(view: View = view, first: int = first, size: int = size) -> np.ndarray:
            return _read_view(view, data[first : first + size])

        tensors[name] = Tensor(view.shape, read)
    return tensors


def _make_big_endian_error() -> UserError:
    return UserError(
        "was saved on a big-endian machine, whose numbers are not read here; save it on another"
    )


def _check_state(state: Any) -> dict[str, View]:
    """Returns what a pickle holds, if it is a state dict."""
    if not isinstance(state, dict) or not state:
        raise UserError(f"holds no state dict; {REMEDY}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, View):
            raise UserError(f"holds {name!r:.80}, which is no tensor; {REMEDY}")
    return state


def _check_view(name: str, view: View, size: int) -> None:
    """Checks that a tensor lies inside the `size` bytes that the file has for its storage."""
    storage = view.storage
    if size != storage.size * storage.dtype.itemsize:
        raise UserError(
            f"tensor {name!r}: the file has {size} bytes of its storage of {storage.size} numbers;"
            " is it cut short?"
        )
    numbers = math.prod(view.shape)
    strides = zip(view.shape, view.strides, strict=True)
    last = view.offset + sum((n - 1) * stride for n, stride in strides)
    in_storage = storage.start + storage.count <= storage.size
    inside = in_storage and last < storage.count and numbers <= storage.count
    if numbers and not inside:
        raise UserError(f"tensor {name!r}: shape {view.shape} does not lie inside its storage")


def _read_view(view: View, raw: bytes) -> np.ndarray:
    storage = view.storage
    numbers = np.frombuffer(raw, storage.dtype)[storage.start : storage.start + storage.count]
    strides = [stride * storage.dtype.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(
        numbers[view.offset :], view.shape, strides, writeable=False
    )
