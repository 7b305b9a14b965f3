"""Reads parameters from the checkpoints of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cnn_jax.errors import UserError, summarize_error
from cnn_jax.training import checkpoint, checksum_file
from cnn_jax.training.state import State


def restore_all(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns a saved state as a tree of arrays on the first device of this process.

    The run may have saved them on other devices.

    Args:
      checkpoints: The manager from `checkpoint.make_manager`.
      step: Step of the checkpoint.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    metadata: Any = checkpoints.item_metadata(step)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), metadata.state
    )
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like))
    found: Any = checkpoints.restore(step, args=arguments)
    return found.state


def load_parameters(folder: Path, step: int | None = None) -> tuple[Any, Any, int]:
    """Returns (params, stats, step) of a checkpoint of a run, as NumPy arrays.

    Args:
      folder: The run's folder.
      step: Step of the checkpoint; None: the newest.

    Raises:
      UserError: If there is no such checkpoint, or it cannot be read.
    """
    step = checkpoint.find_latest_step(folder) if step is None else step
    if not step:
        raise UserError(
            f"{folder} holds no checkpoint: train that run first, or name another folder"
        )
    jax.local_devices()  # Starts JAX: if it finds no device, the checkpoint is not to blame.
    try:
        with checkpoint.make_manager(folder, local=True) as checkpoints:
            saved = restore_all(checkpoints, step)
            checksum_file.verify_checksums(checkpoints, step, saved)
        params, stats = jax.tree.map(np.asarray, (saved["params"], saved["stats"]))
    except Exception as e:  # Orbax raises whatever its storage raises.
        what = f"checkpoint {step} in {folder} cannot be read"
        if cause := checkpoint.explain_system_error(what, e):
            raise cause from None
        why = summarize_error(e)
        raise UserError(f"{what} ({why}): delete it and continue training") from None
    return params, stats, step


def take_parameters(state: State, folder: Path, layers: Sequence[str]) -> State:
    """Returns the initial state of a run with parameters of another run.

    Args:
      state: The state of step 0.
      folder: The other run's folder; its newest checkpoint is read.
      layers: The layers to take, such as conv1_1; empty: all layers, and batch norm's averages.

    Raises:
      UserError: If a layer is missing in one of the runs, or has another size.
    """
    params, stats, _ = load_parameters(folder)
    for layer in layers or sorted(state.params.keys() | params.keys()):
        ours, theirs = (
            {k: v.shape for k, v in _list_leaves(tree.get(layer, {}))}
            for tree in (state.params, params)
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


def _list_leaves(tree: Any) -> list[tuple[str, jax.Array]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
