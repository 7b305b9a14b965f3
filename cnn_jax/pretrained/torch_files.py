"""PyTorch state dicts (.pth, .pt, .bin): zip files, and the stream of before torch 1.6.

A pickle is a program. Here its instructions are read one by one, and only those that put numbers,
strings, tuples, lists, dictionaries and tensors together are followed, by this module; nothing that
a pickle names is ever called. Sizes and work are bounded, so that any file is refused in a second.
"""

import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.pretrained.tensor import Tensor

T = TypeVar("T")

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
# What the stream of before torch 1.6 begins with.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
REMEDY = "save the state dict alone: torch.save(model.state_dict(), path)"

# A tensor takes about 40 instructions and 300 bytes; the largest model here has 1,000 tensors.
MAX_INSTRUCTIONS = 200_000
MAX_PICKLE_BYTES = 16 * 2**20
MAX_RANK = 8
MAX_BYTEORDER_BYTES = 16  # "little" or "big".


class Global(NamedTuple):
    """What a pickle calls by its name."""

    name: str


class Storage(NamedTuple):
    """A run of numbers in the file, and which of them are meant.

    Attributes:
      key: Its name in the file.
      dtype: Of its numbers.
      size: Of the whole, in numbers.
      start: The first that is meant.
      count: How many are meant.
    """

    key: str
    dtype: np.dtype
    size: int
    start: int
    count: int  # type: ignore[assignment] # hides tuple.count, which nobody calls


