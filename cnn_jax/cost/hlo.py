"""Reads the HLO text of a compiled program: collectives, memory traffic, layers of operations.

All numbers are of one device.
"""

import math
import re
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
# Bits of the types whose names do not end in them, as those of f32, s8 and u64 do.
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}
_PARENTHESES = r"\((?:[^()]|\([^()]*\))*\)"
# %name = f32[8]{0} opcode(%operands), attributes. The shape of several results is in parentheses,
# and so are tiles.
INSTRUCTION = re.compile(
    r"^\s*(ROOT )?%?([\w.$-]+) = "
    rf"(\((?:[^()]|{_PARENTHESES})*\)|[^\s(]+(?:{_PARENTHESES}[^\s(]*)*) "
    r"([\w-]+)\(([^()]*)(.*)"
)
NO_TRAFFIC = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "opt-barrier",
    "iota",
)
# These read as many bytes of their first operand as they return.
LOOKUPS = ("dynamic-slice", "slice", "gather")
CONTROL_FLOW = ("while", "conditional", "call")  # Only run other operations.


class Instruction(NamedTuple):
    """A line of HLO text.

    Attributes:
      name: Name of its result.
      shape: Shape of its result, as printed.
      opcode: What it does.
      operands: Names.
      attributes: All that follows the operands, as printed.
      root: Whether its result is its computation's.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


Computation = dict[str, Instruction]


class Program(NamedTuple):
    """A program: its computations, each {name: instruction}, by name, and the name of its entry."""

    computations: dict[str, Computation]
    entry: str


class Collective(NamedTuple):
    """Collectives of one kind: how many, and the bytes of their operands."""

    count: int  # type: ignore[assignment] # hides tuple.count, which nobody calls
    bytes: int


class Origin(NamedTuple):
    """Where an operation comes from.

    Attributes:
      opcode: What it does.
      layer: The path from which it was traced, such as jit(step)/jvp(resnet20)/stem/conv; or empty.
    """

    opcode: str
    layer: str


def parse_program(text: str) -> Program:
    """Returns the instructions of a program's HLO text."""
    found: dict[str, Computation] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if not line.startswith(" ") and (header := re.match(r"(ENTRY )?%?([\w.$-]+) ", line)):
            current = header[2]
            entry = current if header[1] else entry
        elif match := INSTRUCTION.match(line):
            root, name, shape, opcode, operands, rest = match.groups()
            # A parameter's only operand is its number.
            names = (
                (operands,)
                if opcode == "parameter"
                else tuple(re.findall(r"%([\w.$-]+)", operands))
            )
            found.setdefault(current, {})[name] = Instruction(
                name, shape, opcode, names, rest, bool(root)
            )
    return Program(found, entry)


def count_collectives(text: str) -> dict[str, Collective]:
    """Counts the collectives of a compiled program by kind.

    An asynchronous collective counts where it starts. The body of a loop counts once.
    """
    found: dict[str, Collective] = {}
    for computation in parse_program(text).computations.values():
        for one in computation.values():
            kind = one.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                before = found.get(kind, Collective(0, 0))
                size = sum(count_bytes(computation[name].shape) for name in one.operands)
                found[kind] = Collective(before.count + 1, before.bytes + size)
    return found


def find_origins(text: str) -> dict[str, Origin]:
    """Returns the origin of each operation of a compiled program, by the operation's name.

    Args:
      text: The program's HLO text.
    """
    found = {}
    for computation in parse_program(text).computations.values():
        for one in computation.values():
            path = re.search(r'op_name="([^"]*)"', one.attributes)
            found[one.name] = Origin(one.opcode, path[1] if path else "")
    return found


def has_loop(text: str) -> bool:
    """Returns whether a program has a loop, whose body the compiler's FLOP count counts once."""
    computations = parse_program(text).computations.values()
    return any(one.opcode == "while" for each in computations for one in each.values())


def count_traffic(text: str) -> int:
    """Counts the bytes that a TPU's program moves between the chip and its main memory (HBM).

    A loop counts as often as it runs, or once if its length is unknown. For lookups in a table only
    the read rows count. The compiler's own count includes arrays in the chip's fast memory, marked
    S(1) in their layout, which is several times as much if the batch per chip is small.
    """
    program = parse_program(text)
    return _count_traffic(program.computations, program.entry)


