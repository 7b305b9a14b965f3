"""The files of a run for people and for the report.

That is config.json, starts.jsonl, metrics.jsonl, TensorBoard's files, and a bar.

metrics.jsonl has a line an event, the same lines however often the run was cut off and continued:
  train  step, epoch, loss, error, lr, images_per_s, data_time, step_time (seconds a step);
         bad_images, those that could not be decoded since the line before, where there are any;
         skipped, updates that were left out as not finite (train.on_nan=skip), where there are any
  eval   step, epoch, loss (null: not finite), error, images
  nan    step          the first step whose loss was not finite, at which the run ended
  stop   step, best_step  the run ended before its last step (train.stop_after), and keeps the state
         of best_step
  end    step; with train.stop_after best_step, as of stop
Each says wall_s, the seconds of all launches, of each up to its last line that stands. Errors are
fractions, losses nats; train lines are means since the line before (null: all was skipped).
starts.jsonl has a line a launch.
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import tqdm

from cnn_jax import notebook
from cnn_jax.config import RUNTIME_FIELDS, Experiment, find_differences
from cnn_jax.config_file import read_config, to_json
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.optim import schedule_depends_on_steps
from cnn_jax.text import printable
from cnn_jax.training import run_lock, tensorboard
from cnn_jax.training.components import complete

Write = Callable[..., None]
# What may not change of data.json while a run is trained.
DATA_FIELDS = ("train_images", "test_images", "num_classes", "class_names", "checksum")
EVENTS = ("train", "eval", "nan", "stop", "end")  # Of metrics.jsonl.
RUN_FILES = (
    "config.json",
    "data.json",
    "starts.jsonl",
    "metrics.jsonl",
    "metrics.damaged.jsonl",
    "layers.jsonl",
    "digests.json",
    "checkpoints",
    "damaged_checkpoints",
    "evaluations",
    "tensorboard",
    "profile",
)


def run_folder(experiment: Experiment, workdir: str | Path) -> Path:
    """Returns a run's folder: <workdir>/<run>/seed<k>."""
    return Path(workdir) / experiment.name / f"seed{experiment.seed}"


def check_folder(experiment: Experiment, folder: Path) -> None:
    """Raises UserError if the folder holds another configuration.

    More steps are allowed: they continue the run.
    """
    there = read_config_there(folder)
    if there is None or is_continued(there, experiment):
        return
    if changed := find_differences(there, experiment, RUNTIME_FIELDS):
        raise UserError(
            f"{folder} holds another configuration ({'; '.join(changed)}): choose another workdir,"
            " repeat the flags it was made with, or start anew with --overwrite"
        )


def read_config_there(folder: Path) -> Experiment | None:
    """Returns the configuration of a run's folder; None: there is no run.

    Options of the optimizer and the schedule that came after the run was started are at their
    defaults, which are what was done before them.

    Raises:
      UserError: If config.json cannot be read.
    """
    path = folder / "config.json"
    with explain_os_errors(f"{path} cannot be read", "choose another workdir"):
        there = read_config(path) if path.exists() else None
    with contextlib.suppress(UserError):  # It has another version and therefore differs.
        return complete(there) if there else None
    return there


def is_continued(old: Experiment, new: Experiment) -> bool:
    """Returns whether an experiment differs from another only in that it has more steps."""
    longer = dataclasses.replace(old, train=dataclasses.replace(old.train, steps=new.train.steps))
    more = new.train.steps > old.train.steps
    return more and not find_differences(longer, new, RUNTIME_FIELDS)


def write_config(experiment: Experiment, folder: Path) -> None:
    """Writes config.json, which makes the folder this run's.

    Raises:
      UserError: If it cannot be written.
    """
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        there = read_config_there(folder)
        if there is None:
            write_whole(folder / "config.json", to_json(experiment))
        elif is_continued(there, experiment):
            write_whole(folder / "config.json", to_json(_with_deviation(there, experiment)))


