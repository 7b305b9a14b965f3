"""Makes figures of layer statistics: histograms, values by depth, and shares during training."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.report.figures import LineChart, Series
from cnn_jax.report.parts.charts import figure, line_charts
from cnn_jax.report.results import Layer, Results, Run, Spread
from cnn_jax.text import escape_unprintable

Which = Literal["values", "gradients"]


def find_layers(run: Run, step: int, keep: Callable[[Layer], bool]) -> list[Layer]:
    """Returns a run's layers at a step for which `keep` is true, in the order of the model.

    Args:
      run: A seed of a run.
      step: The training step.
      keep: Returns whether a layer is wanted.
    """
    return [layer for layer in run.layers.get(step, ()) if keep(layer)]


def is_activation(layer: Layer) -> bool:
    """Returns whether a layer is an activation function."""
    return layer.saturated is not None


def layer_histograms(
    results: Results,
    names: Mapping[str, str],
    step: int,
    caption: str,
    which: Sequence[Which] = ("values",),
    keep: Callable[[Layer], bool] = is_activation,
    title: str = "Histograms of layers",
    file: str = "layers.png",
) -> Figure | None:
    """Makes histograms of layers at a step, with one row for the first seed of each run.

    Args:
      results: The study's results.
      names: {run: its label}.
      step: The training step.
      caption: Text below the figure.
      which: values, gradients or both; each has a column.
      keep: Returns whether a layer is drawn. Drawn layers are numbered from 1.
      title: Heading above the figure.
      file: Name of its PNG file.

    Returns:
      The figure; None if no run has statistics of this step.
    """
    rows = [(label, results.runs[name][0]) for name, label in names.items()]
    rows = [(label, run) for label, run in rows if find_layers(run, step, keep)]
    if not rows:
        return None

    def draw() -> Drawing:
        drawing = Drawing((4.6 * len(which), 2.6 * len(rows) + 0.5), layout="constrained")
        grid = drawing.subplots(len(rows), len(which), squeeze=False)
        for (label, run), line in zip(rows, grid, strict=True):
            layers = find_layers(run, step, keep)
            for column, axes in zip(which, line, strict=True):
                spreads = {
                    f"layer {n}": getattr(layer, column) for n, layer in enumerate(layers, 1)
                }
                draw_histograms(axes, spreads)
                head = column if column == "gradients" else "activations"
                axes.set_title(escape_unprintable(f"{label}: {head}"), fontsize=9)
        return drawing

    return figure(draw, caption, title, file)


def draw_histograms(axes: Axes, spreads: Mapping[str, Spread]) -> None:
    """Draws the histograms of layers as lines of densities, on a logarithmic axis.

    Args:
      axes: Where they are drawn.
      spreads: {label of the line: what is drawn}.
    """
    colors = figures.spread_colors(len(spreads))
    for (label, spread), color in zip(spreads.items(), colors, strict=True):
        width = (spread.high - spread.low) / len(spread.counts)
        total = sum(spread.counts) * width
        if not total:
            continue
        edges = [spread.low + i * width for i in range(len(spread.counts) + 1)]
        heights = [count / total for count in spread.counts]
        axes.stairs(heights, edges, color=color, lw=1.4, label=escape_unprintable(label))
    figures.set_log_scale(axes)
    axes.tick_params(length=0, which="both", labelsize=8)
    axes.set_ylabel("density", fontsize=8)
    if axes.patches:  # There are none before a run has measured its layers.
        axes.legend(frameon=False, fontsize=8)


def layer_stds(
    results: Results,
    names: Mapping[str, str],
    step: int,
    caption: str,
    which: Sequence[Which] = ("values", "gradients"),
    keep: Callable[[Layer], bool] = is_activation,
    title: str = "Standard deviation by depth",
    file: str = "depth.png",
) -> Figure | None:
    """Makes charts of the standard deviation of each layer against its number.

    Args:
      results: The study's results.
      names: {run: its label}.
      step: The training step.
      caption: Text below the figure.
      which: values, gradients or both; each has a chart.
      keep: Returns whether a layer is drawn. Drawn layers are numbered from 1.
      title: Heading above the figure.
      file: Name of its PNG file.

    Returns:
      The figure; None if no run has statistics of this step.
    """
    colors = figures.spread_colors(len(names))
    charts = []
    for column in which:
        lines = []
        for (name, label), color in zip(names.items(), colors, strict=True):
            points: dict[int, list[float]] = {}
            for run in results.runs.get(name, ()):
                for number, layer in enumerate(find_layers(run, step, keep), 1):
                    std = getattr(layer, column).std
                    if std:
                        points.setdefault(number, []).append(std)
            if points:
                lines.append(Series(escape_unprintable(label), summarize_points(points), color))
        values = "activations" if keep is is_activation else "outputs"
        head = {"values": values, "gradients": "gradients of the loss"}[column]
        charts.append(
            LineChart(head, tuple(lines), "layer", "standard deviation", log_y=True, share_y=False)
        )
    return line_charts(results, charts, caption, title, file) if charts[0].lines else None


def shares_over_training(
    results: Results,
    names: Mapping[str, str],
    share: Literal["saturated", "dead"],
    caption: str,
    title: str = "Saturation during training",
    file: str = "saturation.png",
) -> Figure | None:
    """Makes a chart for each run of the share of saturated values or dead units against steps.

    Args:
      results: The study's results.
      names: {run: its label}.
      share: saturated or dead.
      caption: Text below the figure.
      title: Heading above the figure.
      file: Name of its PNG file.

    Returns:
      The figure; None if no run has statistics of layers.
    """
    charts = []
    for name, label in names.items():
        by_layer: dict[str, dict[int, list[float]]] = {}
        for run in results.runs.get(name, ()):
            for step in run.layers:
                for number, layer in enumerate(find_layers(run, step, is_activation), 1):
                    value = getattr(layer, share)
                    by_layer.setdefault(f"layer {number}", {}).setdefault(step, []).append(
                        100 * value
                    )
        colors = figures.spread_colors(max(1, len(by_layer)))
        lines = [
            Series(layer, summarize_points(points), color)
            for (layer, points), color in zip(by_layer.items(), colors, strict=False)
        ]
        if lines:
            words = "saturated values (%)" if share == "saturated" else "dead units (%)"
            charts.append(LineChart(escape_unprintable(label), tuple(lines), "steps", words))
    return line_charts(results, charts, caption, title, file) if charts else None


def summarize_points(
    points: Mapping[Any, Sequence[float]],
) -> tuple[tuple[Any, float, float, float], ...]:
    """Returns (x, mean, minimum, maximum) of the values of several seeds at each x."""
    return tuple((x, statistics.mean(v), min(v), max(v)) for x, v in sorted(points.items()))
