"""Draws curves of errors over the steps of training, with a panel for each group of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnn_jax.report.figures.style import DASHES, INK, PALETTE, make_grid

Point = tuple[int, float, float, float]


@dataclass(frozen=True)
class Curve:
    """A model's errors during training.

    Attributes:
      label: Name of the model in the legend.
      train: Training errors: (step, mean, minimum, maximum) over seeds.
      test: Test errors, in the same form.
      color: Color of the lines.
      remark: Text after the label, such as the state of an unfinished run.
      stalled: Test errors of each seed that did not train. `train` and `test` leave these out.
    """

    label: str
    train: tuple[Point, ...]
    test: tuple[Point, ...]
    color: str = PALETTE[0]
    remark: str = ""
    stalled: tuple[tuple[Point, ...], ...] = ()


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
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    size = (5.2, _compute_panel_height(panels))
    figure, grid = make_grid(title, len(panels), size, 0.7, layout)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_panel(axes, panel, _find_limits(panels, panel))
    figure.legend(
        handles=_make_handles(panels),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
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
    rows = [-(-len(panel.curves) // 2) for panel in panels]
    second = [sum("\n" in curve.label for curve in panel.curves) for panel in panels]
    return 3.9 + max(0.22 * n + 0.14 * more for n, more in zip(rows, second, strict=True))


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
    training = {"lw": 1, "ls": DASHES, "alpha": 0.85, "mfc": "none"}  # Its points are rings.
    for curve in panel.curves:
        for points, line in ((curve.train, training), (curve.test, {"lw": 2.4})):
            if not points:
                continue
            steps, mean, smallest, largest = zip(*points, strict=True)
            marker = _choose_marker(points)
            # A marker at the edge is drawn whole; the limits contain each line's last point.
            clip = not marker
            axes.plot(steps, mean, color=curve.color, marker=marker, clip_on=clip, **line)
            if smallest != largest:
                axes.fill_between(steps, smallest, largest, color=curve.color, alpha=0.18, lw=0)
        for points in curve.stalled:
            steps, errors, _, _ = zip(*points, strict=True)
            axes.plot(steps, errors, color=curve.color, lw=1, alpha=0.5)
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


def _choose_marker(points: Sequence[Point]) -> str | None:
    return "o" if len(points) == 1 else None  # A line of one point would be invisible.


def _make_handles(panels: Sequence[Panel]) -> list[Line2D]:
    """Returns the legend of the two kinds of lines, with the markers that they have."""
    curves = [curve for panel in panels for curve in panel.curves]
    test, train = (
        next(filter(None, map(_choose_marker, lines)), None)
        for lines in ([curve.test for curve in curves], [curve.train for curve in curves])
    )
    return [
        Line2D([], [], color=INK, lw=2.4, marker=test, label="test error"),
        Line2D(
            [], [], color=INK, lw=1, ls=DASHES, marker=train, mfc="none", label="training error"
        ),
    ]
