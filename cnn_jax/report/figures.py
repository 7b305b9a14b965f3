"""Draws the figures of reports with matplotlib, as PNG files and as SVG for HTML pages."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnn_jax.errors import UserError
from cnn_jax.optional_packages import explain_missing

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
except ModuleNotFoundError:
    raise UserError(explain_missing("matplotlib")) from None

# Okabe and Ito's colors, which color-blind people can distinguish, without those that are hard to
# see on black or white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c8c8c")
INK, GRID = "#24292f", "#8c959f"
DASHES = (0, (3, 1.5))
DOTS_PER_INCH = 200
MAX_MARKERS = 40  # lines with at most this many points have markers
SEED_SHIFT = 0.15  # distance between the intervals of a row's seeds, as a share of the row's height
STYLE: Any = {  # Any, because the type of rc_context's argument lists every key.
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,  # A dollar sign in a name is no mathematics.
    "svg.fonttype": "none",
    "svg.hashsalt": "cnn_jax",
}

Draw = Callable[[], Figure]


@contextmanager
def use_style() -> Iterator[None]:
    """Applies the reports' style to figures that are drawn inside the block."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # A box is drawn instead.
        yield


def write_png(draw: Draw) -> bytes:
    """Draws a figure and returns it as the bytes of a PNG file."""
    stream = io.BytesIO()
    with use_style():
        draw().savefig(stream, format="png", dpi=DOTS_PER_INCH)
    return stream.getvalue()


def write_svg(draw: Draw, prefix: str) -> str:
    """Draws a figure and returns it as an <svg> element.

    The background is transparent, and text has the page's text color.

    Args:
      draw: Draws the figure.
      prefix: Prefix of the element's ids, which must be unique on a page.
    """
    stream = io.StringIO()
    with use_style():
        draw().savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)


def set_title(figure: Figure, title: str, columns: int = 1) -> None:
    """Sets a figure's title, split into lines that fit the columns of panels.

    Args:
      figure: The figure.
      title: The title.
      columns: Number of columns of panels.
    """
    figure.suptitle(textwrap.fill(title, max(60, 48 * columns)), fontsize=13, fontweight="bold")


