"""The report of `batch_norm`."""

import statistics
from typing import TYPE_CHECKING

from .measure import ALL_LABELS, LABELS, find_inputs, find_trials, find_validation_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnn_jax.report import LineChart, Page, Results

FIGURE_CAPTION = (
    "As the paper's Figure 1. Left: test accuracy over training, the mean of the seeds and the"
    " band from their least to their largest. Middle and right: the 15th, 50th and 85th percentile"
    " of the inputs of a typical sigmoid of the last hidden layer, of the first seed, without and"
    " with batch norm."
)
RATES_CAPTION = (
    "As Bjorck et al.'s comparison: validation error of the trials, with the same rates with and"
    " without batch norm; the mean of the seeds, the band from their least to their largest."
)


def compose(results: "Results") -> "Page":
    """Returns the page."""
    from cnn_jax import report

    return report.page(
        results,
        report.figure(lambda: _draw_figure_1(results), FIGURE_CAPTION, "Figure 1"),
        *report.paper_tables(results, results.rows),
        report.claims_table(results, results.claims),
        report.tuning_table(results, "The rates, and what they gave"),
        report.line_charts(
            results, _chart_rates(results), RATES_CAPTION, "Error against rate", "rates.png"
        ),
        report.layer_histograms(
            results,
            LABELS,
            max((step for run in results.every_run for step in run.layers), default=0),
            "Outputs of the three hidden layers' sigmoids, and gradients with respect to them, at"
            " the end of the first seed's training.",
            ("values", "gradients"),
        ),
        report.notes(results),
        report.settings(results),
    )


def _draw_figure_1(results: "Results") -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from cnn_jax.report import figures

    drawing = Figure((10, 3.4), layout="constrained")
    left, *others = drawing.subplots(1, 3)
    for (name, label), color in zip(LABELS.items(), figures.PALETTE, strict=False):
        points: dict[int, list[float]] = {}
        for run in results.runs.get(name, ()):
            for step, line in run.evaluations.items():
                if line.error is not None:
                    points.setdefault(step, []).append(100 - 100 * line.error)
        steps = sorted(points)
        mean = [statistics.mean(points[s]) for s in steps]
        left.plot(steps, mean, color=color, lw=2, label=label)
        least, largest = ([end(points[s]) for s in steps] for end in (min, max))
        left.fill_between(steps, least, largest, color=color, alpha=0.18, lw=0)
    left.set(title="(a)", xlabel="steps", ylabel="test accuracy (%)", ylim=(70, 100))
    left.legend(frameon=False, loc="lower right")
    for axes, (name, label), letter in zip(others, LABELS.items(), "bc", strict=True):
        inputs = {k: v for run in results.runs[name][:1] for k, v in find_inputs(run).items()}
        for place, style in ((0, figures.DASHES), (1, "-"), (2, figures.DASHES)):
            line = [layer.units[0][place] for layer in inputs.values()]
            axes.plot(list(inputs), line, color=figures.PALETTE[0], ls=style, lw=1.6)
        axes.set(title=f"({letter}) {label}", xlabel="steps", ylabel="input of a sigmoid")
    if all(results.runs[name][0].layers for name in LABELS):
        low = min(axes.get_ylim()[0] for axes in others)
        high = max(axes.get_ylim()[1] for axes in others)
        for axes in others:
            axes.set_ylim(low, high)
    for axes in (left, *others):
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return drawing


def _chart_rates(results: "Results") -> "list[LineChart]":
    from cnn_jax import report
    from cnn_jax.report import figures
    from cnn_jax.report.parts import summarize_points

    rates = results.tuning.values if results.tuning else ()
    lines = []
    for (name, label), color in zip(ALL_LABELS.items(), figures.PALETTE, strict=False):
        points = {
            rate: [find_validation_error(run) for run in own]
            for rate in rates
            if (own := find_trials(results, (name, rate)))
        }
        if points:
            lines.append(report.Series(label, summarize_points(points), color))
    y_label = "validation error (%)"
    return [report.LineChart("", tuple(lines), "learning rate", y_label, log_x=True)]
