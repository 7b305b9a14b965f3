"""What a run leaves for people and for the report: config.json, starts.jsonl, metrics.jsonl, TensorBoard, a bar.

metrics.jsonl has a line an event, the same lines however often the run was cut off and continued:
  train  step, epoch, loss, error, lr, images_per_s, data_time, step_time (seconds a step);
         bad_images, those that could not be decoded since the line before, where there are any;
         skipped, updates that were left out as not finite (train.on_nan=skip), where there are any
  eval   step, epoch, loss (null: not finite), error, images
  nan    step          the first step whose loss was not finite
  end    step
Each says wall_s, the seconds of all launches, of each up to its last line that stands. Errors are fractions, losses
nats; train lines are means since the line before (null: all was skipped). starts.jsonl has a line a launch.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import tqdm
from tensorboardX import SummaryWriter

from cnn_jax.config import RUNTIME_FIELDS, Experiment, find_differences
from cnn_jax.config_file import from_json, to_json
from cnn_jax.errors import UserError
from cnn_jax.files import write_whole

Write = Callable[..., None]


def run_folder(experiment: Experiment, workdir: str | Path) -> Path:
    """Where a run's files lie: <workdir>/<run>/seed<k>."""
    return Path(workdir) / experiment.name / f"seed{experiment.seed}"


def check_folder(experiment: Experiment, folder: Path) -> None:
    """Raises UserError if the folder holds another configuration."""
    path = folder / "config.json"
    try:
        there = from_json(path.read_text()) if path.exists() else experiment
    except UserError as e:
        raise UserError(f"{folder}: {e}: choose another --workdir") from None
    if changed := find_differences(there, experiment, RUNTIME_FIELDS):
        raise UserError(
            f"{folder} holds another configuration ({'; '.join(changed)}):"
            " choose another --workdir, or repeat the flags it was made with"
        )


def write_config(experiment: Experiment, folder: Path) -> None:
    """Makes the folder this run's by its config.json; raises UserError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").exists():
            write_whole(folder / "config.json", to_json(experiment))
    except OSError as e:
        raise UserError(f"cannot write to {folder} ({e.strerror}): choose another --workdir") from None


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run so far; a last line torn by a crash is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is empty or torn


def read_result(folder: Path) -> dict[str, Any] | None:
    """The last evaluation of a run that has ended, else None."""
    seen = read_events(folder)
    if not seen or seen[-1]["event"] != "end":
        return None
    return [e for e in seen if e["event"] == "eval"][-1]


@contextlib.contextmanager
def open_log(
    experiment: Experiment, folder: Path, step: int, evaluated: bool = True
) -> Iterator[tuple[Write, tqdm.tqdm]]:
    """(write, bar) of a run that starts at `step`: lines of later steps, from before a cut, are forgotten.

    evaluated: whether the state has seen the evaluation at this step; else its line is forgotten too.
    write(event, **fields) appends a line to metrics.jsonl, at once on disk, and its numbers to TensorBoard.
    """
    last = {"train"} | ({"eval"} if evaluated else set())
    kept = [e for e in read_events(folder) if e["step"] < step or (e["step"] == step and e["event"] in last)]
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(e) + "\n" for e in kept))
    starts = folder / "starts.jsonl"
    launches = starts.read_text() if starts.exists() else ""
    write_whole(starts, launches + json.dumps({"step": step, **describe_environment()}) + "\n")
    # The step is part of the file's name: two launches within a second are two files.
    own = f".{step:010d}"
    board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, filename_suffix=own)
    label = f"{experiment.name} seed {experiment.seed}"
    bar = tqdm.tqdm(total=experiment.train.steps, initial=step, desc=label, unit="step", disable=None)
    before, began = kept[-1].get("wall_s", 0.0) if kept else 0.0, time.perf_counter()
    with open(folder / "metrics.jsonl", "a") as lines, board, bar:

        def write(event: str, **fields: float | None) -> None:
            fields["wall_s"] = round(before + time.perf_counter() - began, 3)
            lines.write(json.dumps({"event": event, **fields}) + "\n")
            lines.flush()
            os.fsync(lines.fileno())  # before a checkpoint that is later than the line
            for name in [n for n in fields if n not in ("step", "epoch", "wall_s") and fields[n] is not None]:
                board.add_scalar(f"{event}/{name}", fields[name], fields["step"])
            if event in ("eval", "nan"):
                board.flush()
            if event == "eval" and not sys.stderr.isatty():  # a log file gets a line now and then, no bar
                not_finite = ", loss not finite" if fields["loss"] is None else ""
                error = f"{error_words(fields)}{not_finite}"
                print(f"{label}: step {fields['step']}/{bar.total}, {error}", flush=True)

        yield write, bar


@contextlib.contextmanager
def null_log() -> Iterator[tuple[Write, tqdm.tqdm]]:
    """The (write, bar) of a process that leaves writing to the first one."""
    with tqdm.tqdm(disable=True) as bar:
        yield lambda event, **fields: None, bar


def error_words(fields: dict[str, Any]) -> str:
    """Returns 'test error 8.75%' of an evaluation, or 'reconstruction error 0.123'."""
    name = next((k for k in fields if k.endswith("_error")), "top1_error")
    value = fields.get(name)
    if value is None:
        return f"{name.replace('_', ' ')} not finite"
    if name == "top1_error":
        return f"test error {value:.2%}"
    return f"{name.replace('_', ' ')} {value:.4g}"


def describe_environment() -> dict[str, Any]:
    """When, where and with what a run is started: time (UTC), commit, hardware, versions."""
    devices = jax.devices()
    kind = _cpu() if devices[0].platform == "cpu" else devices[0].device_kind
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": find_commit(),
        "hardware": f"{len(devices)} x {kind}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("jax", "flax", "optax")},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU ({line.partition(':')[2].strip()}, {os.cpu_count()} cores)"
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


def find_commit() -> str:
    """The code's commit, with '+changes' if files differ from it; 'unknown' outside of a git checkout."""
    here = Path(__file__).parent
    git = lambda *words: subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout  # noqa: E731
    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else the checkout around us is another project's
        return git("rev-parse", "--short=10", "HEAD").strip() + (
            "+changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
