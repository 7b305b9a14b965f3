"""Detects that a run has diverged, and ends it."""

import orbax.checkpoint as ocp

from cnn_jax.config import Experiment
from cnn_jax.errors import UserError
from cnn_jax.training import checkpoint, metrics_log
from cnn_jax.training.state import State


class DivergedError(UserError):
    """The error of a run whose loss was not finite.

    Attributes:
      step: Number of updates after which the loss was not finite.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


MAX_CONSECUTIVE_SKIPS = 20  # Consecutive skipped updates after which a run has diverged.


def find_bad_step(state: State, experiment: Experiment, step: int) -> int | None:
    """Returns the step whose loss was not finite and ends the run; None if the run continues.

    Args:
      state: The state after `step` updates.
      experiment: The run. With train.on_nan=skip it ends only after `MAX_CONSECUTIVE_SKIPS`
        skipped updates.
      step: Number of updates done.
    """
    bad = int(state.nan_step)
    allowed = MAX_CONSECUTIVE_SKIPS if experiment.train.on_nan == "skip" else 1
    return bad if bad >= 0 and step - bad >= allowed else None


def end_diverged_run(
    bad: int,
    experiment: Experiment,
    checkpoints: ocp.CheckpointManager,
    write: metrics_log.Write,
) -> DivergedError:
    """Ends a run that has diverged, and deletes its checkpoints from after the divergence.

    Args:
      bad: Number of updates after which the loss was not finite.
      experiment: The run.
      checkpoints: The run's checkpoints.
      write: Appends a line to the run's metrics.

    Returns:
      The error, with the message for the user.
    """
    write("nan", step=bad)
    checkpoint.wait(checkpoints)
    for saved in [s for s in checkpoints.all_steps() if s >= bad]:
        checkpoints.delete(saved)
    good = checkpoints.latest_step()
    where = f"step {good} is saved in {checkpoints.directory}"
    kept = where if good else "nothing was saved before it"
    what = "loss or gradient" if experiment.train.on_nan == "skip" else "loss"
    name = experiment.name or experiment.model.name
    return DivergedError(
        f"{name}: the {what} is not finite at step {bad}; {kept}. {suggest_lower_rate(experiment)}",
        bad,
    )


def find_earlier_end(
    experiment: Experiment, events: list[dict], folder: object
) -> DivergedError | None:
    """Returns the error of a run that an earlier launch has ended because it diverged, or None.

    Args:
      experiment: The run.
      events: The events of the run's metrics.
      folder: The run's folder, for the message.
    """
    if not events or events[-1]["event"] != "nan":
        return None
    step = events[-1]["step"]
    return DivergedError(
        f"{folder}: the loss was not finite at step {step}, and would be again."
        f" {suggest_lower_rate(experiment)}",
        step,
    )


def suggest_lower_rate(experiment: Experiment) -> str:
    """Returns the remedy for a run that has diverged."""
    base = experiment.schedule.args.get("base", 0.1)
    return f"Start in another workdir with a lower rate than schedule.base={base:g}"
