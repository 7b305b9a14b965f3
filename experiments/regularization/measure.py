"""What finished runs of `regularization` measure, the choice of a strength, and the comparisons."""

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnn_jax.config import Choice, name_protocol
from cnn_jax.report.claims import Measured, measure_seeds

from .runs import FAMILIES, NONE, TEST, TRAIN

if TYPE_CHECKING:
    from cnn_jax.report import Results, Run
    from cnn_jax.report.results import Layer


def find_test_error(run: "Run") -> float | None:
    """Returns the top-1 error on the test images, from 0 to 1; None: not evaluated."""
    found = run.protocols.get(name_protocol(TEST))
    return found.errors.get("top1_error") if found else None


def find_training_error(run: "Run") -> float | None:
    """Returns the finished model's top-1 error on the training images; None: not evaluated."""
    found = run.protocols.get(name_protocol(TRAIN))
    return found.errors.get("top1_error") if found else None


def find_loss(run: "Run", split: Choice) -> float | None:
    """Returns the loss by a protocol, TRAIN or TEST, in nats; None: not evaluated."""
    found = run.protocols.get(name_protocol(split))
    return found.loss if found else None


def find_gap(run: "Run") -> float | None:
    """Returns the test loss minus the training loss, in nats."""
    test, training = find_loss(run, TEST), find_loss(run, TRAIN)
    return None if test is None or training is None else test - training


def find_kernel(run: "Run") -> "Layer | None":
    """Returns the first layer with a kernel, at the last step that was measured."""
    last = run.layers[max(run.layers)] if run.layers else ()
    return next((layer for layer in last if layer.kernel), None)


def find_zeros(run: "Run") -> float | None:
    """Returns the share of the first layer's weights that are 0; None: not measured."""
    layer = find_kernel(run)
    return layer.zeros if layer else None


def choose_run(results: "Results", family: str) -> str | None:
    """Returns the name of the run of a family whose mean validation error is the lowest.

    Args:
      results: The study's results.
      family: A key of FAMILIES.

    Returns:
      The name, of equal runs the first; None: no run has finished.
    """
    means = {}
    for strength in FAMILIES[family].strengths:
        name = f"{family}-{strength:g}"
        errors = [e for run in results.runs.get(name, ()) if (e := run.final_error) is not None]
        if errors:
            means[name] = statistics.mean(errors)
    return min(means, key=lambda name: means[name]) if means else None


def compare_with_unregularized(
    family: str, find: "Callable[[Run], float | None]", scale: float = 1
) -> "Callable[[Results], Measured]":
    """Returns the check of a claim: a value of a family's chosen run minus the unregularized one's.

    Args:
      family: A key of FAMILIES.
      find: Returns the value of a run; None: it is not known.
      scale: Factor by which the difference is multiplied.
    """

    def check(results: "Results") -> Measured:
        chosen = choose_run(results, family)
        if chosen is None:
            return Measured(None, why=f"no run of {family} is finished")

        def compute(runs: "dict[str, Run]") -> float | None:
            ours, none = find(runs[chosen]), find(runs[NONE])
            return None if ours is None or none is None else scale * (ours - none)

        return measure_seeds(results, (chosen, NONE), compute)

    return check
