"""Which Boolean functions does a perceptron learn, and what do two layers add?

Nothing here takes more than seconds.

Paper     Rosenblatt 1958 (the perceptron and its rule); Novikoff 1962 (at most (R / margin)^2
          mistakes); Minsky, Papert 1969 (XOR is beyond a perceptron, two layers represent it).
Question  Does the perceptron rule learn AND, OR and NOT, and how many updates does it take? Does it
          ever learn XOR? Do two layers represent it, and learn it? Is there a two-layer model for
          any formula? Which change of inputs makes two circles separable?
Command   python launch.py --experiment=boolean_functions
Results   docs/results/boolean_functions.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnn_jax.errors import UserError
from cnn_jax.report.claims import Claim, Measured
from cnn_jax.study import Study

from .measure import BEYOND, HIDDEN, MAX_EPOCHS, RATE, STEPS, measure_all
from .page import compose, find_rows

if TYPE_CHECKING:
    from cnn_jax.report import Results

COST = {
    "laptop": "seconds: 100 orders of each gate's examples, 100 sets of points, 20 seeds of MLPs",
    "smoke": "seconds: 5 orders, 5 sets of points and 5 seeds, for tests",
}


def study(preset: str) -> Study:
    """Returns the study; the smoke preset has fewer repetitions."""
    if preset not in (*COST, "paper"):  # The paper's is the laptop's.
        raise UserError(f"preset={preset}: boolean_functions has only laptop and smoke")
    return Study(
        name="boolean_functions",
        title="Boolean functions: one layer and two",
        paper="Rosenblatt 1958; Novikoff 1962; Minsky, Papert 1969",
        paper_data="",
        preset=preset,
        runs={},
        measure=functools.partial(measure_all, *((100, 20) if preset != "smoke" else (5, 5))),
        claims=_make_claims(),
        report=compose,
        notes=(
            "The perceptron starts at zero weights, sees the examples in a new order each pass, and"
            f" is given up after {MAX_EPOCHS:,} passes. Its bias is the weight of an input that is"
            " always 1, which counts in the norms of Novikoff's bound.",
            "Whether a line exists is decided by a linear program, apart from any learning.",
            f"The MLPs learn XOR by {STEPS} steps of gradient descent on all four examples, tanh,"
            f" rate {RATE} with momentum 0.9.",
        ),
    )


def _make_check(value: Callable[["Results"], float]) -> "Callable[[Results], Measured]":
    def check(results: "Results") -> Measured:
        if not results.study.measured:
            return Measured(None, why="not measured yet")
        return Measured(value(results), exact=True)

    return check


def _make_claims() -> tuple[Claim, ...]:
    def list_gates(results: "Results") -> list[dict[str, Any]]:
        return [row for row in find_rows(results, "gate") if row["gate"] != BEYOND]

    def find_xor(results: "Results") -> dict[str, Any]:
        return next(row for row in find_rows(results, "gate") if row["gate"] == BEYOND)

    def count_unlearned(results: "Results") -> float:
        return sum(row["orders"] - row["learned"] for row in list_gates(results))

    def find_largest_share(results: "Results") -> float:
        shares = [row["most_updates"] / row["bound"] for row in list_gates(results)]
        return max(shares + [row["updates"] / row["bound"] for row in find_rows(results, "points")])

    def count_wrong_rows(results: "Results") -> float:
        return sum(row["wrong"] for row in find_rows(results, "formula"))

    def compute_learned_share(results: "Results") -> float:
        widest = find_rows(results, "mlp")[-1]
        return 100 * widest["learned"] / widest["seeds"]

    def compare_circles(results: "Results") -> float:
        (circles,) = find_rows(results, "circles")
        return circles["polar"]["separable"] - circles["cartesian"]["separable"]

    return (
        Claim(
            "The perceptron rule learns AND, OR, NOT, NAND and NOR: orders of the examples with"
            " which it does not",
            _make_check(count_unlearned),
            expected=(0, 0),
            source="Rosenblatt 1958; Novikoff 1962",
            unit="orders",
        ),
        Claim(
            "Its updates stay within Novikoff's bound: the largest share of the bound, over all"
            " gates, orders and sets of points",
            _make_check(find_largest_share),
            expected=(0, 1),
            source="Novikoff 1962",
            unit="share",
        ),
        Claim(
            "A perceptron never learns XOR: orders with which it does",
            _make_check(lambda results: find_xor(results)["learned"]),
            expected=(0, 0),
            source="Minsky, Papert 1969",
            unit="orders",
        ),
        Claim(
            "No line represents XOR: whether the linear program finds one (1) or not (0)",
            _make_check(lambda results: find_xor(results)["separable"]),
            expected=(0, 0),
            source="Minsky, Papert 1969",
            unit="lines",
        ),
        Claim(
            "Two layers represent XOR and every other formula: wrong rows of the truth tables",
            _make_check(count_wrong_rows),
            expected=(0, 0),
            source="Minsky, Papert 1969",
            unit="rows",
        ),
        Claim(
            f"Two layers learn XOR: initial weights from which an MLP of {HIDDEN[-1]} hidden units"
            " does, in %",
            _make_check(compute_learned_share),
            expected=(95, 100),
            source="the lectures",
            unit="%",
        ),
        Claim(
            "Two circles become separable in polar coordinates, and are not in Cartesian ones"
            " (1: so it is)",
            _make_check(compare_circles),
            expected=(1, 1),
            source="the lectures",
            unit="",
        ),
    )
