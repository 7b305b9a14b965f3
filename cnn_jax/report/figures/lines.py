"""Draws line charts: any value against any other, with a band over seeds."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cnn_jax.report.figures.style import NARROW, make_grid, set_log_scale

MAX_MARKERS = 40  # lines with at most this many points have markers
MAX_INSIDE = 4  # a legend of more lines stands below the axes, where it covers none


@dataclass(frozen=True)
class Series:
    """A line of a chart; its points are (x, mean, minimum, maximum)."""

    label: str
    points: tuple[tuple[float, float, float, float], ...]
    color: str


@dataclass(frozen=True)
class LineChart:
    """Lines in one set of axes.

    Attributes:
      title: Title of the chart.
      lines: The lines.
      x_label: Label of the horizontal axis.
      y_label: Label of the vertical axis.
      log_x: Whether the horizontal axis is logarithmic.
      ticks: Labels of the positions 0, 1, ... of the horizontal axis, for values that are not
        numbers.
      log_y: Whether the vertical axis is logarithmic.
      share_y: Whether the vertical axis has the same limits as in other charts with `share_y`.
    """

    title: str
    lines: tuple[Series, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    ticks: tuple[str, ...] = ()
    log_y: bool = False
    share_y: bool = True


def draw_lines(title: str, charts: Sequence[LineChart]) -> Figure:
    """Draws charts of lines with bands from minimum to maximum, at most three in a row.

    Args:
      title: Title of the figure.
      charts: The charts.
    """
    size = (4.4, 3.6 + _compute_legend_height(charts))
    figure, grid = make_grid(title, len(charts), size, 0.8, "constrained")
    for axes, chart in zip(grid, charts, strict=True):
        _draw_chart(axes, chart, _find_span(charts, chart))
    return figure


def draw_chart(charts: Sequence[LineChart], number: int) -> Figure:
    """Draws one of the charts, with the axis limits that it has among all of them.

    Args:
      charts: All charts of the figure.
      number: Which one is drawn, from 0.
    """
    figure = Figure((5.2, 3.9 + _compute_legend_height(charts)), layout="constrained")
    _draw_chart(figure.subplots(), charts[number], _find_span(charts, charts[number]))
    return figure


def _compute_legend_height(charts: Sequence[LineChart]) -> float:
    """Returns the height in inches of the highest legend below its axes."""
    longest = max((_count_labels(chart) for chart in charts), default=0)
    return 0.2 * longest if longest > MAX_INSIDE else 0.0


def _count_labels(chart: LineChart) -> int:
    return sum(bool(line.label) for line in chart.lines)


def _find_span(charts: Sequence[LineChart], own: LineChart) -> tuple[float, float]:
    """Returns the limits of a chart's vertical axis, shared or its own."""
    charts = [chart for chart in charts if chart.share_y] if own.share_y else [own]
    points = [point for chart in charts for line in chart.lines for point in line.points]
    if own.log_y:  # It shows no values of 0 or less, and there may be no others.
        shown = [value for point in points for value in point[1:] if value > 0] or [0.1, 1.0]
        low, high = min(shown), max(shown)
        factor = 1.5 if high > NARROW * low else max((high / low) ** 0.1, 1.001)
        return low / factor, high * factor
    low = min((point[2] for point in points), default=0.0)
    high = max((point[3] for point in points), default=1.0)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_chart(axes: Axes, chart: LineChart, span: tuple[float, float]) -> None:
    for line in chart.lines:
        x, mean, smallest, largest = zip(*line.points, strict=True) if line.points else ((),) * 4
        marker = "o" if len(x) <= MAX_MARKERS else None
        axes.plot(x, mean, color=line.color, marker=marker, ms=4, lw=2, label=line.label)
        axes.fill_between(x, smallest, largest, color=line.color, alpha=0.15, lw=0)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label, ylim=span)
    if chart.log_x and any(line.points for line in chart.lines):
        axes.set_xscale("log")
        # The default labels are math text, which STYLE does not parse.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif all(isinstance(point[0], int) for line in chart.lines for point in line.points):
        places = sorted({int(point[0]) for line in chart.lines for point in line.points})
        if len(places) <= 6 and len({b - a for a, b in itertools.pairwise(places)}) == 1:
            axes.set_xticks(places)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if chart.log_y:
        set_log_scale(axes)
    if chart.ticks:
        axes.set_xticks(range(len(chart.ticks)), chart.ticks)
    axes.tick_params(length=0, which="both")
    below: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
    if labels := _count_labels(chart):
        place = below if labels > MAX_INSIDE else {}
        axes.legend(frameon=False, fontsize=9, **place)
