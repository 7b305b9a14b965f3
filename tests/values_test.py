"""What a value may be: how text becomes one, its type and its bounds."""

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from cnn_jax import values
from cnn_jax.errors import UserError
from cnn_jax.values import Bound

Steps = tuple[Annotated[int, Bound(1, 100)], ...]


@pytest.mark.parametrize(
    "text, wanted, value",
    [
        ("7", int, 7),
        ("1e-4", float, 1e-4),
        ("TRUE", bool, True),
        ("a b", str, "a b"),
        ("B", Literal["A", "B"], "B"),
        ("none", int | None, None),
        ("3", int | None, 3),
        ("10, 20", Steps, (10, 20)),
        ("(10,20)", Steps, (10, 20)),
        ("", Steps, ()),
    ],
)
def test_text_becomes_a_value(text, wanted, value):
    found = values.parse(text, wanted)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("1.5", int),
        ("x", float),
        ("yes", bool),
        ("(1,2", Steps),
        ("1,2)", Steps),
        ("1,x", Steps),
        ("none", int),
    ],
)
def test_text_without_a_value_raises_value_error(text, wanted):
    with pytest.raises(ValueError):
        values.parse(text, wanted)


@pytest.mark.parametrize(
    "value, wanted, words",
    [
        (True, int, "must be an integer"),  # As False is 0 in Python, and a mistake here.
        (1, bool, "must be true or false"),
        (1.0, int, "must be an integer"),
        ("1", float, "must be a number"),
        (None, int, "must be an integer"),
        (float("nan"), float, "must be a finite number"),
        (float("inf"), float, "must be a finite number"),
        ("C", Literal["A", "B"], "choose A or B"),
        (["A"], Literal["A", "B"], "choose A or B"),
        ({}, Literal["A", "B"], "choose A or B"),
        (5, Steps, "must be comma-separated integers"),
        ([0, 5], Steps, "=0: must be at least 1"),
        ([5, 101], Steps, "=101: must be at most 100"),
        (1.0, Annotated[float, Bound(0, below=1)], "must be less than 1"),
        (0.0, values.Positive, "must be more than 0"),
        (1e300, values.Positive, "must be at most 1e"),
        (2**31, values.Count, "must be at most 2147483647"),
        (10**400, float, "must be a finite number"),
    ],
)
def test_an_invalid_value_is_refused(value, wanted, words):
    with pytest.raises(UserError, match=f"^x.*{words}"):
        values.convert("x", value, wanted)


def test_bounds_are_inclusive_or_exclusive_as_stated():
    share = Annotated[float, Bound(0, below=1)]
    assert values.convert("x", 0, share) == 0.0 and type(values.convert("x", 0, share)) is float
    assert values.convert("x", 0.999, share) == 0.999
    assert values.convert("x", [1, 100], Steps) == (1, 100)


def test_types_are_described_in_plain_words():
    assert values.describe(int | None) == "an integer or none"
    assert values.describe(Steps) == "comma-separated integers"
    assert values.describe_bounds(Steps) == "at least 1, at most 100"
    assert values.describe_bounds(values.Fraction) == "at least 0, at most 1"
    assert values.describe_meaning(Annotated[int, Bound(1), "Steps"]) == "Steps"


@pytest.mark.parametrize(
    "value, wanted, plain",
    [
        (np.int64(3), int, 3),
        (np.logspace(-1, 0, 2)[0], float, 0.1),
        (np.float32(0.5), float, 0.5),
        (np.bool_(True), bool, True),
        (np.array([1, 2]), Steps, (1, 2)),
        ([np.int32(1)], Steps, (1,)),
        (Path("a") / "b", str, "a/b"),
    ],
)
def test_numbers_of_numpy_and_paths_become_plain_values(value, wanted, plain):
    found = values.convert("x", value, wanted)
    assert found == plain and type(found) is type(plain)
    json.dumps(found)


def test_a_choice_compares_with_values_of_any_type():
    for value in (np.array([1, 2]), np.dtype("float32"), 1, True):
        with pytest.raises(UserError, match=r"x=.*: choose float32"):
            values.convert("x", value, Literal["float32"])
