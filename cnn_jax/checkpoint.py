"""Checkpoints of a run with Orbax: saved in the background, the last and the best kept, restored exactly."""

import math
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cnn_jax.step import State


def manager(folder: Path) -> ocp.CheckpointManager:
    """The checkpoints in folder/checkpoints: the last two (one may be broken) and that of the lowest error.

    `manager(...).best_step()` and `.latest_step()` name them; None where there is none.
    """
    lowest = policies.BestN(get_metric_fn=_error, reverse=True, n=1)
    options = ocp.CheckpointManagerOptions(
        best_fn=_error,
        best_mode="min",
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), lowest]),
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager((folder / "checkpoints").resolve(), options=options)


def save(checkpoints: ocp.CheckpointManager, state: State, error: float | None) -> None:
    """Starts saving the state under its step, with the evaluation's error (0 to 1); None: not evaluated here."""
    metrics = {"error": math.inf if error is None else error}  # what was not evaluated is never the best
    checkpoints.save(int(state.step), args=ocp.args.Composite(state=ocp.args.StandardSave(state)), metrics=metrics)


def restore(checkpoints: ocp.CheckpointManager, like: State, step: int | None = None) -> State | None:
    """The state saved last (or at `step`), laid out over devices as `like` is; None where nothing was saved."""
    step = checkpoints.latest_step() if step is None else step
    if step is None:
        return None
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state


def _error(metrics: dict[str, float]) -> float:
    return metrics["error"]
