"""What boolean_functions measures: gates, sets of points, MLPs on XOR, formulas and two circles.

The functions import NumPy and JAX themselves, so that listing the studies does not.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

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


def measure_all(orders: int, seeds: int) -> list[dict[str, Any]]:
    """Measures everything that the study reports.

    Args:
      orders: Orders of each gate's examples, and sets of points.
      seeds: Initial weights of each MLP.

    Returns:
      Rows of the kinds gate, points, mlp, formula and circles, as they are stored in study.json.
    """
    import numpy as np

    rows = [_measure_gate(name, table, orders) for name, table in GATES.items()]
    rng = np.random.default_rng(0)
    rows += [_measure_points(*sample_points(rng)) for _ in range(orders)]
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


def sample_points(rng: "np.random.Generator") -> "tuple[np.ndarray, np.ndarray]":
    """Returns 40 points of the square [-1, 1]^2 and their sides of a line, by a random margin.

    Args:
      rng: Draws the line, the margin and the points.

    Returns:
      (points [40, 2], sides [40], each -1 or 1).
    """
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
    from cnn_jax.evaluation.losses import compute_cross_entropy
    from cnn_jax.models.formulas import list_inputs

    model = models.create("mlp", 2, hidden=(hidden,), activation="tanh")
    inputs, labels = jnp.asarray(list_inputs(2)).reshape(4, 1, 2, 1), jnp.asarray(GATES[BEYOND])
    descent = optax.sgd(RATE, 0.9)

    def loss(params: Any) -> jax.Array:
        return compute_cross_entropy(model.apply(params, {}, inputs)[0], labels).mean()

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

    mlp, table = compile_formula(text), evaluate_formula(text)
    model = models.create("mlp", 2, hidden=(mlp.units,))
    inputs = list_inputs(len(mlp.variables)).reshape(len(table), 1, len(mlp.variables), 1)
    logits, _ = jax.jit(model.apply)(mlp.params, {}, inputs)
    return {
        "kind": "formula",
        "formula": text,
        "variables": len(mlp.variables),
        "units": mlp.units,
        "rows": len(table),
        "true": int(table.sum()),
        "wrong": int((np.asarray(logits[:, 1] > logits[:, 0]) != table).sum()),
        "params": jax.tree.map(lambda x: x.tolist(), mlp.params),
    }


def _measure_circles(rng: "np.random.Generator") -> dict[str, Any]:
    """Returns what the rule learns of two rings of points, as they are and in polar coordinates."""
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
