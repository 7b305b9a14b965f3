"""Logs, measures, evaluates and saves one seed of a run after a step of the training loop.

`divergence` finds losses that are not finite.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import tqdm

from cnn_jax.config import Experiment
from cnn_jax.errors import UserError
from cnn_jax.optim import observe_error, ran_out_of_patience, read_current_rate
from cnn_jax.training import checkpoint, divergence, early_stopping, layer_log, metrics_log
from cnn_jax.training.interval_timer import IntervalTimer
from cnn_jax.training.program import TrainProgram
from cnn_jax.training.state import State
from cnn_jax.training.watchdog import Watch


@dataclass
class SeedRun:
    """One seed of a run: its state, its checkpoints and its log.

    Attributes:
      experiment: The run with this seed.
      checkpoints: The seed's checkpoints.
      write: Appends a line to the seed's metrics.
      bar: The seed's progress bar.
      state: The seed's state, as of the last step after which something was due.
      logged: The step of the last evaluation in the seed's metrics; 0: none.
      folder: The seed's folder, for layers.jsonl; None: another process writes the files.
      failure: The error that ended the seed before its last step; None: there was none.
      stopped: Whether early stopping has ended the seed (train.stop_after).
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
        """Whether the seed has ended. Further steps are then computed for other seeds only."""
        return self.stopped or self.failure is not None


class Due(NamedTuple):
    """What is due after a step: a log line, an evaluation, a save, statistics of the layers."""

    log: bool
    evaluate: bool
    save: bool
    measure: bool


def find_due(step: int, experiment: Experiment, until: int) -> Due:
    """Returns what is due after a step.

    A line is logged after every step that measures layers, evaluates or saves, so that the time of
    a log interval is that of training alone. If a run pauses at `until` only to let other seeds
    catch up, its state is saved but no line is logged, because a run without a pause has none.

    Args:
      step: Number of steps done.
      experiment: The run.
      until: The step at which the training ends or pauses.
    """
    train = experiment.train
    evaluate = step % train.eval_every == 0 or step == train.steps
    save = evaluate or step % train.save_every == 0
    measure = step in experiment.log.layer_statistics
    log = save or measure or step % train.log_every == 0
    return Due(log, evaluate, save or step == until, measure)


def log_step(
    program: TrainProgram, run: SeedRun, step: int, due: Due, timer: IntervalTimer
) -> None:
    """Logs a line of one seed if that is due, or ends the seed if its loss is not finite.

    Args:
      program: The run's program.
      run: The seed, at this step.
      step: Number of steps done.
      due: What is due after the step.
      timer: The time since the last line.
    """
    if run.ended:
        return
    if (bad := divergence.find_bad_step(run.state, run.experiment, step)) is not None:
        run.failure = divergence.end_diverged_run(bad, run.experiment, run.checkpoints, run.write)
    elif due.log:
        run.state = log_interval(program, run, step, timer)


def finish_step(program: TrainProgram, run: SeedRun, step: int, due: Due, watch: Watch) -> None:
    """Measures, evaluates and saves one seed after a step as far as that is due, or stops it early.

    Args:
      program: The run's program.
      run: The seed, at this step.
      step: Number of steps done.
      due: What is due after the step.
      watch: Records each phase.

    Raises:
      StopError: If a signal asks to stop meanwhile. The rest is done when the run continues.
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
        early_stopping.end_at_best_state("stop", step, run.checkpoints, run.write)
        run.stopped = True


def describe_progress(program: TrainProgram, run: SeedRun, step: int) -> dict[str, float]:
    """Returns {"step": step, "epoch": epochs done, to four decimals} for a line of the metrics."""
    images = step * run.experiment.data.batch_size
    return {"step": step, "epoch": round(images / program.images_per_epoch, 4)}


def log_interval(program: TrainProgram, run: SeedRun, step: int, timer: IntervalTimer) -> State:
    """Writes a line with the means since the last line, and returns the state with sums of zero."""
    sums = run.state.sums
    count = int(sums["steps"])
    loss, error = (float(sums[k]) / count if count else None for k in ("loss", "error"))
    counts = {k: n for k in ("bad_images", "skipped") if (n := int(sums[k]))}
    steps, seconds = step - timer.first, timer.measure_seconds()
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
    # zeros_like keeps the sums' sharding. Another one would make JAX compile the step again.
    return run.state.replace(sums=jax.tree.map(jnp.zeros_like, sums))


def evaluate_and_save(program: TrainProgram, run: SeedRun, step: int, watch: Watch) -> None:
    """Evaluates a seed by its single view, logs the metrics, and saves the state.

    The optimizer's state takes the error: the plateau schedule and early stopping depend on it.
    """
    watch.enter("evaluate")
    metrics = program.evaluate(run.state)
    watch.enter("save")
    seen = log_evaluation(program, run, step, metrics)
    run.state = run.state.replace(opt=observe_error(run.state.opt, seen))
    checkpoint.save(run.checkpoints, run.state, seen)


def log_evaluation(
    program: TrainProgram, run: SeedRun, step: int, metrics: dict[str, float]
) -> float:
    """Writes the line of an evaluation, and returns its error, or infinity if it is not finite."""
    # Batch norm's averages may be far off after few steps: the run goes on, and JSON has no NaN.
    metrics = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
    error = metrics[program.error_name]
    run.write("eval", **describe_progress(program, run, step), **metrics)
    return math.inf if error is None else error


def measure_layers(program: TrainProgram, run: SeedRun, step: int, watch: Watch) -> None:
    """Measures the layers of one seed after a step, and writes their line to layers.jsonl."""
    watch.enter("evaluate")
    assert program.measure_layers is not None  # It is due only in runs that measure.
    measured = program.measure_layers(run.state, run.experiment.seed)
    watch.enter("save")
    if run.folder:
        layer_log.append_line(run.folder, step, measured)


def measure_if_missed(program: TrainProgram, runs: list[SeedRun], due: Due, watch: Watch) -> None:
    """Measures the layers at the step at which the training starts or continues, where missing.

    This is so before the first step, and if an interruption has lost the line.
    """
    for run in runs:
        step = int(run.state.step)
        there = layer_log.drop_later_lines(run.folder, step) if run.folder else set()
        if due.measure and step not in there:
            measure_layers(program, run, step, watch)


def evaluate_if_missed(program: TrainProgram, runs: list[SeedRun], due: Due, watch: Watch) -> None:
    """Evaluates the seeds that were stopped between a step and its evaluation.

    If a saved state was evaluated but the line of that evaluation is damaged, it is evaluated again
    and only the line is written.
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
