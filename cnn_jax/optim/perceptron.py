"""Rosenblatt's perceptron rule, and how many updates it can take at most.

Source: Rosenblatt 1958; Novikoff 1962, "On convergence proofs for perceptrons".
"""

from typing import NamedTuple

import numpy as np


class Learned(NamedTuple):
    """The result of the perceptron rule.

    Attributes:
      weights: Those before the first update and after each, [updates + 1, D + 1]; the last input
        is a constant 1, whose weight is the bias.
      converged: Whether all examples are on their side.
      epochs: Passes over the examples, the last one without a mistake if it has converged.
    """

    weights: np.ndarray
    converged: bool
    epochs: int

    @property
    def updates(self) -> int:
        """The number of mistakes, each of which was an update."""
        return len(self.weights) - 1


def add_constant(inputs: np.ndarray) -> np.ndarray:
    """Returns inputs [N, D] with a last one that is 1, [N, D + 1]."""
    return np.column_stack([inputs, np.ones(len(inputs))])


def learn(
    inputs: np.ndarray, labels: np.ndarray, max_epochs: int, seed: int | None = None
) -> Learned:
    """Learns from zero weights: w := w + y x for each mistake, until there is none.

    Args:
      inputs: [N, D].
      labels: [N], +1 or -1.
      max_epochs: Passes after which it is given up.
      seed: Shuffles the examples before each pass; None: they come in their order.
    """
    x, rng = add_constant(inputs), np.random.default_rng(seed)
    weights = [np.zeros(x.shape[1])]
    for epoch in range(1, max_epochs + 1):
        mistakes = 0
        for i in range(len(x)) if seed is None else rng.permutation(len(x)):
            if labels[i] * (weights[-1] @ x[i]) <= 0:
                weights.append(weights[-1] + labels[i] * x[i])
                mistakes += 1
        if not mistakes:
            return Learned(np.array(weights), True, epoch)
    return Learned(np.array(weights), False, max_epochs)


def is_separable(inputs: np.ndarray, labels: np.ndarray) -> bool:
    """Returns whether a line (a hyperplane) has each class on its own side.

    It solves the linear program y (w x + b) >= 1, which is feasible if and only if there is one.
    """
    from scipy.optimize import linprog

    sides = -labels[:, None] * add_constant(inputs)
    size = sides.shape[1]
    found = linprog(np.zeros(size), sides, -np.ones(len(sides)), bounds=[(None, None)] * size)
    return bool(found.status == 0)


def find_bound(inputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns Novikoff's bound on the number of updates, (R / margin)^2, of separable examples.

    The examples have the constant input too. R is the largest norm of one, and the margin the least
    distance of one to the hyperplane that has the largest such distance: of those with
    y w x >= 1 the one of least norm.
    """
    from scipy.optimize import minimize

    x = add_constant(inputs)
    sides = labels[:, None] * x
    found = minimize(
        lambda w: w @ w,
        np.zeros(x.shape[1]),
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: sides @ w - 1, "jac": lambda w: sides},
        options={"maxiter": 1000},
    )
    least = (sides @ found.x).min()  # 1, but for the solver's tolerance.
    assert least > 0, "the examples are not separable"
    return float((x**2).sum(1).max() * (found.x @ found.x) / least**2)