class View(NamedTuple):
    """A tensor: its shape and strides, in numbers, over a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


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


def read_entry(archive: zipfile.ZipFile, entry: str, most: int | None = None) -> bytes:
    """Returns the bytes of an entry, whose checksum is checked.

    Args:
      archive: The zip file.
      entry: Its name. It is not compressed, so it is no larger than the file.
      most: How many bytes it may have.

    Raises:
      UserError: If it is compressed, or larger.
    """
    info = find_stored(archive, entry)
    if most is not None and info.file_size > most:
        raise UserError(f"holds {entry} of {info.file_size:,} bytes; at most {most:,} are read")
    return archive.read(info)


def find_stored(archive: zipfile.ZipFile, entry: str) -> zipfile.ZipInfo:
    """Returns an entry that is not compressed; raises UserError if it is."""
    info = archive.getinfo(entry)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise UserError(f"holds {entry} in compressed form, which such files never do")
    return info


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
    if not _expect(dict, unpickle(data)).get("little_endian", True):
        raise _make_big_endian_error()
    views = _check_state(unpickle(data))
    keys = _expect(list, unpickle(data))
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


@dataclass
class _Pickle:
    """A file that gives no more bytes and instructions than a pickle of weights has."""

    file: IO[bytes] | mmap.mmap
    bytes_left: int = MAX_PICKLE_BYTES
    work_left: int = MAX_INSTRUCTIONS

    def read(self, size: int) -> bytes:
        """Returns the next bytes."""
        if size > self.bytes_left:
            raise self._make_error(f"{MAX_PICKLE_BYTES:,} bytes")
        self.bytes_left -= size
        return self.file.read(size)

    def readline(self) -> bytes:
        """Returns the next line."""
        line = self.file.readline()
        if len(line) > self.bytes_left:
            raise self._make_error(f"{MAX_PICKLE_BYTES:,} bytes")
        self.bytes_left -= len(line)
        return line

    def work(self, amount: int) -> None:
        """Counts work; raises UserError if it is more than weights need."""
        self.work_left -= amount
        if self.work_left < 0:
            raise self._make_error(f"{MAX_INSTRUCTIONS:,} instructions")

    def _make_error(self, limit: str) -> UserError:
        return UserError(f"holds a pickle of more than {limit}: more than weights need; {REMEDY}")


def unpickle(file: IO[bytes] | mmap.mmap) -> Any:
    """Returns the value of one pickle, from the file's position to its end; nothing in it is run.

    Raises:
      UserError: If it names anything but parts of tensors, holds an instruction that they do not
        need, or is larger than weights are.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    source = _Pickle(file)

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    # genops calls read and readline alone; typeshed wants a whole file.
    for opcode, found, _ in pickletools.genops(source):  # type: ignore[arg-type]
        source.work(1)
        argument: Any = found  # of the kind that the instruction has
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case name if name in _ARGUMENTS:
                stack.append(argument)
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                _expect(list, stack[-2]).append(stack.pop())
            case "APPENDS":
                items = pop_to_mark()
                _expect(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_item(stack[-1], key, value)
            case "SETITEMS":
                items = pop_to_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _set_item(stack[-1], key, value)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_find_global(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_find_global(f"{_expect(str, module)}.{_expect(str, name)}"))
            case "BINPERSID":
                stack.append(_make_storage(*_expect(tuple, stack.pop())))
            case "REDUCE":
                arguments, function = _expect(tuple, stack.pop()), _expect(Global, stack.pop())
                source.work(sum(len(x) for x in arguments if isinstance(x, list | tuple)))
                stack.append(_call(function.name, *arguments))
            case "BUILD":
                # Attributes beside the value: a state dict's _metadata, a parameter's flags.
                stack.pop()
            case name:
                raise UserError(
                    f"holds the pickle instruction {name}, which weights do not need: not read;"
                    f" {REMEDY}"
                )
    raise UserError("ends inside a pickle")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
# Instructions that push their argument.
_ARGUMENTS = (
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "SHORT_BINSTRING",
    "BINUNICODE",
    "SHORT_BINUNICODE",
)


def _expect(kind: type[T], value: Any) -> T:
    """Returns the value, if it is of a kind."""
    if not isinstance(value, kind):
        raise UserError(
            f"holds a pickle that treats a {type(value).__name__} as a {kind.__name__}: not read"
        )
    return value


def _set_item(into: Any, key: Any, value: Any) -> None:
    # Tuples would do, but the hash of one that holds itself many times over takes forever.
    if not isinstance(key, str | int):
        raise UserError("holds a dictionary whose keys are not names: not read")
    _expect(dict, into)[key] = value


def _find_global(name: str) -> Global:
    if name not in GLOBALS:
        raise UserError(
            f"holds {name!r:.200}, which is no part of weights and might run code: not read;"
            f" {REMEDY}"
        )
    return Global(name)


def _make_storage(
    kind: Any,
    dtype: Any = None,
    key: Any = None,
    device: Any = None,
    size: Any = None,
    view: Any = None,
) -> Storage:
    """Returns what a pickle of torch refers to outside itself.

    Args:
      kind: "storage".
      dtype: The global of its type.
      key: Its name in the file.
      device: Where it was; ignored.
      size: In numbers.
      view: (key, first number, count) of the part that is meant; None: all.
    """
    if kind != "storage" or _expect(Global, dtype).name not in DTYPES:
        raise UserError(f"holds something other than tensors; {REMEDY}")
    _, start, count = (None, 0, size) if view is None else _expect(tuple, view)
    return Storage(
        key=_expect(str, key),
        dtype=DTYPES[dtype.name],
        size=_check_natural(size),
        start=_check_natural(start),
        count=_check_natural(count),
    )


def _call(name: str, *arguments: Any) -> Any:
    """Returns what a global returns for these arguments."""
    if name == DICTIONARY:
        made: dict = {}
        for pair in _expect(list, arguments[0]) if arguments else []:
            _set_item(made, *pair)
        return made
    if name in PARAMETERS:
        return _expect(View, arguments[0])
    if name in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        sizes, steps = _expect(tuple, shape), _expect(tuple, strides)
        if len(sizes) == len(steps) <= MAX_RANK:
            return View(
                _expect(Storage, storage),
                _check_natural(offset),
                tuple(map(_check_natural, sizes)),
                tuple(map(_check_natural, steps)),
            )
    raise UserError(f"holds a call of {name}, which is no part of a state dict; {REMEDY}")


def _check_natural(number: Any) -> int:
    if _expect(int, number) < 0:
        raise UserError(f"holds a tensor with a size of {number}")
    return number
