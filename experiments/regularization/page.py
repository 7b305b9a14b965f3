"""The report of `regularization`."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .measure import (
    choose_run,
    find_gap,
    find_kernel,
    find_loss,
    find_test_error,
    find_training_error,
    find_zeros,
)
from .runs import FAMILIES, NONE, TEST, TRAIN, find_family, label_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnn_jax.report import Page, Results, Run, Table

BARS = (
    "Training error (light) and test error (dark) of each regularizer at the strength that the"
    " validation error chose: a bar to the mean over seeds, a point for each seed. Right: the gap"
    " between test and training loss."
)
WEIGHTS = (
    "The first layer's weights at the end of training, of all seeds, on a logarithmic axis of"
    " counts. A weight counts as 0 if it is smaller than 0.001."
)


def compose(results: "Results") -> "Page":
    """Returns the page."""
    from cnn_jax import report

    shown = [
        row for row in results.rows if row.run in (NONE, choose_run(results, "early-stopping"))
    ]
    return report.page(
        results,
        report.figure(lambda: _draw_gaps(results), BARS, "Training and test error"),
        _make_table(results),
        report.claims_table(results, results.claims),
        report.figure(lambda: _draw_weights(results), WEIGHTS, "Weights", "weights.png"),
        _make_grid(results),
        report.error_curves(
            results,
            [replace(row, group="validation error against steps") for row in shown],
            "Validation error (solid) and training error (dashed) against training steps, without a"
            " regularizer and with early stopping, which ends where its curve does.",
            "Early stopping",
            "stopping.png",
        ),
        report.notes(results),
        report.settings(results),
    )


def _list_chosen(results: "Results") -> dict[str, str]:
    """Returns {run: label} of none and of each family's chosen run."""
    chosen = (choose_run(results, family) for family in FAMILIES)
    return {name: label_run(name) for name in (NONE, *chosen) if name}


def _make_table(results: "Results") -> "Table":
    from cnn_jax import report
    from cnn_jax.report.parts import DASH, format_mean

    def cell(runs: "tuple[Run, ...]", find: "Callable[[Run], float | None]") -> str:
        found = [value for run in runs if (value := find(run)) is not None]
        return format_mean("top1_error", found) if found else DASH

    def plain(runs: "tuple[Run, ...]", find: "Callable[[Run], float | None]") -> str:
        found = [value for run in runs if (value := find(run)) is not None]
        spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
        return f"{statistics.mean(found):.3f}{spread}" if found else DASH

    rows = [
        (
            label,
            cell(results.runs[name], find_training_error),
            cell(results.runs[name], find_test_error),
            plain(results.runs[name], lambda run: find_loss(run, TRAIN)),
            plain(results.runs[name], lambda run: find_loss(run, TEST)),
            plain(results.runs[name], find_gap),
            cell(results.runs[name], find_zeros),
        )
        for name, label in _list_chosen(results).items()
    ]
    return report.Table(
        "Each at its best strength",
        (
            "regularizer",
            "training error (%)",
            "test error (%)",
            "training loss",
            "test loss",
            "gap of losses",
            "weights at 0 (%)",
        ),
        tuple(rows),
        "The mean ± sample standard deviation over seeds; losses are in nats. The strength is that"
        " of the lowest validation error. Weights at 0 are those of the first layer below"
        " 0.001; of a run that stopped early they are not measured (—).",
    )


def _make_grid(results: "Results") -> "Table":
    from cnn_jax import report
    from cnn_jax.report.parts import DASH, format_mean

    rows = []
    for name, family in FAMILIES.items():
        cells = []
        for strength in family.strengths:
            runs = results.runs.get(f"{name}-{strength:g}", ())
            errors = [e for run in runs if (e := run.final_error) is not None]
            text = format_mean("top1_error", errors) if errors else DASH
            cells.append(report.Cell(text, f"({family.strength} {strength:g})"))
        chosen = choose_run(results, name)
        rows.append((family.label, *cells, chosen.rpartition("-")[2] if chosen else DASH))
    return report.Table(
        "The strengths, and what they gave",
        ("regularizer", "weak", "middle", "strong", "chosen"),
        tuple(rows),
        "Validation error in %: the mean ± sample standard deviation over seeds at the end, or at"
        " the best state of early stopping. Each regularizer has three trials. The test set was not"
        " looked at.",
    )


def _draw_gaps(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report import figures

    chosen = _list_chosen(results)
    drawing = Figure((11, 1.2 + 0.62 * len(chosen)), layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)

    def draw(axes: "Axes", at: float, values: list[float], alpha: float, label: str) -> None:
        if values:
            mean, color = statistics.mean(values), figures.PALETTE[0]
            axes.barh(at, mean, 0.34, color=color, alpha=alpha, label=label)
            axes.plot(values, [at] * len(values), "o", ms=3.5, color=figures.INK, mfc="none")

    finds = ((find_training_error, 0.45, "training error"), (find_test_error, 1.0, "test error"))
    for place, name in enumerate(chosen):
        runs = results.runs[name]
        for number, (find, alpha, label) in enumerate(finds):
            errors = [100 * e for run in runs if (e := find(run)) is not None]
            draw(left, place + 0.36 * (number - 0.5), errors, alpha, "" if place else label)
        gaps = [gap for run in runs if (gap := find_gap(run)) is not None]
        draw(right, place, gaps, 1.0, "" if place else "test loss minus training loss")
    left.set_yticks(range(len(chosen)), list(chosen.values()))
    left.invert_yaxis()
    for axes, label in ((left, "error (%)"), (right, "nats")):
        axes.set_xlabel(label)
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="y")
        if axes.get_legend_handles_labels()[0]:  # There are none before the first run has ended.
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)
    return drawing


def _draw_weights(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report import figures

    names = [n for n in _list_chosen(results) if n == NONE or find_family(n) in ("l2", "l1")]
    drawing = Figure((3.5 * len(names), 3.0), layout="constrained")
    grid = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name, color in zip(grid, names, figures.PALETTE, strict=False):
        layers = [layer for run in results.runs[name] if (layer := find_kernel(run))]
        for layer in layers:
            spread = layer.kernel
            assert spread is not None  # `find_kernel` has looked
            width = (spread.high - spread.low) / len(spread.counts)
            edges = [spread.low + i * width for i in range(len(spread.counts) + 1)]
            axes.stairs(spread.counts, edges, color=color, lw=1.4)
        zeros = [layer.zeros for layer in layers if layer.zeros is not None]
        share = f": {statistics.mean(zeros):.1%} at 0" if zeros else ""
        axes.set(title=f"{label_run(name)}{share}", xlabel="weight", yscale="log")
        axes.title.set_fontsize(10)
        axes.tick_params(length=0, which="both")
        axes.yaxis.set_major_formatter(lambda count, _: f"{count:g}")
    grid[0].set_ylabel("weights")
    return drawing
