"""Seconds of saving and restoring a checkpoint, per 100 MB.

    python -m benchmarks.checkpoints --dir=/data

The state is ResNet-50's with momentum, 205 MB. Four times are measured: how long a save blocks
training, how long until it is on the disk, how long restoring takes, and how much of that is
checking the checksum of every array. `numpy.savez` of the same arrays to the same disk is the
comparison.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.result import format_columns, run_benchmark, write_result

FLAGS = flags.FLAGS
GOALS = {"save blocks": 0.060, "checksums on restore": 0.3}  # Seconds per 100 MB.


def main() -> None:
    """Saves and restores several times, and prints the table and a line of JSON."""
    import jax
    import numpy as np
    from absl import logging

    from cnn_jax import models
    from cnn_jax.config import choose
    from cnn_jax.optim import make_optimizer
    from cnn_jax.training import checkpoint, checksum, environment
    from cnn_jax.training.state import State, init_state

    logging.set_verbosity(logging.WARNING)  # As a launch does.
    # The state does not depend on the size of the image.
    model, image = models.create("resnet50", 1000), np.zeros((1, 64, 64, 3), np.float32)
    optimizer = make_optimizer(choose("sgd"), choose("constant"), total_steps=1)
    make = jax.jit(lambda key: init_state(model, optimizer, key, image))
    state = jax.block_until_ready(make(jax.random.key(0)))
    arrays = jax.tree.leaves(state)
    size = sum(leaf.nbytes for leaf in arrays)
    seconds: dict[str, list[float]] = {}

    def time_call(what: str, function: Callable, *arguments: Any) -> None:
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.setdefault(what, []).append((time.perf_counter() - start) * 1e8 / size)

    def save_and_wait(state: State) -> None:
        time_call("save blocks", checkpoint.save, checkpoints, state, None)
        checkpoint.wait(checkpoints)

    with (
        tempfile.TemporaryDirectory(dir=FLAGS.dir or None) as folder,
        checkpoint.open_checkpoints(Path(folder)) as checkpoints,
    ):
        for n in range(FLAGS.repeats + 1):
            if n == 1:
                seconds.clear()  # The first round compiled.
            state = jax.block_until_ready(state.replace(step=state.step + 1))
            time_call("save in all", save_and_wait, state)
            time_call("restore, checked", checkpoint.restore, checkpoints, state)
            time_call("checksums on restore", checksum.compute(state))
            time_call("numpy.savez", np.savez, Path(folder) / "plain.npz", *map(np.asarray, arrays))
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    lines = [("per 100 MB", "seconds", "/ savez", "goal")]
    for what, median in medians.items():
        goal = (
            f"{GOALS[what]} {'met' if median <= GOALS[what] else 'not met'}"
            if what in GOALS
            else ""
        )
        lines.append((what, f"{median:.3f}", f"{median / medians['numpy.savez']:.2f}", goal))
    print(f"ResNet-50, {size / 1e6:.0f} MB\n{format_columns(lines)}")
    write_result(
        {"benchmark": "checkpoints", "bytes": size, "seconds_of_100_mb": medians}
        | environment.describe_environment()
    )


if __name__ == "__main__":
    flags.DEFINE_string("dir", "", "A folder on the disk to measure. Default: temporary files.")
    flags.DEFINE_integer("repeats", 5, "Timed saves.", lower_bound=1)
    run_benchmark(main)