def choose_colors(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Chooses a color for each label of each group.

    Models of the same depth get the same color. The depth is the first number in a label. If a
    label has no number, or two labels of a group have the same one, the position in the group is
    used instead.
    """
    depths: dict[str, list] = {}
    for group, labels in groups.items():
        found = [re.search(r"\d+", label) for label in labels]
        depths[group] = [int(match[0]) if match else None for match in found]
    if any(None in each or len(set(each)) < len(each) for each in depths.values()):
        depths = {group: list(range(len(labels))) for group, labels in groups.items()}
    order = sorted({depth for each in depths.values() for depth in each})
    shade = dict(zip(order, spread_colors(len(order)), strict=True))
    return {group: [shade[depth] for depth in each] for group, each in depths.items()}


def spread_colors(number: int) -> list[str]:
    """Returns `number` different colors."""
    if number <= len(PALETTE):
        return list(PALETTE[:number])
    sample = matplotlib.colormaps["viridis"]
    places = [0.1 + 0.8 * i / (number - 1) for i in range(number)]
    return [matplotlib.colors.to_hex(sample(place)) for place in places]


Point = tuple[int, float, float, float]


@dataclass(frozen=True)
class Curve:
    """A model's errors during training.

    Attributes:
      label: Name of the model in the legend.
      train: Training errors: (step, mean, minimum, maximum) over seeds.
      test: The same of test errors.
      color: Color of the lines.
      remark: Text after the label, such as the state of an unfinished run.
    """

    label: str
    train: tuple[Point, ...]
    test: tuple[Point, ...]
    color: str = PALETTE[0]
    remark: str = ""


@dataclass(frozen=True)
class Panel:
    """Curves that are drawn in one set of axes.

    Attributes:
      title: Title of the panel.
      curves: The curves.
      label: Label of the vertical axis.
      percent: Whether errors are in %.
    """

    title: str
    curves: tuple[Curve, ...]
    label: str = "error (%)"
    percent: bool = True


def draw_panels(title: str, panels: Sequence[Panel]) -> Figure:
    """Draws all panels, at most three in a row.

    Args:
      title: Title of the figure.
      panels: The panels.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (max(6.5, 5.2 * columns), rows * _compute_panel_height(panels) + 0.7)
    figure = Figure(size, layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
    set_title(figure, title, columns)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for number, axes in enumerate(grid):
        if number >= len(panels):
            axes.set_visible(False)
            continue
        _draw_panel(axes, panels[number], _find_limits(panels, panels[number]))
    figure.legend(
        handles=_make_handles(), loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def draw_panel(panels: Sequence[Panel], number: int) -> Figure:
    """Draws one of the panels, with the axis limits that it has among all of them.

    Args:
      panels: All panels of the figure.
      number: Which one is drawn, from 0.
    """
    figure = Figure((5.2, _compute_panel_height(panels)), layout="constrained")
    _draw_panel(figure.subplots(), panels[number], _find_limits(panels, panels[number]))
    return figure


def _compute_panel_height(panels: Sequence[Panel]) -> float:
    """Returns the height of a panel with its legend of two columns, in inches."""
    return 3.9 + 0.22 * max(-(-len(panel.curves) // 2) for panel in panels)


def _find_limits(panels: Sequence[Panel], own: Panel) -> tuple[float, float]:
    """Returns the last step and the largest error to show in panels of the same label.

    As in the papers' figures, the large errors of the first steps are cut off.
    """
    curves = [curve for panel in panels if panel.label == own.label for curve in panel.curves]
    points = [point for curve in curves for point in curve.train + curve.test]
    last = max((point[0] for point in points), default=1)
    largest = max((point[3] for point in points), default=100 if own.percent else 1)
    lines = [(line, c.remark) for c in curves for line in (c.train, c.test) if line]
    finals = [line[-1][3] for line, remark in lines if not remark]
    unfinished = [min(point[3] for point in line) for line, remark in lines if remark]
    if not own.percent:
        return max(last, 1), 1.04 * min(largest, 2.5 * max([*finals, *unfinished], default=largest))
    top = largest
    if finals:  # Some point of each unfinished curve must be visible.
        top = min(
            largest, max([5, 2.5 * max(finals), *(1.1 * smallest for smallest in unfinished)])
        )
    return max(last, 1), min(100, 1.04 * max(top, 1))


def _draw_panel(axes: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    training = {"lw": 1, "ls": DASHES, "alpha": 0.85}
    for curve in panel.curves:
        for points, line in ((curve.train, training), (curve.test, {"lw": 2.4})):
            if not points:
                continue
            steps, mean, smallest, largest = zip(*points, strict=True)
            marker = "o" if len(points) == 1 else None
            axes.plot(steps, mean, color=curve.color, marker=marker, **line)
            if smallest != largest:
                axes.fill_between(steps, smallest, largest, color=curve.color, alpha=0.18, lw=0)
    axes.set(title=panel.title, xlabel="steps", ylabel=panel.label)
    axes.set(xlim=(0, 1.01 * limits[0]), ylim=(0, limits[1] or 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(length=0)
    handles = [Line2D([], [], color=curve.color, lw=2.4) for curve in panel.curves]
    names = [f"{curve.label} {curve.remark}".strip() for curve in panel.curves]
    axes.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=2,
        frameon=False,
        fontsize=9,
    )


def _make_handles() -> list[Line2D]:
    test = Line2D([], [], color=INK, lw=2.4, label="test error")
    return [test, Line2D([], [], color=INK, lw=1, ls=DASHES, label="training error")]


@dataclass(frozen=True)
class Bar:
    """A bar of a bar chart: its group, its label, its length, and the text at its end."""

    group: str
    label: str
    value: float
    words: str = ""


def draw_bars(title: str, bars: Sequence[Bar]) -> Figure:
    """Draws horizontal bars, one panel for each group; the first bar of a group is gray.

    Args:
      title: Title of the figure.
      bars: The bars, from top to bottom.
    """
    groups: dict[str, list[Bar]] = {}
    for bar in bars:
        groups.setdefault(bar.group, []).append(bar)
    height = 0.42 * len(bars) + 0.5 * len(groups) + 0.9
    figure = Figure((8.5, height), layout="constrained")
    set_title(figure, title)
    ratios = [len(members) + 0.6 for members in groups.values()]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=ratios).flat
    longest = max((bar.value for bar in bars), default=1.0) or 1.0
    for axes, (group, members) in zip(panels, groups.items(), strict=True):
        places = range(len(members))
        colors = [PALETTE[6], *[PALETTE[0]] * (len(members) - 1)]
        axes.barh(places, [bar.value for bar in members], color=colors, height=0.7)
        axes.set_yticks(places, [bar.label for bar in members])
        for place, bar in enumerate(members):
            end = bar.value + 0.01 * longest
            axes.text(end, place, bar.words, va="center", fontsize=9)
        axes.set_title(group, loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.5 * longest), xticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(visible=False)
    return figure


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
      share_y: Whether its vertical axis has the same limits as those of other such charts.
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
    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    figure = Figure((max(6.5, 4.4 * columns), 3.6 * rows + 0.8), layout="constrained")
    set_title(figure, title, columns)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for number, axes in enumerate(grid):
        if number < len(charts):
            _draw_chart(axes, charts[number], _find_span(charts, charts[number]))
        else:
            axes.set_visible(False)
    return figure


def draw_chart(charts: Sequence[LineChart], number: int) -> Figure:
    """Draws one of the charts, with the axis limits that it has among all of them.

    Args:
      charts: All charts of the figure.
      number: Which one is drawn, from 0.
    """
    figure = Figure((5.2, 3.9), layout="constrained")
    _draw_chart(figure.subplots(), charts[number], _find_span(charts, charts[number]))
    return figure


def _find_span(charts: Sequence[LineChart], own: LineChart) -> tuple[float, float]:
    """Returns the limits of a chart's vertical axis, shared or its own."""
    charts = [chart for chart in charts if chart.share_y] if own.share_y else [own]
    points = [point for chart in charts for line in chart.lines for point in line.points]
    low = min((point[2] for point in points), default=0.0)
    high = max((point[3] for point in points), default=1.0)
    if own.log_y:
        return low / 1.5, high * 1.5
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_chart(axes: Axes, chart: LineChart, span: tuple[float, float]) -> None:
    for line in chart.lines:
        x, mean, smallest, largest = zip(*line.points, strict=True)
        marker = "o" if len(x) <= MAX_MARKERS else None
        axes.plot(x, mean, color=line.color, marker=marker, ms=4, lw=2, label=line.label)
        axes.fill_between(x, smallest, largest, color=line.color, alpha=0.15, lw=0)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label, ylim=span)
    if chart.log_x:
        axes.set_xscale("log")
        # The default labels are math text, which STYLE does not parse.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif all(isinstance(point[0], int) for line in chart.lines for point in line.points):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if chart.log_y:
        set_log_scale(axes)
    if chart.ticks:
        axes.set_xticks(range(len(chart.ticks)), chart.ticks)
    axes.tick_params(length=0, which="both")
    if any(line.label for line in chart.lines):
        axes.legend(frameon=False, fontsize=9)


def set_log_scale(axes: Axes) -> None:
    """Gives the vertical axis a logarithmic scale, labeled with plain numbers."""
    axes.set_yscale("log")
    # The default labels are math text, which STYLE does not parse.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Interval:
    """A value with an interval, and the label of its row."""

    label: str
    value: float
    low: float
    high: float


def draw_intervals(title: str, x_label: str, intervals: Sequence[Interval]) -> Figure:
    """Draws values with intervals, one row for each label; equal labels share a row.

    Args:
      title: Title of the figure.
      x_label: Label of the horizontal axis.
      intervals: The intervals, from top to bottom.
    """
    labels = list(dict.fromkeys(one.label for one in intervals))
    figure = Figure((7, 1.4 + 0.4 * len(labels)), layout="constrained")
    set_title(figure, title)
    axes = figure.subplots()
    drawn: dict[str, int] = {}
    for one in intervals:
        of_label = sum(other.label == one.label for other in intervals)
        drawn[one.label] = drawn.get(one.label, 0) + 1
        shift = SEED_SHIFT * (drawn[one.label] - (of_label + 1) / 2)
        place = labels.index(one.label) + max(-0.4, min(0.4, shift))
        axes.plot([one.low, one.high], [place, place], color=PALETTE[0], lw=2)
        axes.plot([one.value], [place], color=PALETTE[0], marker="o")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel=x_label, ylim=(len(labels) - 0.5, -0.5))
    axes.tick_params(length=0)
    return figure
