"""Checkpoints of a run with Orbax.

They are saved in the background; the last two and the best are kept. The file digests.json beside
them, {step: {array: checksum}}, is needed because Orbax restores a file with a flipped bit without
an error.
"""

import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cnn_jax import distributed
from cnn_jax.errors import UserError
from cnn_jax.files import write_whole
from cnn_jax.training import checksum, quiet_storage
from cnn_jax.training.state import State

CHECKSUMS = "digests.json"


def manager(folder: Path, local: bool = False) -> ocp.CheckpointManager:
    """Returns the manager of the checkpoints in folder/checkpoints.

    It keeps the last two (one may be damaged) and the first of those with the lowest error.
    `manager(...).best_step()` and `.latest_step()` name them; None if there is none.

    Args:
      folder: The run's folder.
      local: Open without synchronization across processes, for reading. Otherwise all processes
        must call this, and each method of what it returns, together.
    """
    me = jax.process_index()
    who = ocp.options.MultiprocessingOptions(*((me, {me}, f"process{me}") if local else ()))
    # Orbax's annotation is float, but it only sorts by the rank.
    lowest = policies.BestN(get_metric_fn=_rank, reverse=True, n=1)  # type: ignore[arg-type]
    options = ocp.CheckpointManagerOptions(
        best_fn=_rank,  # type: ignore[arg-type]
        best_mode="min",
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), lowest]),
        cleanup_tmp_directories=not local,
        create=not local,
        multiprocessing_options=who,
    )
    handlers = {"state": ocp.StandardCheckpointHandler(multiprocessing_options=who)}
    return ocp.CheckpointManager(
        (folder / "checkpoints").resolve(), item_handlers=handlers, options=options
    )


@contextlib.contextmanager
def open_checkpoints(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """Opens the `manager` and closes it at the end.

    Raises:
      UserError: If something could not be saved.
    """
    if distributed.is_primary():
        _set_aside_damaged(folder)
    distributed.barrier("damaged checkpoints are set aside")
    try:
        checkpoints = manager(folder)
    except Exception as error:  # Orbax raises whatever its storage raises.
        why = str(error).strip().partition("\n")[0][:200]
        remedy = ": make room" if _is_full(error) else ""
        raise UserError(f"{folder / 'checkpoints'} cannot be opened ({why}){remedy}") from None
    with quiet_storage.silence():
        try:
            yield checkpoints
            wait(checkpoints)
        finally:
            with contextlib.suppress(Exception):  # It raises the error of the failed save again.
                checkpoints.close()


def wait(checkpoints: ocp.CheckpointManager) -> None:
    """Waits until pending saves are written.

    Raises:
      UserError: If a save has failed.
    """
    with _translate_errors(checkpoints):
        checkpoints.wait_until_finished()
        _finish_checksums(checkpoints)


def _is_full(error: Exception) -> bool:
    """Returns whether the storage had no room; Orbax's own errors have no number, only words."""
    return "o space left" in str(error) or "quota exceeded" in str(error)


@contextlib.contextmanager
def _translate_errors(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # Orbax raises whatever its storage raises.
        full = _is_full(e)
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        why = "no space left" if full else reason.strip().partition("\n")[0][:200]
        remedy = "make room" if full else "check the disk"
        raise UserError(
            f"cannot save to {checkpoints.directory} ({why}): {remedy}; the same command then"
            " continues from the last complete checkpoint"
        ) from None


def _check_writable(folder: Path) -> None:
    """Raises OSError if no folder can be made in a folder.

    Where Orbax cannot make a checkpoint's folder, its threads wait for five minutes for it, and the
    process cannot end before.
    """
    probe = folder / ".writable"
    probe.mkdir(exist_ok=True)
    probe.rmdir()


def latest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint in a run's folder, even if damaged; 0: none."""
    saved = folder / "checkpoints"
    return max(ocp.utils.checkpoint_steps(saved), default=0) if saved.exists() else 0


def save(checkpoints: ocp.CheckpointManager, state: State, error: float | None) -> None:
    """Starts to save a state.

    Args:
      checkpoints: Of `open_checkpoints`.
      state: The state.
      error: Its evaluation's error (0 to 1); None: it was not evaluated.

    Raises:
      UserError: If the last one could not be saved.
    """
    step = int(state.step)
    # It was saved when the run was stopped before this evaluation.
    if step in checkpoints.all_steps():
        checkpoints.delete(step)
    # A state without an evaluation is never the best. `was_evaluated` recognizes an evaluated state
    # by its finite error.
    value = math.inf if error is None else min(error, sys.float_info.max)
    metrics = {"error": value, "step": step}
    with _translate_errors(checkpoints):
        _finish_checksums(checkpoints)
        if distributed.is_primary():
            _check_writable(Path(checkpoints.directory))
        checkpoints.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), metrics=metrics
        )
        kept = {str(k) for k in checkpoints.all_steps()}
        # Started only now, because it would delay the copy for which training waits.
        sums, path = checksum.compute(state), _checksum_file(checkpoints)
        _PENDING[checkpoints.directory] = _POOL.submit(_write_checksums, path, kept, step, sums)


