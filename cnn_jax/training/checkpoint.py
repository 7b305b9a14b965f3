"""Saves and restores the checkpoints of a run with Orbax.

Checkpoints are saved in the background. The last two and the best are kept. The file digests.json
beside them holds their checksums (`checksum_file`).
"""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cnn_jax import distributed, file_names
from cnn_jax.errors import UserError, explain_os_error, is_out_of_memory, summarize_error
from cnn_jax.training import checksum, checksum_file, quiet_storage
from cnn_jax.training.state import State

# Errors that do not mean that a file is damaged.
_SYSTEM_ERRORS = (
    errno.EACCES,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.EPERM,
    errno.ESTALE,
    errno.ETIMEDOUT,
)


def make_manager(folder: Path, local: bool = False) -> ocp.CheckpointManager:
    """Returns Orbax's manager of the checkpoints in folder/checkpoints.

    The manager keeps the last two checkpoints (one may be damaged), and of those with the lowest
    error the first. Its methods `best_step` and `latest_step` return their steps, or None.

    Args:
      folder: The run's folder.
      local: Whether this process reads alone. If not, all processes must call this function, and
        each method of the manager, together.
    """
    me = jax.process_index()
    who = ocp.options.MultiprocessingOptions(*((me, {me}, f"process{me}") if local else ()))
    # Orbax's annotation of the rank is float, but Orbax only sorts by the rank.
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
        (folder / file_names.CHECKPOINTS).resolve(), item_handlers=handlers, options=options
    )


@contextlib.contextmanager
def open_checkpoints(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """Opens the manager of a run's checkpoints, and closes it at the end of the `with` block.

    Checkpoints whose evaluation is damaged are moved to damaged_checkpoints first.

    Args:
      folder: The run's folder.

    Raises:
      UserError: If the checkpoints cannot be opened, or a state could not be saved.
    """
    if distributed.is_primary():
        _set_aside_damaged(folder)
    distributed.wait_for_all("damaged checkpoints are set aside")
    try:
        checkpoints = make_manager(folder)
    except Exception as error:  # Orbax raises whatever its storage raises.
        why = summarize_error(error)
        remedy = ": make room" if _is_full(error) else ""
        raise UserError(
            f"{folder / file_names.CHECKPOINTS} cannot be opened ({why}){remedy}"
        ) from None
    with quiet_storage.silence():
        try:
            yield checkpoints
            wait(checkpoints)
        finally:
            with contextlib.suppress(Exception):  # It raises the error of the failed save again.
                checkpoints.close()


def wait(checkpoints: ocp.CheckpointManager) -> None:
    """Waits until pending saves are written.

    Args:
      checkpoints: The manager from `open_checkpoints`.

    Raises:
      UserError: If a save has failed.
    """
    with _translate_errors(checkpoints):
        checkpoints.wait_until_finished()
        checksum_file.finish_checksums(checkpoints)


def _is_full(error: Exception) -> bool:
    """Returns whether the storage had no room. Errors of Orbax itself have words, but no number."""
    return "o space left" in str(error) or "quota exceeded" in str(error)


@contextlib.contextmanager
def _translate_errors(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # Orbax raises whatever its storage raises.
        what = f"cannot save to {checkpoints.directory}"
        then = "the same command then continues from the last complete checkpoint"
        found = _find_os_error(e)
        if found and found.errno in (errno.EFBIG, errno.EMFILE, errno.ENFILE):
            raise explain_os_error(what, found, then=then) from None
        full = _is_full(e)
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        why = "no space left" if full else reason.strip().partition("\n")[0][:200]
        remedy = "make room" if full else "check the disk"
        raise UserError(f"{what} ({why}): {remedy}; {then}") from None


def _check_writable(folder: Path) -> None:
    """Raises OSError if no folder can be made in a folder.

    If Orbax cannot make the folder of a checkpoint, its threads wait for it for five minutes, and
    the process cannot end earlier.
    """
    probe = folder / ".writable"
    probe.mkdir(exist_ok=True)
    probe.rmdir()


def find_latest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint in a run's folder, even if damaged; 0: none."""
    saved = folder / file_names.CHECKPOINTS
    return max(ocp.utils.checkpoint_steps(saved), default=0) if saved.exists() else 0


def save(checkpoints: ocp.CheckpointManager, state: State, error: float | None) -> None:
    """Starts to save a state.

    Args:
      checkpoints: The manager from `open_checkpoints`.
      state: The state.
      error: Error of the state's evaluation, 0 to 1; None: the state was not evaluated.

    Raises:
      UserError: If the state that was saved before could not be written.
    """
    step = int(state.step)
    # The step is saved already if the run was stopped before this evaluation.
    if step in checkpoints.all_steps():
        checkpoints.delete(step)
    # A state without an evaluation is never the best. `was_evaluated` recognizes an evaluated state
    # by its finite error.
    value = math.inf if error is None else min(error, sys.float_info.max)
    metrics = {"error": value, "step": step}
    with _translate_errors(checkpoints):
        checksum_file.finish_checksums(checkpoints)
        if distributed.is_primary():
            _check_writable(Path(checkpoints.directory))
        checkpoints.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), metrics=metrics
        )
        # Started only now, because it would delay the copy for which training waits.
        checksum_file.start_checksums(checkpoints, step, state)


def was_evaluated(checkpoints: ocp.CheckpointManager, step: int) -> bool:
    """Returns whether the state that is saved at a step was evaluated before."""
    metrics = checkpoints.metrics(step)
    assert metrics is not None  # `open_checkpoints` has set those without aside
    return math.isfinite(_get_error(metrics))