def _count_traffic(found: dict[str, Computation], name: str) -> int:
    computation, total = found[name], 0
    for one in computation.values():
        starts = one.opcode.endswith("-start")
        if one.opcode in NO_TRAFFIC or (
            starts and one.opcode.removesuffix("-start") not in COLLECTIVES
        ):
            continue
        shapes = [computation[operand].shape for operand in one.operands]
        if one.opcode == "while":
            times = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.attributes)
            total += (int(times[1]) if times else 1) * _count_traffic(
                found, _find_called(one, "body")
            )
        elif one.opcode == "call":
            total += _count_traffic(found, _find_called(one, "to_apply"))
        elif one.opcode in ("copy-done", "slice-done"):
            # Started by an operation whose shape includes those of its operands.
            source = computation[computation[one.operands[0]].operands[0]].shape
            total += count_bytes(one.shape) * (_is_in_memory(one.shape) + _is_in_memory(source))
        elif one.opcode.endswith("-done"):
            continue
        elif one.opcode == "fusion":
            total += _count_fusion(found, one, shapes)
        elif one.opcode in LOOKUPS:
            total += count_bytes(one.shape) * (_is_in_memory(one.shape) + _is_in_memory(shapes[0]))
        elif one.opcode == "dynamic-update-slice":
            total += count_bytes(shapes[1]) * (_is_in_memory(shapes[0]) + _is_in_memory(shapes[1]))
        else:
            parts = [part for shape in (one.shape, *shapes) for part in _split_shape(shape)]
            total += sum(count_bytes(part) for part in parts if _is_in_memory(part))
    return total


def _count_fusion(found: dict[str, Computation], fusion: Instruction, shapes: list[str]) -> int:
    inner = found[_find_called(fusion, "calls")]
    parameters = {int(i.operands[0]): i.name for i in inner.values() if i.opcode == "parameter"}
    total = 0
    for k, shape in enumerate(shapes):
        if _is_in_memory(shape):
            total += _count_read(found, inner, parameters[k], count_bytes(shape))
    root = next(i for i in inner.values() if i.root)
    parts = _split_shape(fusion.shape)
    written = (
        [inner[name] for name in root.operands] if root.opcode == "tuple" else [root] * len(parts)
    )
    for part, one in zip(parts, written, strict=True):
        in_place = one.opcode == "dynamic-update-slice"
        total += count_bytes(inner[one.operands[1]].shape if in_place else part) * _is_in_memory(
            part
        )
    return total


def _count_read(found: dict[str, Computation], inner: Computation, name: str, whole: int) -> int:
    """Counts the bytes of a fusion's operand that are read.

    If rows of the operand are looked up or replaced, that is only a part of it.
    """
    total = 0
    for user in inner.values():
        replaced = user.opcode == "dynamic-update-slice" and user.operands[0] == name
        if name not in user.operands or replaced:
            continue
        if user.opcode in LOOKUPS and user.operands[0] == name:
            total += count_bytes(user.shape)
        elif user.opcode == "bitcast":
            total += _count_read(found, inner, user.name, whole)
        elif user.opcode == "fusion":
            deeper = found[_find_called(user, "calls")]
            position = str(user.operands.index(name))
            parameter = next(
                one.name
                for one in deeper.values()
                if one.opcode == "parameter" and one.operands == (position,)
            )
            total += _count_read(found, deeper, parameter, whole)
        else:
            return whole
    return min(total, whole)


def _find_called(one: Instruction, what: str) -> str:
    found = re.search(rf"\b{what}=%?([\w.$-]+)", one.attributes)
    assert found is not None, one
    return found[1]


def _split_shape(shape: str) -> list[str]:
    return re.findall(r"\w+\[[\d,<=]*\](?:\{[^}]*\})?", shape)


def _is_in_memory(shape: str) -> bool:
    return not re.search(r"S\([1-9]", shape)


def count_bytes(shape: str) -> int:
    """Returns the bytes of an HLO shape, of all its parts if it is a tuple.

    f32[8,16]{1,0} has 512.
    """
    bits = 0
    for dtype, dimensions in re.findall(r"(\w+)\[([\d,<=]*)\]", shape):
        number = re.match(r"[a-z]+(\d+)", dtype)
        width = BITS.get(dtype) or (int(number[1]) if number else 0)
        bits += width * math.prod(int(d.lstrip("<=")) for d in dimensions.split(",") if d)
    return -(-bits // 8)
