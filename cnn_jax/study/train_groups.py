"""Trains groups of runs, one group after the other."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cnn_jax.config import Experiment
from cnn_jax.errors import UserError


def train_groups(
    numbered: Iterable[tuple[int, Sequence[Experiment]]],
    folder: Path,
    total: int,
    profile_steps: int,
    tell: Callable[[str], None],
) -> dict[Experiment, UserError]:
    """Trains groups of runs that differ only in their seed.

    Args:
      numbered: (the group's number from 0, group), in the order of training.
      folder: The folder of the runs.
      total: The number of runs in all groups.
      profile_steps: Number of steps of each run to trace.
      tell: Takes a line for each run.

    Returns:
      What ended the runs that failed.
    """
    from cnn_jax import distributed
    from cnn_jax.training import metrics_log, train
    from cnn_jax.training.compiled_functions import FunctionCache

    failed: dict[Experiment, UserError] = {}
    cache = FunctionCache()
    for group_number, group in numbered:
        began, size = time.perf_counter(), len(group)
        seeds = [one.seed for one in group]
        try:
            ends = train.run_seeds(group[0], seeds, folder, profile_steps, cache)
        except UserError as error:
            if distributed.is_distributed():
                raise  # It may be this process's alone, and the others wait for it in this run.
            # Their frames would keep the run's arrays on the device while the others are trained.
            error.__context__ = None
            error.__traceback__ = None
            ends = dict.fromkeys(seeds, error)
        took = f"{time.perf_counter() - began:.0f} s" + (f", {size} together" if size > 1 else "")
        first = group_number * size + 1  # All groups have the same size.
        for number, (one, end) in enumerate(zip(group, ends.values(), strict=True), first):
            if isinstance(end, UserError):
                failed[one] = end
                words = f"failed: {end}"
            else:
                words = metrics_log.describe_error(end)
            if distributed.is_primary():
                tell(f"[{number}/{total}] {one.name} seed {one.seed}: {words} ({took})")
    return failed
