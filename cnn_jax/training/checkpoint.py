"""Checkpoints of a run with Orbax: saved in the background, the last and the best kept, restored exactly.

Beside them lies digests.json, {step: {array: checksum}}: Orbax restores a file with a flipped bit without a word.
"""

import contextlib
import json
import math
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
from cnn_jax.training import checksum
from cnn_jax.training.state import State


def manager(folder: Path, alone: bool = False) -> ocp.CheckpointManager:
    """The checkpoints in folder/checkpoints: the last two (one may be broken) and that of the lowest error.

    alone: of this process, whatever the others do; else all processes call it, and each of its methods, together.
    `manager(...).best_step()` and `.latest_step()` name them; None where there is none.
    """
    me = jax.process_index()
    who = ocp.options.MultiprocessingOptions(*((me, {me}, f"process{me}") if alone else ()))
    lowest = policies.BestN(get_metric_fn=_error, reverse=True, n=1)
    options = ocp.CheckpointManagerOptions(
        best_fn=_error,
        best_mode="min",
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), lowest]),
        cleanup_tmp_directories=not alone,
        create=not alone,
        multiprocessing_options=who,
    )
    handlers = {"state": ocp.StandardCheckpointHandler(multiprocessing_options=who)}
    return ocp.CheckpointManager((folder / "checkpoints").resolve(), item_handlers=handlers, options=options)


@contextlib.contextmanager
def open_checkpoints(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """The `manager`, closed at the end; raises UserError where something could not be saved."""
    checkpoints = manager(folder)
    try:
        yield checkpoints
        wait(checkpoints)
    finally:
        with contextlib.suppress(Exception):  # it says again what could not be saved
            checkpoints.close()


def wait(checkpoints: ocp.CheckpointManager) -> None:
    """Waits for what is being saved; raises UserError where that cannot be."""
    with _told(checkpoints):
        checkpoints.wait_until_finished()
        _digested(checkpoints)


@contextlib.contextmanager
def _told(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # Orbax raises whatever its storage raised
        why = "no space left" if "o space left" in str(e) else str(e).strip().partition("\n")[0][:200]
        raise UserError(
            f"cannot save to {checkpoints.directory} ({why}): make room; the same command then continues from the last"
            " whole checkpoint"
        ) from None


def latest_step(folder: Path) -> int:
    """The step of the newest checkpoint in folder/checkpoints, read or not; 0: there is none."""
    saved = folder / "checkpoints"
    return max(ocp.utils.checkpoint_steps(saved), default=0) if saved.exists() else 0


def save(checkpoints: ocp.CheckpointManager, state: State, error: float | None) -> None:
    """Starts saving the state under its step, with the evaluation's error (0 to 1); None: not evaluated here."""
    step = int(state.step)
    if step in checkpoints.all_steps():  # saved when it was stopped before its evaluation, which it has seen now
        checkpoints.delete(step)
    metrics = {"error": math.inf if error is None else error}  # what was not evaluated is never the best
    with _told(checkpoints):
        _digested(checkpoints)
        checkpoints.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), metrics=metrics)
        kept = {str(k) for k in checkpoints.all_steps()}
        # Begun only now, or it would hold up the copying that training waits for.
        _DIGESTING[checkpoints.directory] = _POOL.submit(
            _write, _digests(checkpoints), kept, step, checksum.compute(state)
        )


# Checksums are awaited and written beside the training; a state whose own were never written counts as broken.
_POOL = ThreadPoolExecutor(1)
_DIGESTING: dict[Path, Future] = {}


def _digested(checkpoints: ocp.CheckpointManager) -> None:
    if writing := _DIGESTING.pop(checkpoints.directory, None):
        writing.result()


def _write(path: Path, kept: set[str], step: int, sums: Callable[[], dict[str, int]]) -> None:
    found = {str(step): sums()}  # of several processes all sum up, and the first one writes
    if distributed.is_primary():
        there = {k: v for k, v in _read(path).items() if k in kept}
        write_whole(path, json.dumps(there | found) + "\n")


