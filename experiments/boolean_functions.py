"""Which Boolean functions does a perceptron learn, and what do two layers add?

Nothing here takes more than seconds.

Paper     Rosenblatt 1958 (the perceptron and its rule); Novikoff 1962 (at most (R / margin)^2
          mistakes); Minsky, Papert 1969 (XOR is beyond a perceptron, two layers represent it).
Question  Does the perceptron rule learn AND, OR and NOT, and how many updates does it take? Does it
          ever learn XOR? Do two layers represent it, and learn it? Is there a two-layer net for any
          formula? Which change of inputs makes two circles separable?
Command   python launch.py --experiment=boolean_functions
Measured  docs/results/boolean_functions.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnn_jax.errors import UserError
from cnn_jax.report.claims import Claim, Measured
from cnn_jax.study import Study

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from cnn_jax.report import Page, Results, Table

COST = {
    "laptop": "seconds: 100 orders of each gate's examples, 100 sets of points, 20 seeds of MLPs",
    "smoke": "seconds: 5 orders, 5 sets of points and 5 seeds, for tests",
}

# Truth tables in the order of the inputs 00, 01, 10, 11.
GATES = {
    "AND": (0, 0, 0, 1),
    "OR": (0, 1, 1, 1),
    "NOT X": (1, 1, 0, 0),
    "NAND": (1, 1, 1, 0),
    "NOR": (1, 0, 0, 0),
    "XOR": (0, 1, 1, 0),
}
BEYOND = "XOR"
FORMULAS = (
    "X ^ Y",
    "(A and not X and Z) or (A and not Y)",
    "(X and Y) or not (X and Z)",
    "((A and not X and Z) or (A and not Y)) and ((X and Y) or not (X and Z))",
    "(A or B) and (not A or not B)",
    "A ^ B ^ C ^ D",
    "not (A and (B or not C)) or (D ^ E)",
)
MAX_EPOCHS = 1_000
HIDDEN = (2, 4, 8)
STEPS, RATE = 500, 0.5  # Of an MLP on the four examples of XOR, by gradient descent.
RINGS = (1.0, 2.0)  # Radii of the two circles.


def study(preset: str) -> Study:
    """Returns the study; the smoke preset has fewer repetitions."""
    if preset not in (*COST, "paper"):  # The paper's is the laptop's.
        raise UserError(f"preset={preset}: boolean_functions has only laptop and smoke")
    return Study(
        name="boolean_functions",
        title="Boolean functions: one layer and two",
        paper="Rosenblatt 1958; Novikoff 1962; Minsky, Papert 1969",
        paper_data="",
        preset=preset,
        runs={},
        measure=functools.partial(_measure, *((100, 20) if preset != "smoke" else (5, 5))),
        claims=_make_claims(),
        report=_report,
        notes=(
            "The perceptron starts at zero weights, sees the examples in a new order each pass, and"
            f" is given up after {MAX_EPOCHS:,} passes. Its bias is the weight of an input that is"
            " always 1, which counts in the norms of Novikoff's bound.",
            "Whether a line exists is decided by a linear program, apart from any learning.",
            f"The MLPs learn XOR by {STEPS} steps of gradient descent on all four examples, tanh,"
            f" rate {RATE} with momentum 0.9.",
        ),
    )


def _measure(orders: int, seeds: int) -> list[dict[str, Any]]:
    import numpy as np

    rows = [_measure_gate(name, table, orders) for name, table in GATES.items()]
    rng = np.random.default_rng(0)
    rows += [_measure_points(*_draw_points(rng)) for _ in range(orders)]
    rows += [_learn_xor(hidden, seeds) for hidden in HIDDEN]
    rows += [_check_formula(text) for text in FORMULAS]
    return [*rows, _measure_circles(rng)]


def _measure_gate(name: str, table: tuple[int, ...], orders: int) -> dict[str, Any]:
    import numpy as np

    from cnn_jax.models.formulas import list_inputs
    from cnn_jax.optim import perceptron

    inputs, labels = list_inputs(2).astype(float), 2 * np.array(table) - 1
    learned = [perceptron.learn(inputs, labels, MAX_EPOCHS, seed) for seed in range(orders)]
    separable = perceptron.is_separable(inputs, labels)
    return {
        "kind": "gate",
        "gate": name,
        "separable": separable,
        "orders": orders,
        "learned": sum(one.converged for one in learned),
        "most_updates": max(one.updates for one in learned),
        "mean_updates": float(np.mean([one.updates for one in learned])),
        "bound": perceptron.find_bound(inputs, labels) if separable else None,
        "weights": learned[0].weights[:40].tolist(),
    }


def _draw_points(rng: "np.random.Generator") -> "tuple[np.ndarray, np.ndarray]":
    """Returns 40 points of the square [-1, 1]^2 and their sides of a line, by a random margin."""
    import numpy as np

    angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4)
    normal, margin = np.array([np.cos(angle), np.sin(angle)]), 10 ** rng.uniform(-2.5, -0.5)
    points = rng.uniform(-1, 1, (2_000, 2))
    distances = points @ normal + shift
    far = np.abs(distances) > margin
    return points[far][:40], np.sign(distances[far][:40])


def _measure_points(points: "np.ndarray", labels: "np.ndarray") -> dict[str, Any]:
    from cnn_jax.optim import perceptron

    learned = perceptron.learn(points, labels, 100_000, seed=0)
    bound = perceptron.find_bound(points, labels)
    return {"kind": "points", "updates": learned.updates, "bound": round(bound, 3)}


def _learn_xor(hidden: int, seeds: int) -> dict[str, Any]:
    """Trains an MLP from several initial weights, all at once."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cnn_jax import models
    from cnn_jax.evaluation.losses import cross_entropy
    from cnn_jax.models.formulas import list_inputs

    model = models.create("mlp", 2, hidden=(hidden,), activation="tanh")
    inputs, labels = jnp.asarray(list_inputs(2)).reshape(4, 1, 2, 1), jnp.asarray(GATES[BEYOND])
    descent = optax.sgd(RATE, 0.9)

    def loss(params: Any) -> jax.Array:
        return cross_entropy(model.apply(params, {}, inputs)[0], labels).mean()

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        params, velocity = state
        updates, velocity = descent.update(jax.grad(loss)(params), velocity)
        return (optax.apply_updates(params, updates), velocity), None

    def train(key: jax.Array) -> tuple[Any, jax.Array]:
        params, _ = model.init(key, inputs)
        (params, _), _ = jax.lax.scan(step, (params, descent.init(params)), length=STEPS)
        logits, _ = model.apply(params, {}, inputs)
        return params, (jnp.argmax(logits, -1) == labels).all()

    params, learned = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), seeds))
    first = int(np.argmax(learned))
    return {
        "kind": "mlp",
        "hidden": hidden,
        "seeds": seeds,
        "learned": int(learned.sum()),
        "params": jax.tree.map(lambda x: np.round(x[first], 4).tolist(), params),
    }