# Checksums are computed and written while training continues. A checkpoint without checksums
# counts as damaged.
_POOL = ThreadPoolExecutor(1)
_PENDING: dict[Path, Future] = {}


def _finish_checksums(checkpoints: ocp.CheckpointManager) -> None:
    if writing := _PENDING.pop(checkpoints.directory, None):
        writing.result()


def _write_checksums(
    path: Path, kept: set[str], step: int, sums: Callable[[], dict[str, int]]
) -> None:
    found = {str(step): sums()}  # All processes compute, and the first one writes.
    if distributed.is_primary():
        try:
            known = _read_checksums(path)
        except ValueError:  # Damaged: only checksums of later checkpoints will be written.
            known = {}
        there = {k: v for k, v in known.items() if k in kept}
        write_whole(path, json.dumps(there | found) + "\n")


def was_evaluated(checkpoints: ocp.CheckpointManager, step: int) -> bool:
    """Returns whether the state saved at this step has been evaluated."""
    metrics = checkpoints.metrics(step)
    assert metrics is not None  # `open_checkpoints` has set those without aside
    return math.isfinite(_error(metrics))


def restore(checkpoints: ocp.CheckpointManager, like: State) -> State | None:
    """Returns the newest readable state, or None if nothing was saved.

    Damaged checkpoints are named and deleted.

    Args:
      checkpoints: Of `open_checkpoints`.
      like: A state with the shapes, dtypes and shardings of the result.

    Raises:
      UserError: If all checkpoints are damaged.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    steps, broken = sorted(checkpoints.all_steps(), reverse=True), []
    for step in steps:
        why = ""
        try:
            found: Any = checkpoints.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )
            _verify(checkpoints, step, found.state)
        except Exception as e:  # Orbax raises whatever its storage raises.
            why = str(e).strip().partition("\n")[0][:200] or type(e).__name__
        if not distributed.all_agree(not why):
            broken.append(step)
            why = why or "by another process"
            print(
                f"checkpoint {step} in {checkpoints.directory} cannot be read ({why})",
                file=sys.stderr,
            )
            continue
        for old in broken:
            checkpoints.delete(old)  # Otherwise it could not be written again.
        return found.state
    if broken:
        raise UserError(
            f"no checkpoint in {checkpoints.directory} can be read: delete that folder to start"
            " again"
        )
    return None


def _verify(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Raises ValueError if an array differs from its checksum; without checksums all pass."""
    path = _checksum_file(checkpoints)
    if not path.exists():
        return
    try:
        there = _read_checksums(path).get(str(step))
    except ValueError as error:
        print(f"{path} is damaged ({error}): checkpoint {step} is used unchecked", file=sys.stderr)
        return
    if there is None:
        raise ValueError("the save was interrupted before its checksums were written")
    now = checksum.compute(state)()
    names = sorted(there.keys() | now.keys())
    if wrong := [name for name in names if there.get(name) != now.get(name)]:
        raise ValueError(f"{wrong[0]} is not what was saved: the file is damaged")


def _checksum_file(checkpoints: ocp.CheckpointManager) -> Path:
    return Path(checkpoints.directory).with_name(CHECKSUMS)


def read_checksums(folder: Path, step: int) -> dict[str, int] | None:
    """Returns the checksum of each array that a run has saved at a step; None: they are not known.

    Args:
      folder: The run's folder.
      step: Of the checkpoint.
    """
    try:
        return _read_checksums(folder / CHECKSUMS).get(str(step))
    except ValueError:  # Damaged.
        return None


