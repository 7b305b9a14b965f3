"""What the claims of `batch_norm` compare, computed from finished runs and from the trials."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cnn_jax.report.claims import Measured, describe_settings_of, measure_seeds, measure_values
from cnn_jax.tuning import choose_value, find_scores, name_trial

if TYPE_CHECKING:
    from cnn_jax.report import Results, Run
    from cnn_jax.report.results import Layer

PLAIN, NORMALIZED, LARGE = "without", "with", "without-large"
LABELS = {PLAIN: "without batch norm", NORMALIZED: "with batch norm"}
# Not the paper's: how much of the gain do better initial weights bring without batch norm?
ALL_LABELS = LABELS | {LARGE: "without batch norm, larger initial weights"}
SAME = "ResNet-110 in the paper; here an MLP of three layers of 100 sigmoid units"
CHOSEN = f"{SAME}; the best rate of each seed's comparison is chosen by the other seeds"


def measure_speed(results: "Results") -> Measured:
    """Measures the steps with batch norm to the last error without it, as a share of its steps."""

    def compute(runs: "dict[str, Run]") -> float | None:
        goal = runs[PLAIN].final_error
        if goal is None or not runs[NORMALIZED].finished:
            return None
        reached = [
            step
            for step, line in runs[NORMALIZED].evaluations.items()
            if line.error is not None and line.error <= goal
        ]
        last = max(runs[PLAIN].evaluations)
        return min(reached, default=2 * last) / last

    return measure_seeds(results, (PLAIN, NORMALIZED), compute)


def find_inputs(run: "Run") -> "dict[int, Layer]":
    """Returns what goes into the last hidden layer's sigmoids, by step."""
    found = {}
    for step, layers in run.layers.items():
        last = max(i for i, layer in enumerate(layers) if layer.saturated is not None)
        found[step] = layers[last - 1]
    return found


def _measure_path(run: "Run") -> float | None:
    """Returns how far units' medians have moved, in units of their 15-to-85% spread, on average."""
    layers = list(find_inputs(run).values())
    if len(layers) < 2 or not run.finished:
        return None
    paths = []
    for unit in range(len(layers[0].units)):
        medians = [layer.units[unit][1] for layer in layers]
        spreads = [layer.units[unit][2] - layer.units[unit][0] for layer in layers]
        moved = sum(abs(b - a) for a, b in itertools.pairwise(medians))
        paths.append(moved / statistics.mean(spreads))
    return statistics.mean(paths)


def measure_stability(results: "Results") -> Measured:
    """Measures the path of the sigmoids' inputs with batch norm, as a share of that without it."""

    def compute(runs: "dict[str, Run]") -> float | None:
        plain, normalized = _measure_path(runs[PLAIN]), _measure_path(runs[NORMALIZED])
        return normalized / plain if plain and normalized is not None else None

    return measure_seeds(results, (PLAIN, NORMALIZED), compute)


Trial = tuple[str, float | str]  # A run, and a rate or the run whose best rate it is.


def find_trials(results: "Results", trial: Trial) -> "Sequence[Run]":
    """Returns the seeds of a trial.

    If the trial's rate is the best rate of a run, each seed has the rate that the other seeds
    chose. A rate that a seed has chosen itself would look better than it is.

    Args:
      results: The study's results.
      trial: The run and its rate.

    Returns:
      The seeds; empty: a seed has not ended.
    """
    name, rate = trial
    tuning, trials = results.tuning, results.trials

    def find_ended(value: float) -> "Sequence[Run]":
        own = trials.get(name_trial(tuning, name, value), ()) if tuning else ()
        return own if all(run.ended for run in own) else ()

    if tuning is None:
        return ()
    if not isinstance(rate, str):
        return find_ended(rate)
    chosen = []
    for k in range(tuning.seeds):
        best = choose_value(find_scores(tuning, rate, trials, left_out=k))
        own = find_ended(best) if best else ()
        if len(own) <= k:
            return ()
        chosen.append(own[k])
    return chosen


def find_validation_error(run: "Run") -> float:
    """Returns a trial's validation error in %, 90 if it diverged."""
    return 90.0 if run.final_error is None else 100 * run.final_error


def compare_trials(first: Trial, second: Trial) -> "Callable[[Results], Measured]":
    """Returns the check of the first trial's validation error minus the second's, in points."""

    def check(results: "Results") -> Measured:
        ours, others = (find_trials(results, trial) for trial in (first, second))
        pairs = zip(ours, others, strict=False)
        chosen = any(isinstance(rate, str) for _, rate in (first, second))
        measured = measure_values(
            [find_validation_error(a) - find_validation_error(b) for a, b in pairs],
            why=CHOSEN if chosen else SAME,
        )
        setting = describe_settings_of(results, {first[0]: ours} | {second[0]: others})
        return replace(measured, runs=(first[0], second[0]), setting=setting)

    return check
