"""The report of boolean_functions: its tables and figures."""

import functools
from typing import TYPE_CHECKING, Any

from .measure import BEYOND, FORMULAS, GATES

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from cnn_jax.report import Page, Results, Table

GATES_CAPTION = (
    "The perceptron's line after each update, the last one bold, with one order of the examples."
    " Filled: true. For XOR the line never comes to rest; the first 40 are drawn."
)
BOUND_CAPTION = (
    "Updates until no mistake is left against Novikoff's bound (R / margin)^2: sets of 40 points in"
    " a square, parted by lines with margins of all sizes, and the gates."
)
SURFACES_CAPTION = (
    "The probability of true in the square between the four inputs: weights by construction, and"
    " learned by MLPs of two and of eight hidden units."
)
CIRCLES_CAPTION = (
    "Left: no line parts the rings. Right: the same points by radius and angle, and the"
    " perceptron's line."
)


def find_rows(results: "Results", kind: str) -> list[dict[str, Any]]:
    """Returns the measured rows of a kind.

    Args:
      results: The study's results.
      kind: gate, points, mlp, formula or circles.

    Returns:
      The rows, in the order in which they were measured.
    """
    return [row for row in results.study.measured if row.get("kind") == kind]


def compose(results: "Results") -> "Page":
    """Returns the page.

    Args:
      results: The study's results.

    Returns:
      The page: figures, tables, claims and notes.
    """
    from cnn_jax import report

    return report.page(
        results,
        report.figure(lambda: _draw_gates(results), GATES_CAPTION, "Decision lines"),
        _gates_table(results),
        report.figure(lambda: _draw_bound(results), BOUND_CAPTION, "Novikoff's bound", "bound.png"),
        report.figure(
            lambda: _draw_surfaces(results), SURFACES_CAPTION, "XOR in two layers", "surfaces.png"
        ),
        _formulas_table(results),
        report.figure(
            lambda: _draw_circles(results), CIRCLES_CAPTION, "Two circles", "circles.png"
        ),
        report.claims_table(results, results.claims),
        report.notes(results),
    )


def _gates_table(results: "Results") -> "Table":
    from cnn_jax import report

    rows = [
        (
            row["gate"],
            "yes" if row["separable"] else "no",
            f"{row['learned']} of {row['orders']}",
            f"{row['mean_updates']:.1f}" if row["separable"] else "—",
            f"{row['most_updates']:,}" if row["separable"] else f"{row['most_updates']:,}, no end",
            f"{row['bound']:.1f}" if row["bound"] else "—",
        )
        for row in find_rows(results, "gate")
    ]
    columns = ("function", "a line exists", "learned", "mean updates", "most updates", "bound")
    footnote = "Learned: with how many orders of the examples the rule comes to its end."
    return report.Table("The perceptron rule", columns, tuple(rows), footnote)


def _formulas_table(results: "Results") -> "Table":
    from cnn_jax import report

    rows = [
        (
            row["formula"].replace("^", "xor"),
            *(str(row[key]) for key in ("variables", "units", "rows", "true", "wrong")),
        )
        for row in find_rows(results, "formula")
    ]
    learned = "; ".join(
        f"{row['hidden']} hidden units, {row['learned']} of {row['seeds']}"
        for row in find_rows(results, "mlp")
    )
    columns = ("formula", "variables", "hidden units", "rows", "true rows", "wrong rows")
    footnote = (
        "Each formula is compiled into the weights of an MLP with one hidden layer of ReLUs, whose"
        " answer is compared with the formula's value in every row of its truth table. Learning XOR"
        f" from random weights instead, MLPs succeed with {learned} initial weights."
    )
    return report.Table("Formulas as MLPs of two layers", columns, tuple(rows), footnote)