def check_data(
    description: dict[str, Any], folder: Path, fields: Sequence[str] = DATA_FIELDS
) -> None:
    """Checks that the data set of a run is the one that it was trained on.

    Args:
      description: Of `cnn_jax.data.describe_dataset`.
      folder: The run's folder. A description in it that is missing or damaged is not compared.
      fields: What is compared.

    Raises:
      UserError: If the data set has changed.
    """
    try:
        there = json.loads((folder / "data.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(there, dict):
        return
    for name in fields:
        if name in there and there[name] != description[name]:
            before, now = (printable(str(each[name]))[:100] for each in (there, description))
            raise UserError(
                f"the data set is another one than {folder} was trained on ({name}: {before} then,"
                f" {now} now): restore it, or start anew with --overwrite or another workdir; if"
                f" only {folder / 'data.json'} is damaged, delete that file"
            )


def write_data(description: dict[str, Any], folder: Path) -> None:
    """Writes data.json, the description of the data set.

    Args:
      description: Of `cnn_jax.data.describe_dataset`.
      folder: The run's folder.

    Raises:
      UserError: If it cannot be written.
    """
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        write_whole(folder / "data.json", json.dumps(description, indent=2) + "\n")


def _with_deviation(old: Experiment, new: Experiment) -> Experiment:
    """Returns the longer run with what a run of so many steps from the start would do otherwise."""
    before, after = old.train.steps, new.train.steps
    words = []
    if schedule_depends_on_steps(new.schedule, before, after):
        words.append(
            f"its learning rates to step {before:,} are those of a run of {before:,} steps"
        )
    if new.schedule.name == "plateau" and before % new.train.eval_every:
        words.append(f"its plateau schedule has also seen an evaluation at step {before:,}")
    said = tuple(f"Continued from {before:,} to {after:,} steps: {each}" for each in words)
    kept = tuple(each for each in old.deviations if each.startswith("Continued from "))
    return dataclasses.replace(
        new, deviations=tuple(dict.fromkeys((*new.deviations, *kept, *said)))
    )


def erase_run(folder: Path) -> None:
    """Deletes a run's own files in its folder, and nothing else.

    Raises:
      UserError: If another process uses the folder, or a file cannot be deleted.
    """
    if not folder.exists():
        return
    with explain_os_errors(f"cannot delete the run in {folder}"), run_lock.hold(folder):
        for name in RUN_FILES:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Returns the events of a run so far, without incomplete or damaged lines.

    `open_log` reports the number of damaged lines when the run continues.

    Raises:
      UserError: If the file cannot be read.
    """
    return _read_log(folder)[0]


def _read_log(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns (events, number of damaged lines); an incomplete last line does not count."""
    path = folder / "metrics.jsonl"
    with explain_os_errors(f"{path} cannot be read"):
        # The text after the last newline is empty or an incomplete line.
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    events = [event for line in lines if (event := _parse_event(line)) is not None]
    return events, len(lines) - len(events)


def _parse_event(line: bytes) -> dict[str, Any] | None:
    """Returns the event of a line of metrics.jsonl, or None if it is damaged."""
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors.
        return None
    if not isinstance(event, dict) or event.get("event") not in EVENTS:
        return None
    step = event.get("step")
    if type(step) is not int or step < 0:
        return None
    numbers = [value for name, value in event.items() if name != "event"]
    if not all(value is None or type(value) in (int, float) for value in numbers):
        return None
    if event["event"] == "eval" and not any(name.endswith("_error") for name in event):
        return None
    return event


def read_result(folder: Path, steps: int | None = None) -> dict[str, Any] | None:
    """Returns the last evaluation of a run that has ended, else None.

    Of a run with train.stop_after it is that of the state that is kept.

    Args:
      folder: The run's folder.
      steps: The steps that it must have; None: any number.
    """
    seen = read_events(folder)
    if not seen:
        return None
    end = seen[-1]
    stopped = end["event"] == "stop"
    if not stopped and (end["event"] != "end" or steps not in (None, end["step"])):
        return None
    kept = end.get("best_step", end["step"])
    # If that evaluation's line is damaged, the run is not done and is evaluated again.
    found = [e for e in seen if e["event"] == "eval" and e["step"] == kept]
    return found[-1] if found else None


def last_evaluation(folder: Path) -> int:
    """Returns the step of the last evaluation in a run's metrics, or 0."""
    return max((e["step"] for e in read_events(folder) if e["event"] == "eval"), default=0)


@contextlib.contextmanager
def open_log(
    experiment: Experiment, folder: Path, step: int, evaluated: bool = True
) -> Iterator[tuple[Write, tqdm.tqdm]]:
    """Opens the log of a run that starts at `step`; returns (write, bar).

    Lines of later steps, from before an interruption, are dropped. evaluated: whether the state
    includes the evaluation at this step; otherwise its line is dropped too. write(event, **fields)
    appends a line to metrics.jsonl, at once on disk, and its numbers to TensorBoard.

    Raises:
      OSError: If a file cannot be written.
    """
    last = {"train"} | ({"eval"} if evaluated else set())
    events, damaged = _read_log(folder)
    if damaged:
        kept_as = folder / "metrics.damaged.jsonl"
        shutil.copyfile(folder / "metrics.jsonl", kept_as)
        print(
            f"{folder / 'metrics.jsonl'}: {damaged} damaged lines are left out; they are kept in"
            f" {kept_as.name}",
            file=sys.stderr,
        )
    kept = [e for e in events if e["step"] < step or (e["step"] == step and e["event"] in last)]
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(e) + "\n" for e in kept))
    starts = folder / "starts.jsonl"
    launches = starts.read_bytes() if starts.exists() else b""
    if launches and not launches.endswith(b"\n"):
        launches += b"\n"  # Its last line was incomplete.
    started = {"step": step, "steps": experiment.train.steps, **describe_environment()}
    write_whole(starts, launches + json.dumps(started).encode() + b"\n")
    label = f"{experiment.name} seed {experiment.seed}"
    bar = _make_bar(experiment.train.steps, step, label)
    before = kept[-1].get("wall_s") or 0.0 if kept else 0.0
    began = time.perf_counter()
    with (
        open(folder / "metrics.jsonl", "a") as lines,
        tensorboard.open_events(folder / "tensorboard", step) as write_events,
        bar,
    ):

        def write(event: str, **fields: float | None) -> None:
            fields["wall_s"] = round(before + time.perf_counter() - began, 3)
            lines.write(json.dumps({"event": event, **fields}) + "\n")
            lines.flush()
            os.fsync(lines.fileno())  # before a checkpoint that is later than the line
            numbers = {
                f"{event}/{name}": number
                for name, number in fields.items()
                if name not in ("step", "epoch", "wall_s") and number is not None
            }
            write_events(numbers, int(fields["step"] or 0))
            # A log file gets occasional lines instead of a bar.
            if event == "eval" and not sys.stderr.isatty():
                not_finite = ", loss not finite" if fields["loss"] is None else ""
                error = f"{error_words(fields)}{not_finite}"
                print(f"{label}: step {fields['step']}/{bar.total}, {error}", flush=True)

        yield write, bar


