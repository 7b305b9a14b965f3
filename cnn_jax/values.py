"""Values of fields and options: types, bounds, choices, and their parsing from text.

The annotation of a field gives its type: `int`, `float`, `bool`, `str`, `Literal[...]`, `tuple[T,
...]` or `T | None`, where `Annotated[T, Bound(...), "meaning"]` adds bounds and a description. The
fields of `cnn_jax.config` and the options of models, optimizers, schedules, data sets and
evaluation protocols all declare their values so. Every value, from a flag, a file or Python, passes
through `convert`.
"""

import math
import os
import types
import typing
from typing import Annotated, Any, Literal, NamedTuple

from cnn_jax.errors import UserError


class Bound(NamedTuple):
    """The range of a number: `least` and `most` belong to it, `above` and `below` do not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None


MAX_INT32 = 2**31 - 1
MAX_FLOAT = 1e30  # Larger numbers overflow float32 in the arithmetic around them.

Count = Annotated[int, Bound(1, MAX_INT32)]
Natural = Annotated[int, Bound(0, MAX_INT32)]
Positive = Annotated[float, Bound(above=0, most=MAX_FLOAT)]
NonNegative = Annotated[float, Bound(0, MAX_FLOAT)]
Fraction = Annotated[float, Bound(0, 1)]


def parse(text: str, wanted: Any) -> Any:
    """Reads text, such as the value of --set, as a value of the type.

    Raises:
      ValueError: If the text spells no value of the type. Bounds are not checked.
    """
    wanted = _strip_bounds(wanted)
    options = typing.get_args(wanted)
    if _is_optional(wanted):
        return None if text.lower() == "none" else parse(text, options[0])
    if typing.get_origin(wanted) is tuple:
        if text.startswith("(") != text.endswith(")"):
            raise ValueError(text)
        parts = text.removeprefix("(").removesuffix(")").split(",")
        return tuple(parse(part.strip(), options[0]) for part in parts if part.strip())
    if typing.get_origin(wanted) is Literal:
        return text
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return wanted(text)


def convert(path: str, value: Any, wanted: Any) -> Any:
    """Converts a value to a type: a list to a tuple, an integer to a float, NumPy's to Python's.

    Args:
      path: The field's name, with which messages begin.
      value: From Python, JSON or `parse`.
      wanted: The type.

    Raises:
      UserError: If the value is of another type, outside the bounds, or none of the choices.
    """
    value = to_plain(value)
    bounds = _find_bounds(wanted)
    bare = _strip_bounds(wanted)
    options = typing.get_args(bare)
    if _is_optional(bare):
        return None if value is None else convert(path, value, options[0])
    if typing.get_origin(bare) is tuple:
        if not isinstance(value, tuple):
            raise _make_type_error(path, value, bare)
        return tuple(convert(path, item, options[0]) for item in value)
    if typing.get_origin(bare) is Literal:
        if not any(type(value) is type(option) and value == option for option in options):
            raise UserError(f"{path}={value!r}: choose {' or '.join(map(str, options))}")
        return value
    if bare is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not bare:
        raise _make_type_error(path, value, bare)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value}: must be a finite number")
    for bound in bounds:
        _check_bound(path, value, bound)
    return value


def to_plain(value: Any) -> Any:
    """Returns numbers and arrays of NumPy and JAX as Python's, lists as tuples, paths as text.

    Example:
      >>> import numpy as np
      >>> to_plain([np.int64(1), np.array([0.5, 2])])
      (1, (0.5, 2.0))
    """
    if hasattr(value, "tolist"):  # NumPy, which is slow to import, and JAX.
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return tuple(map(to_plain, value)) if isinstance(value, list | tuple) else value


def describe(wanted: Any) -> str:
    """Returns the type in a user's words, such as 'a number' or 'comma-separated integers'."""
    bare = _strip_bounds(wanted)
    options = typing.get_args(bare)
    if _is_optional(bare):
        return f"{describe(options[0])} or none"
    if typing.get_origin(bare) is tuple:
        several = {"an integer": "integers", "a number": "numbers", "text": "names"}
        one = describe(options[0])
        return f"comma-separated {several[one]}" if one in several else f"{one}, comma-separated"
    if typing.get_origin(bare) is Literal:
        return " or ".join(str(option) or "empty" for option in options)
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}[bare]


def describe_bounds(wanted: Any) -> str:
    """Returns the bounds in words, such as 'at least 1, less than 3', or an empty text."""
    inner = _strip_bounds(wanted)
    while _is_optional(inner) or typing.get_origin(inner) is tuple:
        wanted = typing.get_args(inner)[0]
        inner = _strip_bounds(wanted)
    words = []
    for bound in _find_bounds(wanted):
        pairs = zip(("at least", "at most", "more than", "less than"), bound, strict=True)
        words += [
            f"{what} {number:,.10g}"
            for what, number in pairs
            if number not in (None, MAX_INT32, MAX_FLOAT)
        ]
    return ", ".join(words)


def describe_meaning(wanted: Any) -> str:
    """Returns the description in an annotation, or an empty text."""
    if typing.get_origin(wanted) is not Annotated:
        return ""
    return " ".join(item for item in typing.get_args(wanted)[1:] if isinstance(item, str))


def format_value(value: Any) -> str:
    """Returns a value as --set takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(format_value, value)) if isinstance(value, tuple) else str(value)


def _strip_bounds(wanted: Any) -> Any:
    return typing.get_args(wanted)[0] if typing.get_origin(wanted) is Annotated else wanted


def _find_bounds(wanted: Any) -> list[Bound]:
    if typing.get_origin(wanted) is not Annotated:
        return []
    return [item for item in typing.get_args(wanted)[1:] if isinstance(item, Bound)]


def _is_optional(wanted: Any) -> bool:
    return isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union


def _make_type_error(path: str, value: Any, wanted: Any) -> UserError:
    return UserError(f"{path}={_format_any(value)}: must be {describe(wanted)}, not {value!r}")


def _format_any(value: Any) -> str:
    """Returns any value, also one of a type that no field has, on one line."""
    return (
        format_value(value) if isinstance(value, bool | int | float | str | tuple) else repr(value)
    )


def _check_bound(path: str, value: float, bound: Bound) -> None:
    if bound.least is not None and value < bound.least:
        raise UserError(f"{path}={value}: must be at least {bound.least:g}")
    if bound.most is not None and value > bound.most:
        limit = int(bound.most) if isinstance(value, int) else bound.most
        raise UserError(f"{path}={value}: must be at most {limit}")
    if bound.above is not None and value <= bound.above:
        raise UserError(f"{path}={value}: must be more than {bound.above:g}")
    if bound.below is not None and value >= bound.below:
        raise UserError(f"{path}={value}: must be less than {bound.below:g}")