def _draw_gates(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report.figures import planes

    rows = [
        row for row in find_rows(results, "gate") if row["gate"] in ("AND", "OR", "NOT X", "XOR")
    ]
    drawing = Figure((10, 2.9), layout="constrained")
    for axes, row in zip(drawing.subplots(1, 4), rows, strict=True):
        planes.draw_decision_lines(axes, row["weights"], row["separable"])
        planes.draw_truth_table(axes, GATES[row["gate"]])
        axes.set_title(row["gate"])
    return drawing


def _draw_bound(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report import figures

    points = [(row["bound"], row["updates"]) for row in find_rows(results, "points")]
    gates = [(g["bound"], g["most_updates"]) for g in find_rows(results, "gate") if g["bound"]]
    drawing = Figure((5.6, 4), layout="constrained")
    axes = drawing.subplots()
    axes.plot(*zip(*points, strict=True), "o", color=figures.PALETTE[0], ms=4, label="points")
    axes.plot(*zip(*gates, strict=True), "s", color=figures.PALETTE[3], ms=6, label="gates")
    ends = [1, 2 * max(bound for bound, _ in points + gates)]
    axes.plot(ends, ends, color=figures.INK, ls=figures.DASHES, lw=1, label="the bound")
    axes.set(xscale="log", yscale="log", xlabel="(R / margin)^2", ylabel="updates")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.tick_params(length=0, which="both")
    axes.legend(frameon=False)
    return drawing


def _draw_surfaces(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report.figures import planes

    by_hand = next(row for row in find_rows(results, "formula") if row["formula"] == FORMULAS[0])
    mlps = find_rows(results, "mlp")
    drawn = [("by construction", by_hand["params"], "relu")]
    drawn += [(f"learned, {m['hidden']} hidden", m["params"], "tanh") for m in (mlps[0], mlps[-1])]
    drawing = Figure((9.4, 3.2), layout="constrained")
    panels = drawing.subplots(1, 3)
    for axes, (title, params, activation) in zip(panels, drawn, strict=True):
        predict = functools.partial(_predict, params, activation)
        image = planes.draw_surface(axes, predict)
        planes.draw_truth_table(axes, GATES[BEYOND])
        axes.set_title(title)
    drawing.colorbar(image, ax=panels, shrink=0.8).set_label("probability of true")
    return drawing


def _predict(params: dict[str, Any], activation: str, inputs: "np.ndarray") -> "np.ndarray":
    """Returns a two-layer MLP's probability of class 1, [N]; in numpy, as reports need no JAX."""
    import numpy as np

    first, second = params["Dense_0"], params["Dense_1"]
    hidden = inputs @ np.array(first["kernel"]) + first["bias"]
    hidden = np.tanh(hidden) if activation == "tanh" else np.maximum(hidden, 0)
    logits = hidden @ np.array(second["kernel"]) + second["bias"]
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


def _draw_circles(results: "Results") -> "Figure":
    import numpy as np
    from matplotlib.figure import Figure

    from cnn_jax.report import figures
    from cnn_jax.report.figures import planes

    (circles,) = find_rows(results, "circles")
    points = np.array(circles["points"])
    polar = np.column_stack([np.hypot(*points.T), np.arctan2(*points.T[::-1])])
    drawing = Figure((8, 3.6), layout="constrained")
    spaces = (("cartesian", points, "x", "y"), ("polar", polar, "radius", "angle"))
    for axes, (name, inputs, x, y) in zip(drawing.subplots(1, 2), spaces, strict=True):
        half = len(inputs) // 2
        for own, color in (
            (inputs[:half], figures.PALETTE[0]),
            (inputs[half:], figures.PALETTE[3]),
        ):
            axes.plot(*own.T, "o", ms=4, color=color)
        if circles[name]["learned"]:
            axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
            planes.draw_line(axes, circles[name]["weights"])
        words = "parted" if circles[name]["learned"] else f"{circles[name]['wrong']} of 120 wrong"
        axes.set(title=f"{name}: {words}", xlabel=x, ylabel=y)
        axes.tick_params(length=0)
    return drawing
