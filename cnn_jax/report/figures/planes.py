"""Draws functions of two inputs: truth tables, lines, and surfaces of probability."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet

from cnn_jax.report import figures

INPUTS = ((0, 0), (0, 1), (1, 0), (1, 1))
COLOR = figures.PALETTE[3]


def draw_truth_table(axes: Axes, table: Sequence[int]) -> None:
    """Draws a point for each of INPUTS, which is filled if the function is true there.

    Args:
      axes: The axes to draw in.
      table: The function's value (0 or 1) at each of INPUTS.
    """
    for (x, y), true in zip(INPUTS, table, strict=True):
        fill = COLOR if true else "white"
        axes.plot(x, y, "o", ms=10, mec=COLOR, mfc=fill, mew=2, zorder=3)
    axes.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), xticks=(0, 1), yticks=(0, 1), aspect="equal")
    axes.set(xlabel="X", ylabel="Y")
    axes.tick_params(length=0)


def draw_line(axes: Axes, weights: Sequence[float], alpha: float = 1, bold: bool = True) -> None:
    """Draws the line a x + b y + c = 0 of weights (a, b, c); nothing if a and b are 0.

    Args:
      axes: The axes to draw in.
      weights: (a, b, c).
      alpha: Opacity of the line.
      bold: Whether the line is thick.
    """
    a, b, c = weights
    style: dict[str, Any] = {"color": figures.PALETTE[0], "alpha": alpha, "lw": 2.2 if bold else 1}
    if b:
        axes.axline((0, -c / b), slope=-a / b, **style)
    elif a:
        axes.axvline(-c / a, **style)


def draw_decision_lines(axes: Axes, lines: Sequence[Sequence[float]], at_rest: bool) -> None:
    """Draws the decision line of a perceptron after each update; later lines are more opaque.

    Args:
      axes: The axes to draw in.
      lines: The weights (a, b, c) after each update.
      at_rest: Whether training has converged at the last line, which is then drawn bold.
    """
    for number, weights in enumerate(lines):
        last = number == len(lines) - 1 and at_rest
        draw_line(axes, weights, 1 if last else 0.1 + 0.4 * number / len(lines), last)


def draw_surface(
    axes: Axes, predict: Callable[[np.ndarray], np.ndarray], points: int = 81
) -> ContourSet:
    """Draws a probability over the square around INPUTS, with a contour line at one half.

    Args:
      axes: The axes to draw in.
      predict: Maps inputs [N, 2] to probabilities [N].
      points: Number of grid points along each axis.

    Returns:
      The filled contours, for a color bar.
    """
    side = np.linspace(-0.5, 1.5, points)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    surface = predict(grid).reshape(points, points)
    image = axes.contourf(side, side, surface, np.linspace(0, 1, 11), cmap="RdBu_r")
    axes.contour(side, side, surface, [0.5], colors="black", linewidths=1)
    return image
