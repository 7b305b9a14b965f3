"""What boolean_functions measures is what is known of gates, formulas and circles."""

import types

import numpy as np

from cnn_jax.optim import perceptron
from experiments import boolean_functions
from experiments.boolean_functions import measure


def test_boolean_functions_find_what_is_so():
    rows = measure.measure_all(3, 3)
    kinds = [row["kind"] for row in rows]
    assert kinds == ["gate"] * 6 + ["points"] * 3 + ["mlp"] * 3 + ["formula"] * 7 + ["circles"]
    gates = {row["gate"]: row for row in rows if row["kind"] == "gate"}
    assert not gates["XOR"]["separable"] and gates["XOR"]["learned"] == 0
    assert all(gates[name]["learned"] == 3 for name in gates if name != "XOR")
    study = types.SimpleNamespace(measured=tuple(rows))
    results = types.SimpleNamespace(study=study)
    claims = boolean_functions.study("smoke").claims
    values = [claim.check(results).value for claim in claims]
    assert values[0] == 0 and 0 < values[1] < 1 and values[2:5] == [0, 0, 0]
    assert values[5:] == [100, 1]


def test_sampled_points_lie_on_two_sides_of_a_line():
    rng = np.random.default_rng(1)
    for _ in range(10):
        points, sides = measure.sample_points(rng)
        assert points.shape == (40, 2) and np.abs(points).max() <= 1
        assert set(sides) == {-1, 1} and perceptron.is_separable(points, sides)
