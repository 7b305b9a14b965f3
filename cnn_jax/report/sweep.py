"""Composes the report of a sweep: a table of the grid, and the error against each swept field."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from cnn_jax.config import flatten
from cnn_jax.report import figures, parts
from cnn_jax.report.elements import Figure, Page, Table
from cnn_jax.report.figures import LineChart, Series
from cnn_jax.report.results import Results, Run
from cnn_jax.text import escape_unprintable
from cnn_jax.values import format_value

# The axis is logarithmic if the largest value is at least this many times the smallest.
DECADES = 20
CAPTION = (
    "Error at the last evaluation against each swept field, with a line for each combination of the"
    " other fields. Lines are means over seeds; bands span the smallest and largest. Axes of values"
    " over several orders of magnitude are logarithmic."
)


class GridPoint(NamedTuple):
    """A run of the grid.

    Attributes:
      name: Name of the run.
      base: Name of the study's run that this run varies.
      values: Values of the swept fields, in the order of the fields; None: the run was not started.
      runs: The seeds of the run.
    """

    name: str
    base: str
    values: tuple[Any, ...] | None
    runs: tuple[Run, ...]


def make_page(results: Results) -> Page:
    """Returns the page of a sweep."""
    points = find_points(results)
    return parts.page(
        results,
        make_table(results, points),
        make_figure(results, points),
        parts.notes(results, ()),
        parts.settings(results),
    )


def find_points(results: Results) -> list[GridPoint]:
    """Returns the runs of the grid, in the order of training."""
    points = []
    for name, runs in results.runs.items():
        experiment = next((run.experiment for run in runs if run.experiment), None)
        values = None
        if experiment:
            flat = flatten(experiment)
            values = tuple(flat.get(field) for field in results.study.swept)
        points.append(GridPoint(name, results.study.swept_from.get(name, ""), values, runs))
    return points


def make_table(results: Results, points: Sequence[GridPoint]) -> Table:
    """Returns the table of the grid, with one row for each run.

    Args:
      results: The study's results.
      points: The runs of the grid.
    """
    several = len({point.base for point in points}) > 1
    names = [run.error_name for point in points for run in point.runs if run.evaluations]
    metrics = list(dict.fromkeys(names)) or ["top1_error"]
    rows = []
    for point in points:
        values = point.values or [None] * len(results.study.swept)
        line: list[Any] = [point.base] if several else []
        line += [parts.DASH if point.values is None else format_value(value) for value in values]
        for metric in metrics:
            line += [
                parts.format_final_error(point.runs, metric),
                parts.format_training_error(point.runs, metric),
            ]
        done = sum(run.finished for run in point.runs)
        every = len(point.runs)
        line += [str(done) if done == every else f"{done} of {every}"]
        rows.append(tuple(line))
    columns = [*(["run"] if several else []), *results.study.swept]
    for metric in metrics:
        name = parts.name_metric(metric)
        columns += [name, f"training {name}"]
    footnote = (
        "Errors are the mean ± sample standard deviation over the finished seeds at their last"
        " evaluation. The training error is the last one logged, a mean over the last log interval."
    )
    return Table("Grid", (*columns, "seeds"), tuple(rows), f"{footnote}{_name_best(points)}")


def _name_best(points: Sequence[GridPoint]) -> str:
    means = {}
    for point in points:
        finals = [run.final_error for run in point.runs if run.final_error is not None]
        if finals:
            means[point.name] = statistics.mean(finals)
    if len(means) < 2:
        return ""
    best = min(means, key=lambda name: means[name])
    return f" Lowest of {len(means)}: {best}, possibly by chance."


def make_figure(results: Results, points: Sequence[GridPoint]) -> Figure:
    """Returns the figure of the final error against each swept field.

    Args:
      results: The study's results.
      points: The runs of the grid.
    """
    charts = make_charts(results.study.swept, points)
    return parts.line_charts(results, charts, CAPTION)


def make_charts(swept: Sequence[str], points: Sequence[GridPoint]) -> list[LineChart]:
    """Returns a chart for each varied run and each swept field.

    Args:
      swept: The swept fields.
      points: The runs of the grid.
    """
    charts = []
    bases = list(dict.fromkeys(point.base for point in points))
    for base, (number, field) in itertools.product(bases, enumerate(swept)):
        own = [(p.values, p.runs) for p in points if p.base == base and p.values is not None]
        values = list(dict.fromkeys(combination[number] for combination, _ in own))
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numeric:
            values.sort()
        places = values if numeric else range(len(values))
        at = dict(zip(values, places, strict=True))
        lines: dict[str, dict[float, list[float]]] = {}
        metric = next(
            (r.error_name for _, runs in own for r in runs if r.evaluations), "top1_error"
        )
        scale = 100 if parts.is_percent(metric) else 1
        for combination, runs in own:
            others = zip(swept, combination, strict=True)
            label = ", ".join(
                f"{_get_last_name(f)} {format_value(v)}" for f, v in others if f != field
            )
            for run in runs:
                if run.final_error is not None and run.error_name == metric:
                    errors = lines.setdefault(label, {}).setdefault(at[combination[number]], [])
                    errors.append(scale * run.final_error)
        colors = figures.spread_colors(max(len(lines), 1))
        series = [
            Series(
                escape_unprintable(label),
                tuple((x, statistics.mean(e), min(e), max(e)) for x, e in sorted(line.items())),
                color,
            )
            for (label, line), color in zip(lines.items(), colors, strict=False)
        ]
        spread = numeric and bool(values) and values[0] > 0 and values[-1] >= DECADES * values[0]
        charts.append(
            LineChart(
                title=escape_unprintable(base),
                lines=tuple(series),
                x_label=escape_unprintable(field),
                y_label=parts.name_metric(metric),
                log_x=spread,
                ticks=()
                if numeric
                else tuple(escape_unprintable(format_value(value)) for value in values),
            )
        )
    return charts


def _get_last_name(field: str) -> str:
    return field.rpartition(".")[2]
