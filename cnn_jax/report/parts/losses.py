"""Reads the training losses of runs, as lines of a chart and as values for claims."""

import math

from cnn_jax.report.figures import Series
from cnn_jax.report.parts.layers import summarize_points
from cnn_jax.report.results import Results, Run


def loss_line(
    results: Results, run: str, label: str, color: str, scale: float = 1.0
) -> Series | None:
    """Returns a run's training loss against steps, as a line of a chart.

    Losses of 0 are left out, because a logarithmic axis cannot show them.

    Args:
      results: The study's results.
      run: The run's name.
      label: Label in the legend.
      color: Color of the line.
      scale: Factor of the steps, such as the batch size.

    Returns:
      Mean, minimum and maximum over seeds; None if no loss was logged.
    """
    points: dict[float, list[float]] = {}
    for one in results.runs.get(run, ()):
        for step, line in one.train.items():
            if line.loss:
                points.setdefault(scale * step, []).append(line.loss)
    return Series(label, summarize_points(points), color) if points else None


def find_final_loss(run: Run) -> float | None:
    """Returns the last training loss that a run logged, a mean over the last log interval.

    Returns:
      The loss in nats; infinity if the run has diverged, None if the run is not finished.
    """
    if run.diverged is not None:
        return math.inf
    return find_loss_at(run, max(run.train)) if run.finished and run.train else None


def find_loss_at(run: Run, step: int) -> float | None:
    """Returns the training loss that a run logged at a step, or else at the last step before it.

    Args:
      run: A seed of a run.
      step: The training step.

    Returns:
      The loss in nats; None if no loss was logged.
    """
    steps = [s for s, line in run.train.items() if s <= step and line.loss is not None]
    return run.train[max(steps)].loss if steps else None
