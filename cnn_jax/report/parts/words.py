"""Formats errors, differences, intervals and states of runs for reports."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence

from cnn_jax.report.results import Run

DASH = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"


def is_percent(metric: str) -> bool:
    """Returns whether a metric is a share of images, which is shown in %."""
    return bool(re.fullmatch(r"top\d+_error", metric))


def name_metric(metric: str) -> str:
    """Returns a metric's name for tables: 'top-1 error (%)', 'reconstruction error'."""
    top = re.fullmatch(r"top(\d+)_error", metric)
    return f"top-{top[1]} error (%)" if top else metric.replace("_", " ")


def format_error(metric: str, value: float) -> str:
    """Formats an error: '8.75' if it is in %, else '0.1234'.

    Args:
      metric: Name of the error.
      value: The error; a share of images is from 0 to 1.
    """
    return f"{100 * value:.2f}" if is_percent(metric) else f"{value:.4g}"


def format_points(points: float) -> str:
    """Formats a difference with its sign: '+1.25', '−0.75'."""
    return format_quantity(points, "points")


def format_unit(unit: str) -> str:
    """Returns the name of a claim's unit for tables: 'percentage points', '%', 'ratio'."""
    return "percentage points" if unit == "points" else unit or DASH


def format_span(numbers: Sequence[int]) -> str:
    """Formats the range of numbers: '120 to 1,240', or '120' if they are equal."""
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(f"{end:,}" for end in ends)


def format_mean(metric: str, values: Sequence[float]) -> str:
    """Formats mean and sample standard deviation: '8.75 ± 0.16'.

    Args:
      metric: Name of the error.
      values: One error for each seed; empty: a dash is returned.
    """
    if not values:
        return DASH
    mean = format_error(metric, statistics.mean(values))
    return f"{mean} ± {format_error(metric, statistics.stdev(values))}" if len(values) > 1 else mean


def format_quantity(value: float, unit: str) -> str:
    """Formats a claim's value: '+1.25', '6.97', '204,800', '−0.0056'.

    Args:
      value: The value.
      unit: The claim's unit. Values in points and in % have two decimals, and those in points,
        which are differences, a sign.
    """
    if unit not in ("points", "%"):
        size = f"{abs(value):,.0f}" if value == round(value) else f"{abs(value):,.4g}"
        return f"{MINUS if value < 0 else ''}{size}"
    sign = "+" if unit == "points" else ""
    return f"{round(value, 2) + 0.0:{sign}.2f}".replace("-", MINUS)


def format_range(interval: Sequence[float] | None, unit: str) -> str:
    """Formats an interval: '[−0.10; +1.25]'.

    Args:
      interval: The ends; None: unknown.
      unit: The claim's unit.
    """
    if interval is None:
        return DASH
    low, high = (format_quantity(end, unit) for end in interval)
    return f"[{low}; {high}]"


def describe_range(expected: tuple[float, float], unit: str) -> str:
    """Describes the range of a claim: 'below 0', 'above 0.5', '204,800', '0.667 to 1.5'."""
    low, high = map(_format_end, expected)
    if expected[0] == expected[1]:
        return low
    if expected[0] == float("-inf"):
        return f"below {high}"
    if expected[1] == float("inf"):
        return f"above {low}"
    return f"{low} to {high}"


def _format_end(end: float) -> str:
    """Formats an end of a range: whole or with two decimals if it is so, else with 3 digits."""
    exact = math.isclose(round(end, 2), end) if math.isfinite(end) else True
    return f"{end:,.{10 if exact else 3}g}".replace("-", MINUS)


def join_distinct(values: Iterable[str]) -> str:
    """Joins the different texts that are not empty by semicolons."""
    return "; ".join(value for value in dict.fromkeys(values) if value)


def describe_states(runs: Sequence[Run], several: bool | None = None) -> str:
    """Returns 'finished', or 'seeds 0, 1: finished; seed 2: not started' for several seeds.

    Args:
      runs: The seeds of a run.
      several: Whether to name the seeds; None: if there are several.
    """
    if not (len(runs) > 1 if several is None else several):
        return runs[0].state
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.state, []).append(run.seed)
    return "; ".join(
        f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {state}"
        for state, own in seeds.items()
    )


def explain_verdict(why: str, seeds: int, setting: str) -> str:
    """Returns the text below a verdict: its reason, the number of seeds, the setting.

    Args:
      why: The reason.
      seeds: Number of seeds.
      setting: How the runs differ from the paper's.
    """
    number = f"{seeds} seed{'s' * (seeds != 1)}" if seeds and "seed" not in why else ""
    words = "; ".join(text for text in (why, number, setting) if text)
    return f"({words})" if words else ""
