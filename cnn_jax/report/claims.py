"""Claims: statements of a paper, checked against a study's results.

A claim consists of a value that we measure and the range in which it must lie. Most values are
differences of errors:
`Claim("plain models degrade with depth", subtract(deep, shallow), expected=ABOVE_ZERO)`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnn_jax.report.intervals import compute_bootstrap_interval, compute_student_interval

if TYPE_CHECKING:
    import numpy as np

    from cnn_jax.report.results import Results, Run

Range = tuple[float, float]

BELOW_ZERO: Range = (-math.inf, 0.0)
ABOVE_ZERO: Range = (0.0, math.inf)


@dataclass(frozen=True)
class Score:
    """An error that a claim is about.

    Attributes:
      run: Name of the run.
      source: Where the error is read: training, the last training error that was logged; test, the
        last evaluation during training; or the name of an evaluation protocol.
      metric: Name of the error, such as top1_error.
    """

    run: str
    source: str = "test"
    metric: str = "top1_error"


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of errors of the same seed, in percentage points.

    Attributes:
      terms: Pairs of a weight and an error.
    """

    terms: tuple[tuple[float, Score], ...]


@dataclass(frozen=True)
class Measured:
    """Our value for a claim.

    Attributes:
      value: The value in the claim's unit; None: not measured yet.
      over_images: 95% interval over test images; None: unknown.
      over_seeds: 95% interval over seeds; None: unknown.
      seeds: Number of seeds.
      exact: Whether the value is a count, which needs no interval.
      same_weights: Whether all terms of the value are evaluations of the same trained model.
      runs: Names of the runs from which the value is computed.
      setting: How these runs differ from the paper's.
      why: Why there is no value, or a remark about the value.
    """

    value: float | None
    over_images: Range | None = None
    over_seeds: Range | None = None
    seeds: int = 0
    exact: bool = False
    same_weights: bool = False
    runs: tuple[str, ...] = ()
    setting: str = ""
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, and how to check it.

    Attributes:
      statement: The claim in words.
      check: How our value is computed: a contrast of errors, or a function of the results.
      expected: The smallest and largest value that agree with the claim.
      paper: The paper's value; None: it prints none.
      source: Where the paper states the claim.
      unit: Unit of the values: points (percentage points), or another one. A contrast that is a
        single error is in %.
      is_figure: Whether the claim states a value that depends on the paper's data and recipe.
    """

    statement: str
    check: "Contrast | Callable[[Results], Measured]"
    expected: Range
    paper: float | None = None
    source: str = ""
    unit: str = "points"
    is_figure: bool = False


def score(score: Score) -> Contrast:
    """Returns the contrast that consists of a single error."""
    return Contrast(((1.0, score),))


def subtract(first: Score, second: Score) -> Contrast:
    """Returns the contrast that is the first error minus the second."""
    return Contrast(((1.0, first), (-1.0, second)))


def measure_contrast(results: "Results", contrast: Contrast) -> Measured:
    """Returns the value of a contrast in percentage points, and its intervals.

    Args:
      results: The study's results.
      contrast: The contrast.
    """
    names = tuple(dict.fromkeys(term.run for _, term in contrast.terms))
    runs = {name: {run.seed: run for run in results.runs.get(name, ())} for name in names}
    absent = [name for name in names if not runs[name]]
    if absent:
        return Measured(None, why=f"this study has no run {absent[0]}", runs=names)
    setting = describe_settings(results, names)
    ended = [run for own in runs.values() for run in own.values() if run.failed_at is not None]
    if ended:
        return Measured(None, runs=names, setting=setting, why=_name_end(ended[0]))
    shared = sorted(set.intersection(*(set(seeds) for seeds in runs.values())))
    values = {}
    for seed in shared:
        parts = [(w, find_error(runs[term.run][seed], term)) for w, term in contrast.terms]
        if all(part is not None for _, part in parts):
            values[seed] = 100 * sum(w * part for w, part in parts if part is not None)
    if not values:
        return Measured(None, runs=names, setting=setting, why=_explain_absence(runs, contrast))
    answers = [
        difference
        for seed in values
        if (difference := _subtract_answers(runs, seed, contrast)) is not None
    ]
    return Measured(
        value=sum(values.values()) / len(values),
        over_images=compute_bootstrap_interval(answers) if len(answers) == len(values) else None,
        over_seeds=compute_student_interval(list(values.values())),
        seeds=len(values),
        same_weights=len(names) == 1 and len(contrast.terms) > 1,
        runs=names,
        setting=setting,
    )


def measure_seeds(
    results: "Results", names: Sequence[str], compute: "Callable[[dict[str, Run]], float | None]"
) -> Measured:
    """Returns the mean over seeds of a computed value, and its interval.

    If a run has diverged and `compute` returns None for its seed, there is no value, because a mean
    over the other seeds would hide the divergence.

    Args:
      results: The study's results.
      names: Names of the runs from which the value is computed.
      compute: Returns the value of a seed from the runs of this seed by name; None: not known.
    """
    runs = {name: {run.seed: run for run in results.runs.get(name, ())} for name in names}
    shared = sorted(set.intersection(*(set(seeds) for seeds in runs.values())))
    setting = describe_settings(results, names)
    values = []
    for seed in shared:
        own = {name: seeds[seed] for name, seeds in runs.items()}
        value = compute(own)
        if value is not None:
            values.append(value)
        elif ended := [run for run in own.values() if run.failed_at is not None]:
            return Measured(None, runs=tuple(names), setting=setting, why=_name_end(ended[0]))
    return dataclasses.replace(measure_values(values), runs=tuple(names), setting=setting)


def measure_values(values: Sequence[float], why: str = "") -> Measured:
    """Returns the mean of values and its interval over seeds.

    Args:
      values: One value for each seed; empty: not measured yet.
      why: A remark for the reader.
    """
    if not values:
        return Measured(None, why="the runs are not finished")
    mean = sum(values) / len(values)
    return Measured(mean, over_seeds=compute_student_interval(values), seeds=len(values), why=why)


def find_error(run: "Run", wanted: Score) -> float | None:
    """Returns an error of a run, from 0 to 1; None if the run does not have it yet.

    Args:
      run: A seed of a run.
      wanted: Names the error.
    """
    if wanted.source in ("training", "test"):
        if run.error_name != wanted.metric:
            return None
        return run.final_training_error if wanted.source == "training" else run.final_error
    evaluation = run.protocols.get(wanted.source)
    return evaluation.errors.get(wanted.metric) if evaluation else None


def _name_end(run: "Run") -> str:
    return f"{run.name} seed {run.seed} {run.state}"


def _explain_absence(runs: Mapping[str, Mapping[int, "Run"]], contrast: Contrast) -> str:
    for _, term in contrast.terms:
        if all(find_error(run, term) is None for run in runs[term.run].values()):
            finished = any(run.finished for run in runs[term.run].values())
            what = f"has no {term.source} error" if finished else "is not finished"
            return f"{term.run} {what}"
    return "no seed has finished all of these runs"


def describe_settings(results: "Results", names: Sequence[str]) -> str:
    """Describes how runs differ from the paper's: 'data digits, 300 of 64,000 steps'.

    Args:
      results: The study's results.
      names: Names of the runs.
    """
    return describe_settings_of(results, {name: results.runs.get(name, ()) for name in names})


def describe_settings_of(results: "Results", runs: Mapping[str, Sequence["Run"]]) -> str:
    """Describes how runs differ from the paper's, as `describe_settings`.

    Args:
      results: The study's results.
      runs: {name of a run: its seeds, or trials of its tuning}.
    """
    from cnn_jax.report.rows import describe_setting, find_other_settings

    words: dict[str, None] = {}
    for name, own in runs.items():
        paper = results.study.paper_runs.get(name)
        for run in own:
            if paper and run.experiment:
                words |= dict.fromkeys(find_other_settings(describe_setting(run.experiment), paper))
    return ", ".join(words)


def _subtract_answers(
    runs: Mapping[str, Mapping[int, "Run"]], seed: int, contrast: Contrast
) -> "np.ndarray | None":
    """Returns the contrast for each test image [N], where a wrong answer is 1 and a right one 0."""
    import numpy as np

    total = None
    for weight, term in contrast.terms:
        evaluation = runs[term.run][seed].protocols.get(term.source)
        if evaluation is None or not evaluation.wrong or term.metric != "top1_error":
            return None
        wrong = np.frombuffer(evaluation.wrong.encode(), np.uint8).astype(np.float64) - ord("0")
        if total is not None and len(total) != len(wrong):
            return None
        total = weight * wrong if total is None else total + weight * wrong
    return total