def _check_formula(text: str) -> dict[str, Any]:
    import jax
    import numpy as np

    from cnn_jax import models
    from cnn_jax.models.formulas import compile_formula, evaluate_formula, list_inputs

    network, table = compile_formula(text), evaluate_formula(text)
    model = models.create("mlp", 2, hidden=(network.units,))
    inputs = list_inputs(len(network.variables)).reshape(len(table), 1, len(network.variables), 1)
    logits, _ = jax.jit(model.apply)(network.params, {}, inputs)
    return {
        "kind": "formula",
        "formula": text,
        "variables": len(network.variables),
        "units": network.units,
        "rows": len(table),
        "true": int(table.sum()),
        "wrong": int((np.asarray(logits[:, 1] > logits[:, 0]) != table).sum()),
        "params": jax.tree.map(lambda x: x.tolist(), network.params),
    }


def _measure_circles(rng: "np.random.Generator") -> dict[str, Any]:
    """Two rings of points, as they are and in polar coordinates."""
    import numpy as np

    from cnn_jax.optim import perceptron

    angles, labels = rng.uniform(-np.pi, np.pi, 120), np.repeat([-1, 1], 60)
    radii = np.repeat(RINGS, 60) + rng.uniform(-0.3, 0.3, 120)
    points = radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    polar = np.column_stack([np.hypot(*points.T), np.arctan2(*points.T[::-1])])
    found: dict[str, Any] = {"kind": "circles", "points": np.round(points, 4).tolist()}
    for name, inputs in (("cartesian", points), ("polar", polar)):
        learned = perceptron.learn(inputs, labels, MAX_EPOCHS, seed=0)
        wrong = labels * (perceptron.add_constant(inputs) @ learned.weights[-1]) <= 0
        found[name] = {
            "separable": perceptron.is_separable(inputs, labels),
            "learned": learned.converged,
            "updates": learned.updates,
            "wrong": int(wrong.sum()),
            "weights": learned.weights[-1].tolist(),
        }
    return found


def _find(results: "Results", kind: str) -> list[dict[str, Any]]:
    return [row for row in results.study.measured if row.get("kind") == kind]


def _count(value: Callable[["Results"], float]) -> "Callable[[Results], Measured]":
    def check(results: "Results") -> Measured:
        if not results.study.measured:
            return Measured(None, why="not measured yet")
        return Measured(value(results), exact=True)

    return check


