"""The training loss of runs, as lines of a chart and as figures that claims compare."""

import math

from cnn_jax.report.figures import Series
from cnn_jax.report.parts.layers import summarize_points
from cnn_jax.report.results import Results, Run


def loss_line(
    results: Results, run: str, label: str, color: str, scale: float = 1.0
) -> Series | None:
    """Returns a run's training loss against steps, as a line of a chart.

    A loss of 0, which a logarithmic axis cannot show, is left out.

    Args:
      results: The study's results.
      run: The run's name.
      label: In the legend.
      color: Of the line.
      scale: What steps are multiplied by, such as the images of a batch.

    Returns:
      The mean over the seeds that were there, and their least and largest; None: there is none.
    """
    points: dict[float, list[float]] = {}
    for one in results.runs.get(run, ()):
        for step, line in one.train.items():
            if line.loss:
                points.setdefault(scale * step, []).append(line.loss)
    return Series(label, summarize_points(points), color) if points else None


def final_loss(run: Run) -> float | None:
    """Returns the training loss that a run logged last: a mean over the log interval before.

    Returns:
      In nats; infinite if the run has diverged, None if it is not finished.
    """
    if run.diverged is not None:
        return math.inf
    return loss_at(run, max(run.train)) if run.finished and run.train else None


def loss_at(run: Run, step: int) -> float | None:
    """Returns the training loss of the line that a run logged at a step, or last before it.

    Returns:
      In nats; None if there is no such line.
    """
    steps = [s for s, line in run.train.items() if s <= step and line.loss is not None]
    return run.train[max(steps)].loss if steps else None
