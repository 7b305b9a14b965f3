"""What saving costs a run.

Seconds that a save holds up training, that it takes in all, and that restoring takes.

    python -m benchmarks.checkpoints

Of ResNet-50's state with momentum, seconds of 100 MB; against numpy.savez of the same arrays to the
same disk.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.result import aligned, tell

FLAGS = flags.FLAGS
GOALS = {"save blocks": 0.060, "checksums on restore": 0.3}  # seconds, of 100 MB


def main(argv: list[str]) -> None:
    """Saves and restores in turns, and prints the table and a line of JSON."""
    if argv[1:]:
        sys.exit(f"checkpoints.py: {argv[1]}: takes flags only")
    import jax
    import numpy as np
    from absl import logging

    from cnn_jax import models
    from cnn_jax.config import choose
    from cnn_jax.optim import make_optimizer
    from cnn_jax.training import checkpoint, checksum, metrics_log
    from cnn_jax.training.state import State, init_state

    logging.set_verbosity(logging.WARNING)  # of the libraries, as a launch does
    # Of any size: the same state.
    model, image = models.create("resnet50", 1000), np.zeros((1, 64, 64, 3), np.float32)
    optimizer = make_optimizer(choose("sgd"), choose("constant"), total_steps=1)
    make = jax.jit(lambda key: init_state(model, optimizer, key, image))
    state = jax.block_until_ready(make(jax.random.key(0)))
    arrays = jax.tree.leaves(state)
    size = sum(leaf.nbytes for leaf in arrays)
    found: dict[str, list[float]] = {}

    def timed(what: str, work: Callable, *arguments: Any) -> None:
        began = time.perf_counter()
        jax.block_until_ready(work(*arguments))
        found.setdefault(what, []).append((time.perf_counter() - began) * 1e8 / size)

    def in_all(state: State) -> None:
        timed("save blocks", checkpoint.save, saved, state, None)
        checkpoint.wait(saved)

    with (
        tempfile.TemporaryDirectory(dir=FLAGS.dir or None) as place,
        checkpoint.open_checkpoints(Path(place)) as saved,
    ):
        for n in range(FLAGS.repeats + 1):
            if n == 1:
                found.clear()  # the first one compiled
            state = jax.block_until_ready(state.replace(step=state.step + 1))
            timed("save in all", in_all, state)
            timed("restore, checked", checkpoint.restore, saved, state)
            timed("checksums on restore", checksum.compute(state))
            timed("numpy.savez", np.savez, Path(place) / "plain.npz", *map(np.asarray, arrays))
    middle = {what: statistics.median(seconds) for what, seconds in found.items()}
    lines = [("of 100 MB", "seconds", "of savez", "goal")]
    for what, seconds in middle.items():
        goal = (
            f"{GOALS[what]} {'met' if seconds <= GOALS[what] else 'not met'}"
            if what in GOALS
            else ""
        )
        lines.append((what, f"{seconds:.3f}", f"{seconds / middle['numpy.savez']:.2f}", goal))
    print(f"ResNet-50, {size / 1e6:.0f} MB\n{aligned(lines)}")
    tell(
        {"benchmark": "checkpoints", "bytes": size, "seconds_of_100_mb": middle}
        | metrics_log.describe_environment()
    )


if __name__ == "__main__":
    flags.DEFINE_string("dir", "", "On which disk. Default: that of temporary files.")
    flags.DEFINE_integer("repeats", 5, "Saves that are timed.", lower_bound=1)
    app.run(main)
