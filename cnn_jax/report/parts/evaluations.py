"""Makes figures of the evaluation protocols: errors with intervals, and errors by test scale."""

import re
import statistics
from collections.abc import Sequence

from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.report.figures import Interval, LineChart, Series
from cnn_jax.report.parts.charts import figure, line_charts
from cnn_jax.report.results import EvaluationFile, Results, Run
from cnn_jax.report.rows import Row
from cnn_jax.text import escape_unprintable

INTERVALS_CAPTION = "Top-1 error of each row, with Wilson's 95% interval over test images."
SCALES_CAPTION = (
    "Top-1 error of dense evaluation against the shorter side Q of the test images, with a line for"
    " each training scale S. Bands are Wilson's 95% intervals over test images."
)
DENSE = r"dense@(\d+)"  # protocols of dense evaluation at one scale


def evaluation_figure(results: Results, rows: Sequence[Row] | None = None) -> Figure:
    """Makes `errors_by_scale` if runs have dense evaluations, else `evaluation_intervals`.

    Args:
      results: The study's results.
      rows: The rows; None: all rows of the study.
    """
    rows = results.rows if rows is None else rows
    if any(re.fullmatch(DENSE, p) for run in results.every_run for p in run.protocols):
        return errors_by_scale(results, rows)
    return evaluation_intervals(results, rows)


def evaluation_intervals(
    results: Results,
    rows: Sequence[Row],
    caption: str = INTERVALS_CAPTION,
    file: str = "report.png",
) -> Figure:
    """Makes a figure of each row's top-1 error with its interval, one point for each seed.

    Args:
      results: The study's results.
      rows: The rows, which name evaluation protocols.
      caption: Text below the figure.
      file: Name of its PNG file.
    """
    intervals = []
    for row in rows:
        for run in results.runs.get(row.run, ()):
            found = run.protocols.get(row.protocol)
            if found and "top1_error" in found.errors:
                value, low, high = _find_interval(found)
                intervals.append(Interval(escape_unprintable(row.label), value, low, high))
    head = escape_unprintable(results.study.title)
    axis = "top-1 error (%), with its 95% interval"
    return figure(lambda: figures.draw_intervals(head, axis, intervals), caption, file=file)


def _find_interval(found: EvaluationFile) -> tuple[float, float, float]:
    value = found.errors["top1_error"]
    low, high = found.intervals.get("top1_error", (value, value))
    return 100 * value, 100 * low, 100 * high


def errors_by_scale(
    results: Results, rows: Sequence[Row], caption: str = SCALES_CAPTION, file: str = "report.png"
) -> Figure:
    """Makes a figure of the error of dense evaluation against the test scale.

    Args:
      results: The study's results.
      rows: The rows; each group has its own panel.
      caption: Text below the figure.
      file: Name of its PNG file.
    """
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        groups.setdefault(row.group, {}).setdefault(row.run)
    trained = {name: _describe_training_scale(runs) for name, runs in results.runs.items()}
    words = list(dict.fromkeys(trained[name] for own in groups.values() for name in own))
    colors = dict(zip(words, figures.spread_colors(len(words)), strict=True))
    charts = []
    for group, names in groups.items():
        lines = []
        for name in names:
            if points := _find_dense_points(results.runs[name]):
                lines.append(Series(trained[name], points, colors[trained[name]]))
        axis = "shorter side Q of test images (pixels)"
        charts.append(LineChart(escape_unprintable(group), tuple(lines), axis, "top-1 error (%)"))
    return line_charts(results, charts, caption, file=file)


def _describe_training_scale(runs: Sequence[Run]) -> str:
    sides = next((run.experiment.data.train_resize for run in runs if run.experiment), ())
    if not sides:
        return "not started"
    return f"S {sides[0]}" if len(sides) == 1 else f"S in [{sides[0]}; {sides[1]}]"


def _find_dense_points(runs: Sequence[Run]) -> tuple[tuple[float, float, float, float], ...]:
    found: dict[int, list[tuple[float, float, float]]] = {}
    for run in runs:
        for protocol, evaluation in run.protocols.items():
            match = re.fullmatch(DENSE, protocol)
            if match and "top1_error" in evaluation.errors:
                found.setdefault(int(match[1]), []).append(_find_interval(evaluation))
    return tuple(
        (side, *(statistics.mean(column) for column in zip(*own, strict=True)))
        for side, own in sorted(found.items())
    )