def was_evaluated(checkpoints: ocp.CheckpointManager, step: int) -> bool:
    """Whether the state saved at this step has seen an evaluation."""
    return math.isfinite(_error(checkpoints.metrics(step)))


def restore(checkpoints: ocp.CheckpointManager, like: State) -> State | None:
    """The newest state that can be read, laid out over devices as `like` is; None where nothing was saved.

    Broken ones are named and deleted; raises UserError where all are broken.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    steps, broken = sorted(checkpoints.all_steps(), reverse=True), []
    for step in steps:
        why = ""
        try:
            found = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
            _verify(checkpoints, step, found.state)
        except Exception as e:  # Orbax raises whatever its storage raised
            why = str(e).strip().partition("\n")[0][:200] or type(e).__name__
        if not distributed.all_agree(not why):
            broken.append(step)
            why = why or "by another process"
            print(f"checkpoint {step} in {checkpoints.directory} cannot be read ({why})", file=sys.stderr)
            continue
        for old in broken:
            checkpoints.delete(old)  # else it could not be written anew
        return found.state
    if broken:
        raise UserError(f"no checkpoint in {checkpoints.directory} can be read: delete that folder to start again")
    return None


def _verify(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Raises ValueError for an array that is not what was saved; checkpoints from before there were digests pass."""
    if not (path := _digests(checkpoints)).exists():
        return
    there = _read(path).get(str(step))
    if there is None:
        raise ValueError("it was cut off before its digests were written")
    now = checksum.compute(state)()
    if wrong := sorted(name for name in there.keys() | now.keys() if there.get(name) != now.get(name)):
        raise ValueError(f"{wrong[0]} is not what was saved: the file is damaged")


def _digests(checkpoints: ocp.CheckpointManager) -> Path:
    return Path(checkpoints.directory).with_name("digests.json")


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def restore_all(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The state saved at this step as a tree of arrays on this process's first device, wherever they lay when saved."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = checkpoints.item_metadata(step).state
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
    return checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))).state


def load_parameters(folder: Path) -> tuple[Any, Any, int]:
    """(params, stats, step) of the newest checkpoint in folder/checkpoints, as NumPy arrays.

    Raises UserError where there is none, or it cannot be read.
    """
    step = latest_step(folder)
    if not step:
        raise UserError(f"{folder} holds no checkpoint: train that run first, or name another folder")
    with manager(folder, alone=True) as checkpoints:
        try:
            saved = restore_all(checkpoints, step)
            _verify(checkpoints, step, saved)
        except Exception as e:  # Orbax raises whatever its storage raised
            why = str(e).strip().partition("\n")[0][:200]
            raise UserError(f"checkpoint {step} in {folder} cannot be read ({why}): delete it and train on") from None
    params, stats = jax.tree.map(np.asarray, (saved["params"], saved["stats"]))
    return params, stats, step


def take_parameters(state: State, folder: Path, layers: Sequence[str]) -> State:
    """The state of step 0 with another run's parameters, whose last checkpoint lies in folder.

    layers: those to take, such as conv1_1; empty: all, and batch norm's averages with them. Raises UserError for a
    layer that either has not, or has in another size.
    """
    params, stats, _ = load_parameters(folder)
    for layer in layers or sorted(state.params.keys() | params.keys()):
        ours, theirs = ({k: v.shape for k, v in _leaves(tree.get(layer, {}))} for tree in (state.params, params))
        if not ours or ours != theirs:
            what = "is not in both nets" if not ours or not theirs else f"is {ours} here and {theirs} there"
            raise UserError(f"train.start_from={folder.parent.name}: layer {layer} {what}; see train.start_layers")
    taken = {layer: params[layer] for layer in layers} if layers else params
    place = lambda new, old: jax.device_put(new, old.sharding)
    new = {layer: jax.tree.map(place, tree, state.params[layer]) for layer, tree in taken.items()}
    moved = state.stats if layers else jax.tree.map(place, stats, state.stats)
    return state.replace(params=state.params | new, stats=moved)


def _leaves(tree: Any) -> list[tuple[str, jax.Array]]:
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]  # fmt: skip


def _error(metrics: dict[str, float]) -> float:
    return metrics["error"]
