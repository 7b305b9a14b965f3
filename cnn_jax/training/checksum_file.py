"""Writes and compares the checksums of a run's checkpoints, in digests.json beside them.

The file holds {step: {array: checksum}}. It is needed because Orbax restores a file with a flipped
bit without an error. The module `checksum` computes the checksums.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from cnn_jax import distributed, file_names
from cnn_jax.files import write_whole
from cnn_jax.training import checksum
from cnn_jax.training.state import State

# Checksums are computed and written while training continues. If the file has none of a checkpoint,
# the checkpoint counts as damaged.
_POOL = ThreadPoolExecutor(1)
_PENDING: dict[Path, Future] = {}


def start_checksums(checkpoints: ocp.CheckpointManager, step: int, state: State) -> None:
    """Starts to compute and write the checksums of a checkpoint.

    Checksums of deleted checkpoints are removed from the file.

    Args:
      checkpoints: The manager from `open_checkpoints`.
      step: Step of the checkpoint, whose save has started.
      state: The state that is saved. The caller may donate it at once.
    """
    kept = {str(k) for k in checkpoints.all_steps()}
    sums, path = checksum.compute(state), _find_checksum_file(checkpoints)
    _PENDING[checkpoints.directory] = _POOL.submit(_write_checksums, path, kept, step, sums)


def finish_checksums(checkpoints: ocp.CheckpointManager) -> None:
    """Waits until the checksums of the last save are written.

    Args:
      checkpoints: The manager from `open_checkpoints`.

    Raises:
      OSError: If they could not be written.
    """
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


def verify_checksums(checkpoints: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Compares a state that was read with the checksums of the state that was saved.

    If digests.json is missing or damaged, nothing is compared.

    Args:
      checkpoints: The manager from `open_checkpoints` or `make_manager`.
      step: Step of the checkpoint.
      state: The state that was read.

    Raises:
      ValueError: If an array does not have its checksum, or the file lacks this checkpoint.
    """
    path = _find_checksum_file(checkpoints)
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


def _find_checksum_file(checkpoints: ocp.CheckpointManager) -> Path:
    return Path(checkpoints.directory).with_name(file_names.CHECKSUMS)


def read_checksums(folder: Path, step: int) -> dict[str, int] | None:
    """Returns the checksum of each array that a run has saved at a step.

    Args:
      folder: The run's folder.
      step: Step of the checkpoint.

    Returns:
      {array: checksum}, or None if the file does not hold them.
    """
    try:
        return _read_checksums(folder / file_names.CHECKSUMS).get(str(step))
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
        raise ValueError("it does not hold a table of checksums")
    return there
