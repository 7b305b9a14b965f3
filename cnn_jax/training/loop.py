"""The training loop: next batch, step, log, evaluate, save.

`multi_seed` joins several seeds in one program, `divergence` finds losses that are not finite, and
`watchdog` notices signals; `save_and_stop` is what follows a signal.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import tqdm

from cnn_jax.config import Experiment
from cnn_jax.cpu import memory
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.optim import observe_error, ran_out_of_patience, read_current_rate
from cnn_jax.training import checkpoint, divergence, early_stopping, layer_log, metrics_log
from cnn_jax.training.program import TrainProgram
from cnn_jax.training.state import State
from cnn_jax.training.steps_per_call import (
    MIN_MEASURED_STEPS,
    choose_steps_per_call,
    count_steps,
)
from cnn_jax.training.watchdog import StopError, Watch

REDRAW_SECONDS = 0.5  # Between two waits for the device, so that the progress bar moves.


@dataclass
class SeedRun:
    """One seed of a run: its state, its checkpoints and its log.

    Attributes:
      experiment: With the seed.
      checkpoints: Its checkpoints.
      write: Appends a line to its metrics.
      bar: Its progress bar.
      state: Its state at the last log line.
      logged: The step of the last evaluation in its metrics; 0: none.
      folder: Where its layers are written; None: another process writes.
      failure: Why it failed before its last step; None: it did not.
      stopped: Whether it stopped early, at its best.
    """

    experiment: Experiment
    checkpoints: ocp.CheckpointManager
    write: metrics_log.Write
    bar: tqdm.tqdm
    state: State
    logged: int = 0
    folder: Path | None = None
    failure: UserError | None = None
    stopped: bool = False

    @property
    def ended(self) -> bool:
        """Whether it has ended. Steps that are computed for other seeds then do not change it."""
        return self.stopped or self.failure is not None


class Due(NamedTuple):
    """What is due after a step."""

    log: bool
    evaluate: bool
    save: bool
    measure: bool


def find_due(step: int, experiment: Experiment, until: int) -> Due:
    """Returns what is due after a step. A step that measures layers or saves also logs a line.

    So a log interval holds training and nothing else. If a run pauses at `until` only so that other
    seeds catch up, the state is saved but no line is logged. A run without a pause has no line
    there either.
    """
    train = experiment.train
    evaluate = step % train.eval_every == 0 or step == train.steps
    save = evaluate or step % train.save_every == 0
    measure = step in experiment.log.layer_statistics
    log = save or measure or step % train.log_every == 0
    return Due(log, evaluate, save or step == until, measure)


def run_loop(
    program: TrainProgram, runs: list[SeedRun], until: int, watch: Watch
) -> dict[int, UserError]:
    """Trains from the runs' step to `until`.

    Args:
      program: The compiled step, the evaluation and the batches.
      runs: The seeds, all at the same step.
      until: The last step.
      watch: Records each phase and reports requests to stop.

    Returns:
      {seed: why it ended before the others}.

    Raises:
      StoppedError: If a signal ended the run; it is saved.
    """
    experiment = runs[0].experiment
    done = int(runs[0].state.step)
    try:
        measure_if_missed(program, runs, find_due(done, experiment, until), watch)
        evaluate_if_missed(program, runs, find_due(done, experiment, until), watch)
    except StopError as signal:
        save_and_stop(runs, signal)
    for run in runs:
        stop_if_due(run, done)
    state = program.join([run.state for run in runs])
    batches = program.batches(done)
    timer, trimmer = IntervalTimer(done), memory.Trimmer()

    def ends_call(step: int) -> bool:
        return any(find_due(step, experiment, until))

    step, size, chosen = done, 1, program.steps_per_call  # The first call makes one step.
    compiled = set[int]()  # The numbers of steps for which a call is compiled.
    while step < until and not all(run.ended for run in runs):
        count = count_steps(step, until, size, ends_call)
        compiles = count not in compiled
        compiled.add(count)
        phase = "compile" if compiles else "step"
        taken = take_batches(program, runs, state, batches, count, timer, watch, phase)
        if count > 1:  # Calls that wait for a device would keep a signal waiting.
            jax.block_until_ready(state)
        state = program.advance(state, taken)
        trimmer.after_call(state)
        step += count

        due = find_due(step, experiment, until)
        if any(due) or compiles or timer.should_redraw():
            wait_and_draw(state, runs, step, timer)
            measured = step - timer.first
            if not chosen and not compiles and measured >= MIN_MEASURED_STEPS:
                step_seconds = timer.seconds() / measured
                chosen = choose_steps_per_call(step_seconds, step, until, ends_call)
        size = chosen or 1
        if any(due):
            take_states(program, runs, state)
            for run in runs:
                log_step(program, run, step, due, timer)
            try:
                for run in runs:
                    finish_step(program, run, step, due, watch)
            except StopError as signal:
                save_and_stop(runs, signal)
            state = program.join([run.state for run in runs])
        if any(due) or compiles:  # A call that compiles does not count.
            timer.restart(step)
        if step < until and (signal := watch.stop_requested()):
            take_states(program, runs, state)
            save_and_stop(runs, signal)
    close(batches)
    failed = finish(runs, until, watch)
    if signal := watch.stop_requested():  # It came in the last step, or while that was saved.
        raise StoppedError(
            f"stopped by {signal} after step {step}, where this run ends or pauses and is saved;"
            " the same command continues from there"
        )
    return failed


def take_batches(
    program: TrainProgram,
    runs: list[SeedRun],
    state: Any,
    batches: Any,
    count: int,
    timer: "IntervalTimer",
    watch: Watch,
    phase: str,
) -> list[Any]:
    """Returns the next `count` batches and measures the wait for them."""
    start = time.perf_counter()
    try:
        watch.enter("data")
        taken = [next(batches) for _ in range(count)]
        watch.enter(phase)
    except StopError as signal:
        take_states(program, runs, state)
        save_and_stop(runs, signal)
    timer.waited += time.perf_counter() - start
    return taken


def take_states(program: TrainProgram, runs: list[SeedRun], state: Any) -> None:
    """Gives each seed its own state."""
    for run, own in zip(runs, program.split(state), strict=True):
        run.state = own


def log_step(
    program: TrainProgram, run: SeedRun, step: int, due: Due, timer: "IntervalTimer"
) -> None:
    """Logs one seed after a step, if that is due, or ends it if its loss is not finite."""
    if run.ended:
        return
    if (bad := divergence.find_bad_step(run.state, run.experiment, step)) is not None:
        run.failure = divergence.end_run(bad, run.experiment, run.checkpoints, run.write)
    elif due.log:
        run.state = log_interval(program, run, step, timer)


def finish_step(program: TrainProgram, run: SeedRun, step: int, due: Due, watch: Watch) -> None:
    """Measures, evaluates, saves or stops one seed after a step, if that is due.

    Raises:
      StopError: If a signal asks to stop meanwhile. What is left is done when the run continues.
    """
    if run.ended:
        return
    if due.measure:
        measure_layers(program, run, step, watch)
    if due.evaluate:
        evaluate_and_save(program, run, step, watch)
        stop_if_due(run, step)
    elif due.save:
        watch.enter("save")
        checkpoint.save(run.checkpoints, run.state, None)


def stop_if_due(run: SeedRun, step: int) -> None:
    """Ends a run whose error has not fallen for train.stop_after evaluations."""
    if ran_out_of_patience(run.state.opt):
        early_stopping.end_run("stop", step, run.checkpoints, run.write)
        run.stopped = True


def describe_progress(program: TrainProgram, run: SeedRun, step: int) -> dict[str, float]:
    """Returns {step, epoch}."""
    images = step * run.experiment.data.batch_size
    return {"step": step, "epoch": round(images / program.images_per_epoch, 4)}


def log_interval(program: TrainProgram, run: SeedRun, step: int, timer: "IntervalTimer") -> State:
    """Writes the means since the last line; returns the state with its sums at zero."""
    sums = run.state.sums
    count = int(sums["steps"])
    loss, error = (float(sums[k]) / count if count else None for k in ("loss", "error"))
    counts = {k: n for k in ("bad_images", "skipped") if (n := int(sums[k]))}
    steps, seconds = step - timer.first, timer.seconds()
    images_per_s = steps * run.experiment.data.batch_size / seconds
    run.write(
        "train",
        **describe_progress(program, run, step),
        loss=loss,
        **{program.error_name: error},
        **counts,
        lr=float(read_current_rate(run.state.opt)),
        images_per_s=images_per_s,
        data_time=timer.waited / steps,
        step_time=seconds / steps,
    )
    shown = f"{error or 0:.1%}" if program.error_name == "top1_error" else f"{error or 0:.3g}"
    run.bar.set_postfix_str(
        f"error {shown}, {images_per_s:.0f} images/s, data wait {timer.waited / seconds:.0%}"
    )
    # zeros_like leaves them where they lie: a new layout would compile the step again.
    return run.state.replace(sums=jax.tree.map(jnp.zeros_like, sums))


def evaluate_and_save(program: TrainProgram, run: SeedRun, step: int, watch: Watch) -> None:
    """Evaluates the single view, passes the error to the optimizer, logs it and saves the state."""
    watch.enter("evaluate")
    metrics = program.evaluate(run.state)
    watch.enter("save")
    seen = log_evaluation(program, run, step, metrics)
    run.state = run.state.replace(opt=observe_error(run.state.opt, seen))
    checkpoint.save(run.checkpoints, run.state, seen)


def log_evaluation(
    program: TrainProgram, run: SeedRun, step: int, metrics: dict[str, float]
) -> float:
    """Writes an evaluation; returns its error, infinite if it is not finite."""
    # Batch norm's averages may be far off after few steps: the run goes on, and JSON has no NaN.
    metrics = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
    error = metrics[program.error_name]
    run.write("eval", **describe_progress(program, run, step), **metrics)
    return math.inf if error is None else error


def measure_layers(program: TrainProgram, run: SeedRun, step: int, watch: Watch) -> None:
    """Writes the statistics of every layer after a step."""
    watch.enter("evaluate")
    assert program.measure_layers is not None  # It is due only in runs that measure.
    measured = program.measure_layers(run.state, run.experiment.seed)
    watch.enter("save")
    if run.folder:
        layer_log.append_line(run.folder, step, measured)


def measure_if_missed(program: TrainProgram, runs: list[SeedRun], due: Due, watch: Watch) -> None:
    """Measures the layers of runs before their first step, or if the line with them was lost."""
    for run in runs:
        step = int(run.state.step)
        there = layer_log.open_lines(run.folder, step) if run.folder else set()
        if due.measure and step not in there:
            measure_layers(program, run, step, watch)


def evaluate_if_missed(program: TrainProgram, runs: list[SeedRun], due: Due, watch: Watch) -> None:
    """Evaluates runs that were stopped between a step and its evaluation.

    If a saved state was evaluated but the line of that evaluation was damaged, it is evaluated
    again to rewrite the line. Nothing else changes.
    """
    for run in runs:
        step = int(run.state.step)
        if not step or not due.evaluate:
            continue
        if not checkpoint.was_evaluated(run.checkpoints, step):
            evaluate_and_save(program, run, step, watch)
        elif run.logged < step:
            watch.enter("evaluate")
            metrics = program.evaluate(run.state)
            watch.enter("save")
            log_evaluation(program, run, step, metrics)


def wait_and_draw(state: Any, runs: list[SeedRun], step: int, timer: "IntervalTimer") -> None:
    """Waits for the device - seldom enough to keep it busy - and moves the progress bars."""
    jax.block_until_ready(state)
    for run in runs:
        run.bar.update(step - run.bar.n)
    timer.drawn = time.perf_counter()


def save_and_stop(runs: list[SeedRun], signal: object) -> NoReturn:
    """Saves the runs that are not saved at this step, and raises StoppedError.

    Where evaluations at this step are missing, `evaluate_if_missed` makes them when the run is
    continued. Nothing is logged: the sums of the log interval are part of the state and go on then.
    """
    for run in runs:
        step = int(run.state.step)
        good = int(run.state.nan_step) < 0 or run.experiment.train.on_nan == "skip"
        if step and good and not run.ended and step not in run.checkpoints.all_steps():
            checkpoint.save(run.checkpoints, run.state, None)
        checkpoint.wait(run.checkpoints)
    raise StoppedError(
        f"stopped by {signal} at step {step}, which is saved; the same command continues from there"
    )


def close(batches: Any) -> None:
    """Ends the processes that decode, if there are any."""
    if hasattr(batches, "close"):
        batches.close()


def finish(runs: list[SeedRun], until: int, watch: Watch) -> dict[int, UserError]:
    """Waits for what is being saved, and marks finished runs; returns the failed ones by seed."""
    watch.enter("save")
    for run in runs:
        checkpoint.wait(run.checkpoints)
        if until < run.experiment.train.steps or run.ended:
            continue
        if run.experiment.train.stop_after:
            early_stopping.end_run("end", until, run.checkpoints, run.write)
        else:
            run.write("end", step=until)
    return {run.experiment.seed: run.failure for run in runs if run.failure}


class IntervalTimer:
    """Measures the steps since the last log line.

    Attributes:
      first: The step after which the interval began.
      waited: Seconds of it in which the step waited for data.
      drawn: When the progress bar was last drawn.
    """

    def __init__(self, step: int) -> None:
        self.restart(step)
        self.drawn = self.start

    def restart(self, step: int) -> None:
        """Begins an interval after this step."""
        self.first, self.waited, self.start = step, 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Returns the interval's length so far."""
        return time.perf_counter() - self.start

    def should_redraw(self) -> bool:
        """Returns whether the progress bar has not moved for a while."""
        return time.perf_counter() - self.drawn > REDRAW_SECONDS
