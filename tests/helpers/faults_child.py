"""A run in a process of its own, to be killed: python tests/helpers/faults_child.py RUN WORKDIR.

RUN is resident, streamed, together (three seeds) or study (a run of a folder of images, WORKDIR's
neighbor `images`, with its report).

KILL_IN_SAVE=SECONDS: it kills itself so long after its second save has begun.
KILL_IN_WRITE=FILE,MOMENT: it kills itself in a write of a file whose path matches; MOMENT is one of
`deadly_writes`, or, of a file that is appended to, the number of the write.
STOP_AT=N: after N steps it ends, saved. STEPS=N: it is of so many steps. SET=FIELD=VALUE: it is
another run. COORDINATOR=HOST:PORT with PROCESS=I: it is the I-th of two processes; HEARTBEAT=S:
they miss one another after so many seconds.
"""

import fnmatch
import itertools
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from cnn_jax import distributed

if __name__ == "__main__" and "COORDINATOR" in os.environ:
    # Before anything brings JAX.
    distributed.HEARTBEAT = int(os.environ.get("HEARTBEAT", distributed.HEARTBEAT))
    distributed.initialize(os.environ["COORDINATOR"], int(os.environ["PROCESS"]), 2)

from cnn_jax import files, study
from cnn_jax.config import Data, Experiment, Log, Train, choose
from cnn_jax.data import folder_index
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.overrides import override
from cnn_jax.training import checkpoint, layer_log, metrics_log, train, watchdog
from cnn_jax.training.components import KINDS
from helpers import deadly_writes

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
# Every kind of file is written.
STUDY = replace(
    STREAMED,
    study="small",
    data=replace(STREAMED.data, dataset=choose("folder", path="images"), workers=0),
    model=choose("mlp", hidden=(16,)),
    protocols=(choose("single"),),
    train=Train(steps=60, log_every=3, eval_every=20, save_every=10),
    log=Log(layer_statistics=(0, 10, 20, 30)),
)
RUNS = {"resident": RESIDENT, "streamed": STREAMED, "together": RESIDENT, "study": STUDY}
SEEDS = {"together": (0, 1, 2)}


def kill() -> None:
    """Ends this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save(after: float) -> None:
    """Has the second save end the process `after` seconds after it begins."""
    save, seen = checkpoint.save, []

    def deadly(*args: object) -> None:
        seen.append(args)
        if len(seen) == 2:
            threading.Thread(target=lambda: (time.sleep(after), kill())).start()
        save(*args)

    checkpoint.save = deadly


def kill_in_write(pattern: str, moment: str) -> None:
    """Has a write of a file end the process."""
    appended = {"metrics.jsonl": metrics_log, "layers.jsonl": layer_log}
    if pattern == "events":
        deadly_writes.cut_events(int(moment), kill)
    elif moment.isdigit():
        deadly_writes.cut_lines(appended[pattern], pattern, int(moment), kill)
    else:

        def is_due(number: int, place: Path) -> bool:
            return fnmatch.fnmatch(str(place), f"*/{pattern}")

        files.os = deadly_writes.Writes(is_due, moment, kill).as_os()


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


def train_study(run: Experiment, workdir: Path) -> None:
    """Trains the run as a study of its own; small folders of images get an index, too."""
    folder_index.MIN_IMAGES = folder_index.SETTLED_NS = 0
    images = str(workdir.with_name("images"))
    run = replace(run, data=replace(run.data, dataset=choose("folder", path=images)))
    rows = (study.Row("net", "Net", "", ""),)
    made = study.Study("small", "Small", "Nobody", "", "laptop", {"net": run}, rows)
    study.run(made, workdir, command="make")


def main() -> int:
    """Trains the run; returns the exit code."""
    if "KILL_IN_SAVE" in os.environ:
        kill_in_save(float(os.environ["KILL_IN_SAVE"]))
    if "KILL_IN_WRITE" in os.environ:
        kill_in_write(*os.environ["KILL_IN_WRITE"].split(","))
    if "STOP_AT" in os.environ:
        stop_at(int(os.environ["STOP_AT"]))
    name, workdir = sys.argv[1], Path(sys.argv[2])
    run = RUNS[name]
    steps = int(os.environ.get("STEPS", run.train.steps))
    if "SET" in os.environ:
        run = override(run, [os.environ["SET"]], KINDS)
    run = replace(run, train=replace(run.train, steps=steps))
    try:
        if name == "study":
            train_study(run, workdir)
        else:
            ends = train.run_seeds(run, SEEDS.get(name, (run.seed,)), workdir)
            for end in ends.values():
                if isinstance(end, UserError):
                    raise end
    except StoppedError as stopped:
        print(stopped)
        return 75
    except UserError as told:
        print(told, flush=True)
        distributed.exit_if_distributed(2)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
