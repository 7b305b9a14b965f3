"""What a compiled program's HLO text tells: its collectives, its traffic with memory, and the layer of each operation.

All numbers are of one device.
"""

import math
import re
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast",
               "ragged-all-to-all")  # fmt: skip
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # others end in their bits: f32, s8, u64
FLAT = r"\((?:[^()]|\([^()]*\))*\)"
# %name = f32[8]{0} opcode(%operands), attributes; the shape of several results is in parentheses, as tiles are
INSTRUCTION = re.compile(
    rf"^\s*(ROOT )?%?([\w.$-]+) = (\((?:[^()]|{FLAT})*\)|[^\s(]+(?:{FLAT}[^\s(]*)*) ([\w-]+)\(([^()]*)(.*)"
)
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "iota")
LOOKS_UP = ("dynamic-slice", "slice", "gather")  # of the first operand, only what comes out is read
HOLDS = ("while", "conditional", "call")  # operations that only run others


class Instruction(NamedTuple):
    """A line of HLO text: `shape` and `operands` (names) as printed, `attributes` all that follows the operands."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


Computation = dict[str, Instruction]


def computations(text: str) -> tuple[dict[str, Computation], str]:
    """({name: {instruction's name: instruction}}, the entry's name) of a program's text."""
    found: dict[str, Computation] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if not line.startswith(" ") and (header := re.match(r"(ENTRY )?%?([\w.$-]+) ", line)):
            current = header[2]
            entry = current if header[1] else entry
        elif match := INSTRUCTION.match(line):
            root, name, shape, opcode, operands, rest = match.groups()
            # A parameter's only operand is its number.
            names = (operands,) if opcode == "parameter" else tuple(re.findall(r"%([\w.$-]+)", operands))
            found.setdefault(current, {})[name] = Instruction(name, shape, opcode, names, rest, bool(root))
    return found, entry


def collectives(text: str) -> dict[str, dict[str, int]]:
    """{kind: {count, bytes of operands}} of the collectives in a compiled program's HLO text.

    An asynchronous one counts where it starts. What stands in a loop's body counts once.
    """
    found: dict[str, dict[str, int]] = {}
    for computation in computations(text)[0].values():
        for one in computation.values():
            kind = one.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                entry = found.setdefault(kind, {"count": 0, "bytes": 0})
                entry["count"] += 1
                entry["bytes"] += sum(size_of(computation[operand].shape) for operand in one.operands)
    return found


def layers(text: str) -> dict[str, tuple[str, str]]:
    """{operation: (opcode, the path of what it was traced from: 'jit(step)/jvp(resnet20)/stem/conv' or '')}."""
    found = {}
    for computation in computations(text)[0].values():
        for one in computation.values():
            path = re.search(r'op_name="([^"]*)"', one.attributes)
            found[one.name] = one.opcode, path[1] if path else ""
    return found


def loops(text: str) -> bool:
    """Whether the program has a loop, whose body the compiler's FLOP count counts once."""
    return any(one.opcode == "while" for c in computations(text)[0].values() for one in c.values())


def traffic(text: str) -> int:
    """Bytes that a TPU's program moves between the chip and its main memory (HBM), each loop as often as it runs.

    The compiler's own count of bytes takes arrays that it keeps in the chip's fast memory, marked S(1) in their layout,
    as if they were in main memory too: several times as many where the batch on a chip is small. Of a table in which
    rows are looked up, those are counted. A loop of unknown length counts once.
    """
    found, entry = computations(text)
    return _traffic(found, entry)


def _traffic(found: dict[str, Computation], name: str) -> int:
    computation, total = found[name], 0
    for one in computation.values():
        if one.opcode in FREE or one.opcode.endswith("-start") and one.opcode.removesuffix("-start") not in COLLECTIVES:
            continue
        shapes = [computation[operand].shape for operand in one.operands]
        if one.opcode == "while":
            times = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.attributes)
            total += (int(times[1]) if times else 1) * _traffic(found, _called(one, "body"))
        elif one.opcode == "call":
            total += _traffic(found, _called(one, "to_apply"))
        elif one.opcode in ("copy-done", "slice-done"):  # begun by an operation whose shape holds its operands' too
            source = computation[computation[one.operands[0]].operands[0]].shape
            total += size_of(one.shape) * (_in_memory(one.shape) + _in_memory(source))
        elif one.opcode.endswith("-done"):
            continue
        elif one.opcode == "fusion":
            total += _of_fusion(found, one, shapes)
        elif one.opcode in LOOKS_UP:
            total += size_of(one.shape) * (_in_memory(one.shape) + _in_memory(shapes[0]))
        elif one.opcode == "dynamic-update-slice":
            total += size_of(shapes[1]) * (_in_memory(shapes[0]) + _in_memory(shapes[1]))
        else:
            total += sum(size_of(part) for shape in (one.shape, *shapes) for part in _parts(shape) if _in_memory(part))
    return total


def _of_fusion(found: dict[str, Computation], fusion: Instruction, shapes: list[str]) -> int:
    inner = found[_called(fusion, "calls")]
    parameters = {int(i.operands[0]): i.name for i in inner.values() if i.opcode == "parameter"}
    total = sum(_read(found, inner, parameters[k], size_of(s)) for k, s in enumerate(shapes) if _in_memory(s))
    root = next(i for i in inner.values() if i.root)
    parts = _parts(fusion.shape)
    written = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root] * len(parts)
    for part, one in zip(parts, written, strict=True):
        in_place = one.opcode == "dynamic-update-slice"
        total += size_of(inner[one.operands[1]].shape if in_place else part) * _in_memory(part)
    return total


def _read(found: dict[str, Computation], inner: Computation, name: str, whole: int) -> int:
    """Bytes of a fusion's operand that are read: of one whose rows are looked up or replaced, not the whole."""
    total = 0
    for user in inner.values():
        if name not in user.operands or user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue
        if user.opcode in LOOKS_UP and user.operands[0] == name:
            total += size_of(user.shape)
        elif user.opcode == "bitcast":
            total += _read(found, inner, user.name, whole)
        elif user.opcode == "fusion":
            deeper = found[_called(user, "calls")]
            position = str(user.operands.index(name))
            parameter = next(i.name for i in deeper.values() if i.opcode == "parameter" and i.operands == (position,))
            total += _read(found, deeper, parameter, whole)
        else:
            return whole
    return min(total, whole)


def _called(one: Instruction, what: str) -> str:
    return re.search(rf"\b{what}=%?([\w.$-]+)", one.attributes)[1]


def _parts(shape: str) -> list[str]:
    return re.findall(r"\w+\[[\d,<=]*\](?:\{[^}]*\})?", shape)


def _in_memory(shape: str) -> bool:
    return not re.search(r"S\([1-9]", shape)


def size_of(shape: str) -> int:
    """Bytes of an HLO shape, of all its parts if it is a tuple: f32[8,16]{1,0} has 512."""
    bits = 0
    for dtype, dimensions in re.findall(r"(\w+)\[([\d,<=]*)\]", shape):
        width = BITS.get(dtype) or (int(found[0]) if (found := re.findall(r"^[a-z]+(\d+)", dtype)) else 0)
        bits += width * math.prod(int(d.lstrip("<=")) for d in dimensions.split(",") if d)
    return -(-bits // 8)