def restore(checkpoints: ocp.CheckpointManager, like: State) -> State | None:
    """Returns the newest readable state, or None if no state was saved.

    Damaged checkpoints are moved to damaged_checkpoints, and named on stderr.

    Args:
      checkpoints: The manager from `open_checkpoints`.
      like: A state with the shapes, dtypes and shardings of the result.

    Raises:
      UserError: If all checkpoints are damaged or of another version of the code, or one of them
        cannot be read for another reason than damage, such as a lack of memory.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    steps, broken = sorted(checkpoints.all_steps(), reverse=True), []
    folder = Path(checkpoints.directory).parent
    _check_arrays(folder, steps, like)
    for step in steps:
        why = ""
        try:
            found: Any = checkpoints.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )
            checksum_file.verify_checksums(checkpoints, step, found.state)
        except Exception as e:  # Orbax raises whatever its storage raises.
            if cause := explain_system_error(f"checkpoint {step} in {folder} cannot be read", e):
                raise cause from None
            why = summarize_error(e)
        if not distributed.all_agree(not why):
            broken.append(step)
            why = why or "by another process"
            print(
                f"checkpoint {step} in {checkpoints.directory} cannot be read ({why})",
                file=sys.stderr,
            )
            continue
        if broken:  # Otherwise they could not be written again.
            if distributed.is_primary():
                _move_aside(folder, broken)
            distributed.wait_for_all("unreadable checkpoints are set aside")
            checkpoints.reload()
        return found.state
    if broken:
        raise UserError(
            f"no checkpoint in {checkpoints.directory} can be read: delete that folder to start"
            " again"
        )
    return None


def _check_arrays(folder: Path, steps: list[int], like: State) -> None:
    """Raises UserError if no checkpoint whose arrays are known has the arrays of a state."""
    ours = set(checksum.name_arrays(like))
    known = [sums for step in steps if (sums := checksum_file.read_checksums(folder, step))]
    if not known or any(sums.keys() == ours for sums in known):
        return
    name = min(known[0].keys() ^ ours)
    where = "not in this code's state" if name in known[0] else "not in them"
    raise UserError(
        f"the checkpoints in {folder} are of another version of the code ({name} is {where}):"
        " continue with the version that starts.jsonl names, or start anew with --overwrite; if"
        f" only {file_names.CHECKSUMS} is damaged, delete that file"
    )


def explain_system_error(what: str, error: Exception) -> UserError | None:
    """Explains an error that has another cause than damaged files, such as a lack of memory.

    Args:
      what: What has failed, such as 'checkpoint 3 in runs/a cannot be read'.
      error: The error that Orbax or its storage has raised.

    Returns:
      The error for the user, or None if the files are damaged.
    """
    if is_out_of_memory(error):
        remedy = "end other programs on this machine"
        return UserError(f"{what} ({summarize_error(error)}): {remedy}; the same command continues")
    found = _find_os_error(error)
    if found is None or found.errno not in _SYSTEM_ERRORS:
        return None
    return explain_os_error(what, found, then="the same command continues")


def _find_os_error(error: Exception) -> OSError | None:
    """Returns the system's error behind an error of Orbax or its storage, or None."""
    named = re.search(r"\bOS error (\d+)\b", str(error))  # TensorStore's words.
    number = error.errno if isinstance(error, OSError) else int(named[1]) if named else None
    return None if number is None else OSError(number, os.strerror(number))


def _set_aside_damaged(folder: Path) -> None:
    """Moves checkpoints whose evaluation cannot be read to where Orbax does not find them.

    Raises:
      UserError: If no checkpoint would be left, or one of them cannot be read for another reason
        than damage, such as a lack of permission.
    """
    saved = folder / file_names.CHECKPOINTS
    steps = ocp.utils.checkpoint_steps(saved) if saved.exists() else []
    damaged = [step for step in steps if not _has_metrics(saved / str(step))]
    if not damaged:
        return
    names = ", ".join(map(str, sorted(damaged)))
    if len(damaged) == len(steps):
        raise UserError(f"no checkpoint in {saved} can be read: delete that folder to start again")
    print(f"checkpoint {names} in {saved} cannot be read (metrics)", file=sys.stderr)
    _move_aside(folder, damaged)


def _move_aside(folder: Path, steps: list[int]) -> None:
    """Moves checkpoints to where Orbax does not find them."""
    aside = folder / file_names.DAMAGED_CHECKPOINTS
    aside.mkdir(exist_ok=True)
    for step in steps:
        shutil.rmtree(aside / str(step), ignore_errors=True)
        os.replace(folder / file_names.CHECKPOINTS / str(step), aside / str(step))
    print(f"checkpoint {', '.join(map(str, sorted(steps)))} is moved to {aside}", file=sys.stderr)


def _has_metrics(step: Path) -> bool:
    try:
        metrics = json.loads((step / "metrics" / "metrics").read_bytes())
        return isinstance(metrics["error"], int | float)
    except OSError as error:
        if cause := explain_system_error(f"checkpoint {step} cannot be read", error):
            raise cause from None
        return False
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def list_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a run's folder, readable or not, in order."""
    saved = folder / file_names.CHECKPOINTS
    return sorted(ocp.utils.checkpoint_steps(saved)) if saved.exists() else []


def _get_error(metrics: dict[str, float]) -> float:
    return metrics["error"]


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """Returns a rank that is lower for better checkpoints, and for earlier ones of equal error."""
    error, step = _get_error(metrics), metrics.get("step", 0)
    return error, step if math.isfinite(error) else -step