def _make_claims() -> tuple[Claim, ...]:
    def gates(results: "Results") -> list[dict[str, Any]]:
        return [row for row in _find(results, "gate") if row["gate"] != BEYOND]

    def xor(results: "Results") -> dict[str, Any]:
        return next(row for row in _find(results, "gate") if row["gate"] == BEYOND)

    def unlearned(results: "Results") -> float:
        return sum(row["orders"] - row["learned"] for row in gates(results))

    def largest_share(results: "Results") -> float:
        shares = [row["most_updates"] / row["bound"] for row in gates(results)]
        return max(shares + [row["updates"] / row["bound"] for row in _find(results, "points")])

    def wrong_rows(results: "Results") -> float:
        return sum(row["wrong"] for row in _find(results, "formula"))

    def learned_by_mlps(results: "Results") -> float:
        widest = _find(results, "mlp")[-1]
        return 100 * widest["learned"] / widest["seeds"]

    def separable_circles(results: "Results") -> float:
        (circles,) = _find(results, "circles")
        return circles["polar"]["separable"] - circles["cartesian"]["separable"]

    return (
        Claim(
            "The perceptron rule learns AND, OR, NOT, NAND and NOR: orders of the examples with"
            " which it does not",
            _count(unlearned),
            expected=(0, 0),
            source="Rosenblatt 1958; Novikoff 1962",
            unit="orders",
        ),
        Claim(
            "Its updates stay within Novikoff's bound: the largest share of the bound, over all"
            " gates, orders and sets of points",
            _count(largest_share),
            expected=(0, 1),
            source="Novikoff 1962",
            unit="share",
        ),
        Claim(
            "A perceptron never learns XOR: orders with which it does",
            _count(lambda results: xor(results)["learned"]),
            expected=(0, 0),
            source="Minsky, Papert 1969",
            unit="orders",
        ),
        Claim(
            "No line represents XOR: whether the linear program finds one (1) or not (0)",
            _count(lambda results: xor(results)["separable"]),
            expected=(0, 0),
            source="Minsky, Papert 1969",
            unit="lines",
        ),
        Claim(
            "Two layers represent XOR and every other formula: wrong rows of the truth tables",
            _count(wrong_rows),
            expected=(0, 0),
            source="Minsky, Papert 1969",
            unit="rows",
        ),
        Claim(
            f"Two layers learn XOR: initial weights from which an MLP of {HIDDEN[-1]} hidden units"
            " does, in %",
            _count(learned_by_mlps),
            expected=(95, 100),
            source="the lectures",
            unit="%",
        ),
        Claim(
            "Two circles become separable in polar coordinates, and are not in Cartesian ones"
            " (1: so it is)",
            _count(separable_circles),
            expected=(1, 1),
            source="the lectures",
            unit="",
        ),
    )


def _report(results: "Results") -> "Page":
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
        for row in _find(results, "gate")
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
        for row in _find(results, "formula")
    ]
    learned = "; ".join(
        f"{row['hidden']} hidden units, {row['learned']} of {row['seeds']}"
        for row in _find(results, "mlp")
    )
    columns = ("formula", "variables", "hidden units", "rows", "true rows", "wrong rows")
    footnote = (
        "Each formula is compiled into the weights of an MLP with one hidden layer of ReLUs, whose"
        " answer is compared with the formula's value in every row of its truth table. Learning XOR"
        f" from random weights instead, MLPs succeed with {learned} initial weights."
    )
    return report.Table("Formulas as two-layer nets", columns, tuple(rows), footnote)


def _draw_gates(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report.figures import planes

    rows = [row for row in _find(results, "gate") if row["gate"] in ("AND", "OR", "NOT X", "XOR")]
    drawing = Figure((10, 2.9), layout="constrained")
    for axes, row in zip(drawing.subplots(1, 4), rows, strict=True):
        planes.draw_lines(axes, row["weights"], row["separable"])
        planes.draw_truth_table(axes, GATES[row["gate"]])
        axes.set_title(row["gate"])
    return drawing


def _draw_bound(results: "Results") -> "Figure":
    from matplotlib.figure import Figure

    from cnn_jax.report import figures

    points = [(row["bound"], row["updates"]) for row in _find(results, "points")]
    gates = [(g["bound"], g["most_updates"]) for g in _find(results, "gate") if g["bound"]]
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

    by_hand = next(row for row in _find(results, "formula") if row["formula"] == FORMULAS[0])
    mlps = _find(results, "mlp")
    nets = [("by construction", by_hand["params"], "relu")]
    nets += [(f"learned, {m['hidden']} hidden", m["params"], "tanh") for m in (mlps[0], mlps[-1])]
    drawing = Figure((9.4, 3.2), layout="constrained")
    panels = drawing.subplots(1, 3)
    for axes, (title, params, activation) in zip(panels, nets, strict=True):
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

    (circles,) = _find(results, "circles")
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