def _read_checksums(path: Path) -> dict[str, dict[str, int]]:
    """Returns {step: {array: checksum}}; raises ValueError if the file is damaged."""
    try:
        there = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(there, dict) or not all(isinstance(sums, dict) for sums in there.values()):
        raise ValueError("it is no table of checksums")
    return there


def _set_aside_damaged(folder: Path) -> None:
    """Moves checkpoints with an unreadable evaluation to where Orbax does not find them.

    Raises:
      UserError: If none would be left.
    """
    saved = folder / "checkpoints"
    steps = ocp.utils.checkpoint_steps(saved) if saved.exists() else []
    damaged = [step for step in steps if not _has_metrics(saved / str(step))]
    if not damaged:
        return
    names = ", ".join(map(str, sorted(damaged)))
    if len(damaged) == len(steps):
        raise UserError(f"no checkpoint in {saved} can be read: delete that folder to start again")
    aside = folder / "damaged_checkpoints"
    aside.mkdir(exist_ok=True)
    for step in damaged:
        shutil.rmtree(aside / str(step), ignore_errors=True)
        os.replace(saved / str(step), aside / str(step))
    print(
        f"checkpoint {names} in {saved} cannot be read (metrics); moved to {aside}", file=sys.stderr
    )


def _has_metrics(step: Path) -> bool:
    try:
        metrics = json.loads((step / "metrics" / "metrics").read_bytes())
        return isinstance(metrics["error"], int | float)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def restore_all(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns a saved state as a tree of arrays on this process's first device.

    They may have been saved on other devices.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    metadata: Any = checkpoints.item_metadata(step)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), metadata.state
    )
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like))
    found: Any = checkpoints.restore(step, args=arguments)
    return found.state


def list_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a run's folder, readable or not, in order."""
    saved = folder / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(saved)) if saved.exists() else []


def load_parameters(folder: Path, step: int | None = None) -> tuple[Any, Any, int]:
    """Returns (params, stats, step) of a checkpoint of a run, as NumPy arrays.

    Args:
      folder: The run's folder.
      step: Of the checkpoint; None: the newest.

    Raises:
      UserError: If there is none, or it cannot be read.
    """
    step = latest_step(folder) if step is None else step
    if not step:
        raise UserError(
            f"{folder} holds no checkpoint: train that run first, or name another folder"
        )
    try:
        with manager(folder, local=True) as checkpoints:
            saved = restore_all(checkpoints, step)
            _verify(checkpoints, step, saved)
        params, stats = jax.tree.map(np.asarray, (saved["params"], saved["stats"]))
    except Exception as e:  # Orbax raises whatever its storage raises.
        why = str(e).strip().partition("\n")[0][:200] or type(e).__name__
        raise UserError(
            f"checkpoint {step} in {folder} cannot be read ({why}): delete it and continue training"
        ) from None
    return params, stats, step


def take_parameters(state: State, folder: Path, layers: Sequence[str]) -> State:
    """Returns a new state with parameters of another run.

    Args:
      state: The state of step 0.
      folder: The other run's folder; its newest checkpoint is read.
      layers: The layers to take, such as conv1_1; empty: all, and batch norm's averages with them.

    Raises:
      UserError: If a layer is missing in either, or has another size.
    """
    params, stats, _ = load_parameters(folder)
    for layer in layers or sorted(state.params.keys() | params.keys()):
        ours, theirs = (
            {k: v.shape for k, v in _leaves(tree.get(layer, {}))} for tree in (state.params, params)
        )
        if not ours or ours != theirs:
            sizes = f"is {ours} here and {theirs} there"
            what = sizes if ours and theirs else "is not in both models"
            raise UserError(
                f"train.start_from={folder.parent.name}: layer {layer} {what}; see"
                " train.start_layers"
            )
    taken = {layer: params[layer] for layer in layers} if layers else params

    def put(new: np.ndarray, old: jax.Array) -> jax.Array:
        return jax.device_put(new, old.sharding)

    new = {layer: jax.tree.map(put, tree, state.params[layer]) for layer, tree in taken.items()}
    moved = state.stats if layers else jax.tree.map(put, stats, state.stats)
    return state.replace(params=state.params | new, stats=moved)


def _leaves(tree: Any) -> list[tuple[str, jax.Array]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _error(metrics: dict[str, float]) -> float:
    return metrics["error"]


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """Returns a rank that is lower for better checkpoints, and for earlier ones of equal error."""
    error, step = _error(metrics), metrics.get("step", 0)
    return error, step if math.isfinite(error) else -step
