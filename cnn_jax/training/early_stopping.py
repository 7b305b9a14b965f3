"""Ends a run with `train.stop_after`, and keeps the state of its lowest evaluation error.

Stopping when the validation error no longer falls, and keeping the parameters of its minimum, is
early stopping as Prechelt 1998 ("Early stopping - but when?") and the lectures have it.
"""

import orbax.checkpoint as ocp

from cnn_jax.training import checkpoint, metrics_log


def end_at_best_state(
    event: str, step: int, checkpoints: ocp.CheckpointManager, write: metrics_log.Write
) -> None:
    """Keeps the best state as the run's newest checkpoint, and writes the end to its metrics.

    If several evaluations have the same lowest error, the state of the first of them is kept.
    Checkpoints are deleted before the line is written. A run that is cut off in between therefore
    repeats the steps since its best state, with the same numbers.

    Args:
      event: stop if the error has not fallen for train.stop_after evaluations, end if the run came
        to its last step.
      step: Number of steps done.
      checkpoints: The run's checkpoints. Those of states later than the best are deleted.
      write: Appends a line to the run's metrics.
    """
    checkpoint.wait(checkpoints)
    best = checkpoints.best_step()
    assert best is not None  # the last evaluation has saved one
    for saved in sorted((s for s in checkpoints.all_steps() if s > best), reverse=True):
        checkpoints.delete(saved)
    write(event, step=step, best_step=best)
