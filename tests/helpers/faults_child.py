"""A run in a process of its own, to be killed: python tests/helpers/faults_child.py
resident|streamed WORKDIR.

KILL_IN_SAVE=SECONDS: it kills itself so long after its second save has begun. STOP_AT=N: after N
steps it ends, saved. COORDINATOR=HOST:PORT with PROCESS=I: it is the I-th of two processes.
STEPS=N: it is of so many steps. SET=FIELD=VALUE: it is another run.
"""

import itertools
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cnn_jax import distributed

if __name__ == "__main__" and "COORDINATOR" in os.environ:
    # Before anything brings JAX.
    distributed.initialize(os.environ["COORDINATOR"], int(os.environ["PROCESS"]), 2)

from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.overrides import override
from cnn_jax.training import checkpoint, train, watchdog
from cnn_jax.training.components import KINDS

# Dropout, a plateau, augmentation, an epoch of three steps; log intervals and saves that a cut
# falls between.
RESIDENT = Experiment(
    name="net",
    data=Data(dataset=choose("fake"), batch_size=32, eval_batch_size=40, pad_and_crop=1),
    model=choose("mlp", hidden=(64,), dropout=0.3),
    schedule=choose("plateau", base=0.02, patience=1),
    train=Train(steps=300, log_every=7, eval_every=50, save_every=20),
)
# Worker processes, scale jitter, and a net with batch norm over groups.
STREAMED = replace(
    RESIDENT,
    data=Data(
        dataset=choose("fake"),
        batch_size=32,
        eval_batch_size=40,
        pad_and_crop=0,
        train_resize=(12, 16),
        image_size=12,
        workers=1,
    ),
    model=choose("lenet5_modern", norm="bn", bn_group=16),
    # Each evaluation starts processes of its own.
    train=replace(RESIDENT.train, steps=200, eval_every=100),
)
RUNS = {"resident": RESIDENT, "streamed": STREAMED}


def kill_in_save(after: float) -> None:
    """Has the second save end the process `after` seconds after it begins."""
    save, seen = checkpoint.save, []

    def deadly(*args: object) -> None:
        seen.append(args)
        if len(seen) == 2:
            threading.Thread(
                target=lambda: (time.sleep(after), os.kill(os.getpid(), signal.SIGKILL))
            ).start()
        save(*args)

    checkpoint.save = deadly


def stop_at(step: int) -> None:
    """Has the run be told to stop after so many steps, as by a signal."""
    over, steps = watchdog.watch, itertools.count(1)

    def telling(minutes: float):
        class Over:
            def __enter__(self):
                self.inner = over(minutes)
                return self.inner.__enter__()._replace(
                    stop_requested=lambda: "STOP_AT" if next(steps) >= step else ""
                )

            def __exit__(self, *error: object):
                return self.inner.__exit__(*error)

        return Over()

    watchdog.watch = telling


if __name__ == "__main__":
    if "KILL_IN_SAVE" in os.environ:
        kill_in_save(float(os.environ["KILL_IN_SAVE"]))
    if "STOP_AT" in os.environ:
        stop_at(int(os.environ["STOP_AT"]))
    run = RUNS[sys.argv[1]]
    steps = int(os.environ.get("STEPS", run.train.steps))
    if "SET" in os.environ:
        run = override(run, [os.environ["SET"]], KINDS)
    try:
        train.run(replace(run, train=replace(run.train, steps=steps)), sys.argv[2])
    except StoppedError as stopped:
        print(stopped)
        sys.exit(75)
    except UserError as told:
        print(told, flush=True)
        distributed.exit_if_distributed(2)
        sys.exit(2)
