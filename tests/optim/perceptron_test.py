"""The perceptron rule by hand, the linear program, and Novikoff's bound."""

import numpy as np
import pytest

from cnn_jax.optim.perceptron import find_bound, is_separable, learn

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
AND, OR, XOR = np.array([[-1, -1, -1, 1], [-1, 1, 1, 1], [-1, 1, 1, -1]])


def test_updates_by_hand():
    # OR, in the order 00, 01, 10, 11: three mistakes in the first pass, then one or two a pass.
    learned = learn(INPUTS, OR, 100)
    assert learned.weights.tolist() == [
        *([0, 0, 0], [0, 0, -1], [0, 1, 0], [1, 1, 1]),
        *([1, 1, 0], [1, 1, -1], [1, 2, 0], [1, 2, -1], [2, 2, 0], [2, 2, -1]),
    ]
    assert (learned.converged, learned.updates, learned.epochs) == (True, 9, 6)


@pytest.mark.parametrize("labels, separable", [(AND, True), (OR, True), (XOR, False)])
def test_the_rule_converges_where_there_is_a_line_and_nowhere_else(labels, separable):
    assert is_separable(INPUTS, labels) == separable
    learned = [learn(INPUTS, labels, 200, seed) for seed in range(5)]
    assert all(one.converged == separable for one in learned)
    assert all(one.epochs == 200 for one in learned) or separable


def test_the_bound_of_two_points_is_exact():
    # Points +-2 on a line: with the constant, (2, 1) and (-2, 1). The best hyperplane is w = (1, 0)
    # with margin 2, R^2 = 5.
    assert find_bound(np.array([[2.0], [-2.0]]), np.array([1, -1])) == pytest.approx(5 / 4)


def test_the_bound_holds_and_a_smaller_margin_raises_it():
    rng = np.random.default_rng(0)
    bounds = []
    for margin in (0.5, 0.05):
        x = rng.uniform(-1, 1, (60, 2))
        x = x[np.abs(x[:, 0]) > margin]
        y = np.sign(x[:, 0])
        bounds.append(find_bound(x, y))
        assert all(learn(x, y, 10_000, seed).updates <= bounds[-1] for seed in range(5))
    assert bounds[0] < bounds[1]
    with pytest.raises(AssertionError):
        find_bound(INPUTS, XOR)
