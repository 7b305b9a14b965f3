"""The log of a run: metrics.jsonl, starts.jsonl, TensorBoard's files, and a progress bar.

metrics.jsonl has one line per event. Interruptions of the run do not change its lines:
  train  step, epoch, loss, error, lr, images_per_s, data_time, step_time (both seconds per step);
         bad_images, the number that could not be decoded since the last line, if not 0;
         skipped, the number of updates that were not finite (train.on_nan=skip), if not 0
  eval   step, epoch, loss (null: not finite), error, images
  nan    step          the first step whose loss was not finite, at which the run ended
  stop   step, best_step  the run ended before its last step (train.stop_after), and keeps the state
         of best_step
  end    step; with train.stop_after also best_step, as in stop
`error` stands for the name of the model's error: top1_error (from 0 to 1) or reconstruction_error.
Losses are in nats. The loss and the error of a train line are means since the last line (null:
every update was skipped). Each line has `wall_s`, the seconds of all launches so far, of which one
that was cut off counts up to its last line that was kept. starts.jsonl has one line per launch.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tqdm

from cnn_jax import file_names, notebook
from cnn_jax.config import Experiment
from cnn_jax.errors import explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.training import tensorboard
from cnn_jax.training.environment import describe_environment

Write = Callable[..., None]
EVENTS = ("train", "eval", "nan", "stop", "end")  # The events of metrics.jsonl.


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Returns the events of a run so far, without incomplete or damaged lines.

    `open_log` reports the number of damaged lines when the run continues.

    Args:
      folder: The run's folder.

    Raises:
      UserError: If the file cannot be read.
    """
    return _read_log(folder)[0]


def _read_log(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns (events, number of damaged lines); an incomplete last line does not count."""
    path = folder / file_names.METRICS
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
    """Returns the last evaluation of a run that has ended, or None if the run has not ended.

    With train.stop_after it returns the evaluation of the state that is kept.

    Args:
      folder: The run's folder.
      steps: Number of steps of the finished run; None: any number.
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


def find_last_evaluated_step(folder: Path) -> int:
    """Returns the step of the last evaluation in a run's metrics, or 0."""
    return max((e["step"] for e in read_events(folder) if e["event"] == "eval"), default=0)


@contextlib.contextmanager
def open_log(
    experiment: Experiment, folder: Path, step: int, evaluated: bool = True
) -> Iterator[tuple[Write, tqdm.tqdm]]:
    """Opens the log of a run. Lines of later steps, from before an interruption, are deleted.

    Args:
      experiment: The run.
      folder: The run's folder.
      step: The step at which the run starts or continues.
      evaluated: Whether the state includes the evaluation at this step. If not, the line of that
        evaluation is deleted too.

    Yields:
      (write, bar). write(event, **fields) appends a line to metrics.jsonl, waits until it is on the
      disk, and passes its numbers to TensorBoard; bar is the progress bar.

    Raises:
      OSError: If a file cannot be written.
    """
    last = {"train"} | ({"eval"} if evaluated else set())
    events, damaged = _read_log(folder)
    if damaged:
        kept_as = folder / file_names.DAMAGED_METRICS
        shutil.copyfile(folder / file_names.METRICS, kept_as)
        print(
            f"{folder / file_names.METRICS}: {damaged} damaged lines are left out; they are kept in"
            f" {kept_as.name}",
            file=sys.stderr,
        )
    kept = [e for e in events if e["step"] < step or (e["step"] == step and e["event"] in last)]
    write_whole(folder / file_names.METRICS, "".join(json.dumps(e) + "\n" for e in kept))
    starts = folder / file_names.STARTS
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
        open(folder / file_names.METRICS, "a") as lines,
        tensorboard.open_events(folder / file_names.TENSORBOARD, step) as write_events,
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
                error = f"{describe_error(fields)}{not_finite}"
                print(f"{label}: step {fields['step']}/{bar.total}, {error}", flush=True)

        yield write, bar


def _make_bar(steps: int, step: int, label: str) -> tqdm.tqdm:
    """Returns a run's progress bar: a widget in a notebook, elsewhere a line if on a terminal."""
    options: dict[str, Any] = {"total": steps, "initial": step, "desc": label, "unit": "step"}
    if notebook.shows_widgets():
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(**options)
    return tqdm.tqdm(**options, disable=None)


@contextlib.contextmanager
def open_null_log() -> Iterator[tuple[Write, tqdm.tqdm]]:
    """Opens the log of a process that writes nothing, because the first process does.

    Yields:
      (write, bar) as `open_log` does; `write` has no effect, and the bar is not shown.
    """
    with tqdm.tqdm(disable=True) as bar:
        yield lambda event, **fields: None, bar


def describe_error(fields: dict[str, Any]) -> str:
    """Returns the result of a run in words.

    Args:
      fields: The fields of an `eval` event, or the result of `train.run`.

    Returns:
      Such as 'test error 8.75%', 'reconstruction error 0.123', or 'diverged at step 12'.
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
