"""The pickles of PyTorch's files, read without running them.

A pickle is a program. Here its instructions are read one by one, and only those that put numbers,
strings, tuples, lists, dictionaries and tensors together are followed, by this module; nothing that
a pickle names is ever called. Sizes and work are bounded, so that any file is refused in a second.
"""

import mmap
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np

from cnn_jax.errors import UserError

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
REMEDY = "save the state dict alone: torch.save(model.state_dict(), path)"

# A tensor takes about 40 instructions and 300 bytes; the largest model here has 1,000 tensors.
MAX_INSTRUCTIONS = 200_000
MAX_PICKLE_BYTES = 16 * 2**20
MAX_RANK = 8


class Global(NamedTuple):
    """What a pickle calls by its name."""

    name: str


class Storage(NamedTuple):
    """A run of numbers in the file, and which of them are meant.

    Attributes:
      key: Its name in the file.
      dtype: Data type of its numbers.
      size: Size of the whole, in numbers.
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

    # genops needs only read and readline, but its type asks for a whole file.
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
                expect(list, stack[-2]).append(stack.pop())
            case "APPENDS":
                items = pop_to_mark()
                expect(list, stack[-1]).extend(items)
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
                stack.append(_find_global(f"{expect(str, module)}.{expect(str, name)}"))
            case "BINPERSID":
                stack.append(_make_storage(*expect(tuple, stack.pop())))
            case "REDUCE":
                arguments, function = expect(tuple, stack.pop()), expect(Global, stack.pop())
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


def expect(kind: type[T], value: Any) -> T:
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
    expect(dict, into)[key] = value


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
    if kind != "storage" or expect(Global, dtype).name not in DTYPES:
        raise UserError(f"holds something other than tensors; {REMEDY}")
    _, start, count = (None, 0, size) if view is None else expect(tuple, view)
    return Storage(
        key=expect(str, key),
        dtype=DTYPES[dtype.name],
        size=_check_natural(size),
        start=_check_natural(start),
        count=_check_natural(count),
    )


def _call(name: str, *arguments: Any) -> Any:
    """Returns what a global returns for these arguments."""
    if name == DICTIONARY:
        made: dict = {}
        for pair in expect(list, arguments[0]) if arguments else []:
            _set_item(made, *pair)
        return made
    if name in PARAMETERS:
        return expect(View, arguments[0])
    if name in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        sizes, steps = expect(tuple, shape), expect(tuple, strides)
        if len(sizes) == len(steps) <= MAX_RANK:
            return View(
                expect(Storage, storage),
                _check_natural(offset),
                tuple(map(_check_natural, sizes)),
                tuple(map(_check_natural, steps)),
            )
    raise UserError(f"holds a call of {name}, which is no part of a state dict; {REMEDY}")


def _check_natural(number: Any) -> int:
    if expect(int, number) < 0:
        raise UserError(f"holds a tensor with a size of {number}")
    return number