def _make_bar(steps: int, step: int, label: str) -> tqdm.tqdm:
    """Returns a run's bar: a widget in a notebook, else a line on terminals alone."""
    options: dict[str, Any] = {"total": steps, "initial": step, "desc": label, "unit": "step"}
    if notebook.shows_widgets():
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(**options)
    return tqdm.tqdm(**options, disable=None)


@contextlib.contextmanager
def null_log() -> Iterator[tuple[Write, tqdm.tqdm]]:
    """Returns the (write, bar) of a process that writes nothing, as the first one does."""
    with tqdm.tqdm(disable=True) as bar:
        yield lambda event, **fields: None, bar


def error_words(fields: dict[str, Any]) -> str:
    """Returns 'test error 8.75%' of an evaluation, or 'reconstruction error 0.123'.

    For a run that has diverged, as returned by `train.run`: 'diverged at step 12'.
    """
    if "diverged" in fields:
        return f"diverged at step {fields['diverged']:,}"
    name = next((k for k in fields if k.endswith("_error")), "top1_error")
    value = fields.get(name)
    if value is None:
        return f"{name.replace('_', ' ')} not finite"
    if name == "top1_error":
        return f"test error {value:.2%}"
    return f"{name.replace('_', ' ')} {value:.4g}"


def describe_environment() -> dict[str, Any]:
    """Returns the time (UTC), commit, hardware and versions with which a run is started."""
    devices = jax.devices()
    kind = _cpu() if devices[0].platform == "cpu" else devices[0].device_kind
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": find_commit(),
        "hardware": f"{len(devices)} x {kind}",
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("jax", "flax", "optax")},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU ({line.partition(':')[2].strip()}, {os.cpu_count()} cores)"
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


def find_commit() -> str:
    """Returns the code's commit, '+changes' if files differ; 'unknown' without a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        # Otherwise the surrounding checkout belongs to another project.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "--short=10", "HEAD").strip() + (
            "+changes" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
