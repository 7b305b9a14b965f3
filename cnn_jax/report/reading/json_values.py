"""Checks the types of values that were read from JSON."""

import math
from typing import Any


def is_list_of(value: Any, kind: type) -> bool:
    """Returns whether a value is a list of items of one type."""
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def is_count(value: Any) -> bool:
    """Returns whether a value is an integer from 0 to 2**63 - 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number whose square is finite too."""
    kind = isinstance(value, int | float) and not isinstance(value, bool)
    return kind and abs(value) < 1e300 and math.isfinite(value)
