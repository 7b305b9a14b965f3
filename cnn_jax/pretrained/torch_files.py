"""PyTorch state dicts (.pth, .pt, .bin), zip files and the stream of before torch 1.6, read without running them.

A pickle is a program. Here its instructions are looked at one by one, and only those that put numbers, strings,
tuples, lists, dictionaries and tensors together are followed, by us; nothing that it names is ever called.
"""

import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.pretrained.tensor import Tensor

DTYPES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
}
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter")
DICTIONARY = "collections.OrderedDict"
GLOBALS = {*DTYPES, *TENSORS, *PARAMETERS, DICTIONARY}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what the stream of before torch 1.6 begins with
REMEDY = "give a state dict: torch.save(model.state_dict(), path)"


class Global(NamedTuple):
    """What a pickle calls by its name."""

    name: str


class Storage(NamedTuple):
    """A run of numbers in the file, and which of them are meant."""

    key: str
    dtype: np.dtype
    size: int  # of the whole, in numbers
    start: int
    count: int


class View(NamedTuple):
    """A tensor: shape and strides, in numbers, over a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_zip(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """The tensors of a zip file of torch 1.6 or later, by name."""
    pickle = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
    folder = pickle.removesuffix("data.pkl")
    if folder + "byteorder" in archive.namelist() and stored(archive, folder + "byteorder") != b"little":
        raise UserError("was saved on a big-endian machine, whose numbers are not read here; save it on another")
    with archive.open(_plain(archive, pickle)) as file:
        views = _views(unpickled(file))
    tensors = {}
    for name, view in views.items():
        entry = folder + "data/" + view.storage.key
        size = _plain(archive, entry).file_size if entry in archive.NameToInfo else 0
        _check(name, view, size)
        tensors[name] = Tensor(view.shape, lambda view=view, entry=entry: _strided(view, stored(archive, entry)))
    return tensors


def stored(archive: zipfile.ZipFile, entry: str) -> bytes:
    """The bytes of an entry that is not compressed, which is why they cannot be more than the file's; CRC checked."""
    return archive.read(_plain(archive, entry))


def _plain(archive: zipfile.ZipFile, entry: str) -> zipfile.ZipInfo:
    info = archive.getinfo(entry)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise UserError(f"holds {entry} in compressed form, which such files never do")
    return info


def read_stream(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of before torch 1.6, by name: five pickles, then the storages one after another."""
    with path.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if unpickled(data) != MAGIC or unpickled(data) != PROTOCOL:
        raise UserError("is a pickle, but not of torch.save; " + REMEDY)
    if not unpickled(data).get("little_endian", True):
        raise UserError("was saved on a big-endian machine, whose numbers are not read here; save it on another")
    views = _views(unpickled(data))
    keys = unpickled(data)
    storages = {view.storage.key: view.storage for view in views.values()}
    places, place = {}, data.tell()
    for key in keys:  # each: how many numbers (8 bytes), then the numbers
        size = int.from_bytes(data[place : place + 8], "little")
        if key not in storages or size != storages[key].size:
            break  # nothing after it can be found: the check below names the first tensor of those
        places[key] = place + 8
        place += 8 + size * storages[key].dtype.itemsize
    tensors = {}
    for name, view in views.items():
        begin, size = places.get(view.storage.key, len(data)), view.storage.size * view.storage.dtype.itemsize
        _check(name, view, min(size, max(0, len(data) - begin)))
        tensors[name] = Tensor(view.shape, lambda view=view, b=begin, n=size: _strided(view, data[b : b + n]))
    return tensors


def _views(state: Any) -> dict[str, View]:
    if not isinstance(state, dict) or not state:
        raise UserError("holds no state dict; " + REMEDY)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, View):
            raise UserError(f"holds {name!r:.80}, which is no tensor; {REMEDY}")
    return state


def _check(name: str, view: View, size: int) -> None:
    """Raises UserError where a tensor says more than the `size` bytes that the file has for its storage."""
    storage = view.storage
    if size != storage.size * storage.dtype.itemsize:
        raise UserError(
            f"tensor {name!r}: the file has {size} bytes of its storage of {storage.size} numbers; is it cut short?"
        )
    numbers = math.prod(view.shape)
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    inside = storage.start + storage.count <= storage.size and last < storage.count and numbers <= storage.count
    if numbers and not inside:
        raise UserError(f"tensor {name!r}: shape {view.shape} does not lie inside its storage")


def _strided(view: View, raw: bytes) -> np.ndarray:
    storage = view.storage
    numbers = np.frombuffer(raw, storage.dtype)[storage.start : storage.start + storage.count][view.offset :]
    strides = [stride * storage.dtype.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(numbers, view.shape, strides, writeable=False)


def unpickled(file: BinaryIO | mmap.mmap) -> Any:
    """The value of one pickle, from the file's position to its end; nothing in it is run.

    Raises UserError for a name that is not of tensors, or an instruction that they do not need.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case name if name in _VALUES:
                stack.append(_VALUES[name](argument))
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                _of(list, stack[-2]).append(stack.pop())
            case "APPENDS":
                items = since_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], key, value)
            case "SETITEMS":
                items = since_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _put(stack[-1], key, value)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_known(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module}.{name}"))
            case "BINPERSID":
                stack.append(_storage(*_of(tuple, stack.pop())))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_built(_of(Global, function).name, *_of(tuple, arguments)))
            case "BUILD":
                stack.pop()  # attributes beside the value: a state dict's _metadata, a parameter's flags
            case name:
                raise UserError(f"holds the pickle instruction {name}, which weights do not need: not read")
    raise UserError("ends inside a pickle")


_VALUES: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
} | dict.fromkeys(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
    lambda argument: argument,
)


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"holds a pickle that treats a {type(value).__name__} as a {kind.__name__}: not read")
    return value


def _put(into: Any, key: Any, value: Any) -> None:
    # Tuples would do, but the hash of one that holds itself many times over takes forever.
    if not isinstance(key, str | int):
        raise UserError("holds a dictionary whose keys are not names: not read")
    _of(dict, into)[key] = value


def _known(name: str) -> Global:
    if name not in GLOBALS:
        raise UserError(f"holds the global {name!r:.200}, which is no part of weights and might run code: not read")
    return Global(name)


def _storage(
    kind: Any, dtype: Any = None, key: Any = None, _: Any = None, size: Any = None, view: Any = None
) -> Storage:
    """What torch's pickles refer to outside themselves: ("storage", type, key, device, numbers[, part])."""
    if kind != "storage" or _of(Global, dtype).name not in DTYPES:
        raise UserError(f"holds something other than tensors; {REMEDY}")
    _, start, count = (None, 0, size) if view is None else _of(tuple, view)
    return Storage(_of(str, key), DTYPES[dtype.name], _natural(size), _natural(start), _natural(count))


def _built(name: str, *arguments: Any) -> Any:
    if name == DICTIONARY:
        made: dict = {}
        for pair in _of(list, arguments[0]) if arguments else []:
            _put(made, *pair)
        return made
    if name in PARAMETERS:
        return _of(View, arguments[0])
    if name in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        view = View(_of(Storage, storage), _natural(offset), *(tuple(map(_natural, x)) for x in (shape, strides)))
        if len(view.shape) == len(view.strides):
            return view
    raise UserError(f"holds a call of {name}, which is no part of a state dict; {REMEDY}")


def _natural(number: Any) -> int:
    if _of(int, number) < 0:
        raise UserError(f"holds a tensor with a size of {number}")
    return number
