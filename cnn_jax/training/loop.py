"""The training loop: next batch, step, log, evaluate, save.

`multi_seed` joins several seeds in one program, `seed_run` logs, evaluates and saves one seed after
a step, and `watchdog` notices signals, after which `save_and_stop` ends the loop.
"""

import time
from typing import Any, NoReturn

import jax

from cnn_jax.cpu import memory
from cnn_jax.errors import StoppedError, UserError
from cnn_jax.training import checkpoint, early_stopping
from cnn_jax.training.first_steps import FirstSteps
from cnn_jax.training.interval_timer import IntervalTimer
from cnn_jax.training.program import TrainProgram
from cnn_jax.training.seed_run import (
    SeedRun,
    evaluate_if_missed,
    find_due,
    finish_step,
    log_step,
    measure_if_missed,
    stop_if_due,
)
from cnn_jax.training.steps_per_call import (
    MIN_MEASURED_STEPS,
    choose_steps_per_call,
    count_steps,
)
from cnn_jax.training.watchdog import StopError, Watch


def run_loop(
    program: TrainProgram, runs: list[SeedRun], until: int, watch: Watch
) -> dict[int, UserError]:
    """Trains the seeds of a run from their current step to the step `until`.

    Args:
      program: The compiled step, the evaluation and the batches.
      runs: The seeds of the run, all at the same step.
      until: The last step.
      watch: Records each phase and reports requests to stop.

    Returns:
      {seed: error} of the seeds that failed before the last step, such as by divergence.

    Raises:
      StoppedError: If a signal stopped the training. All seeds are saved then.
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
    first_steps = FirstSteps(program.first, until)

    def ends_call(step: int) -> bool:
        return any(find_due(step, experiment, until))

    step, size, chosen = done, 1, program.steps_per_call  # The first call makes one step.
    # The compiled programs: (whether of the first steps, the number of steps in a call).
    compiled = set[tuple[bool, int]]()
    while step < until and not all(run.ended for run in runs):
        is_first = first_steps.include(step)
        count = 1 if is_first else count_steps(step, until, size, ends_call)
        compiles = (is_first, count) not in compiled
        compiled.add((is_first, count))
        phase = "compile" if compiles else "step"
        taken = take_batches(program, runs, state, batches, count, timer, watch, phase)
        if count > 1:  # Calls that wait for a device would keep a signal waiting.
            jax.block_until_ready(state)
        if not is_first and first_steps.wait():
            trimmer = memory.Trimmer()  # The compiler leaves free memory.
        trimmer.prepare_call(state)
        if is_first:
            state = first_steps.make(state, program.inputs, taken[0])
        else:
            state = program.advance(state, taken)
        step += count

        due = find_due(step, experiment, until)
        if any(due) or compiles or timer.should_redraw():
            wait_and_draw(state, runs, step, timer)
            measured = step - timer.first
            if not chosen and not compiles and measured >= MIN_MEASURED_STEPS:
                step_seconds = timer.measure_seconds() / measured
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
    timer: IntervalTimer,
    watch: Watch,
    phase: str,
) -> list[Any]:
    """Returns the next batches, and adds the time of the wait to `timer.waited`.

    Args:
      program: The run's program.
      runs: The seeds.
      state: The joint state, which is saved if a signal asks to stop.
      batches: An iterator over the batches.
      count: Number of batches to take.
      timer: The time since the last log line.
      watch: Records each phase.
      phase: The phase that follows: compile or step.

    Raises:
      StoppedError: If a signal asks to stop. All seeds are saved then.
    """
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
    """Splits the joint state and stores the state of each seed in its `SeedRun`."""
    for run, own in zip(runs, program.split(state), strict=True):
        run.state = own


def wait_and_draw(state: Any, runs: list[SeedRun], step: int, timer: IntervalTimer) -> None:
    """Waits until the device has computed the state, and moves the progress bars.

    Seldom calls keep the device busy: while the loop waits, it sends no further step.
    """
    jax.block_until_ready(state)
    for run in runs:
        run.bar.update(step - run.bar.n)
    timer.drawn = time.perf_counter()


def save_and_stop(runs: list[SeedRun], signal: object) -> NoReturn:
    """Saves the seeds that are not saved at their current step, and raises StoppedError.

    No line is logged: the sums of the log interval are part of the saved state. Evaluations that
    are due at this step are made by `evaluate_if_missed` when the run continues.

    Args:
      runs: The seeds.
      signal: Name of the signal that asked to stop.
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
    """Ends the worker processes that decode images, if the batches have any."""
    if hasattr(batches, "close"):
        batches.close()


def finish(runs: list[SeedRun], until: int, watch: Watch) -> dict[int, UserError]:
    """Waits for pending saves, and writes the line `end` to the metrics of finished seeds.

    Returns:
      {seed: error} of the seeds that failed.
    """
    watch.enter("save")
    for run in runs:
        checkpoint.wait(run.checkpoints)
        if until < run.experiment.train.steps or run.ended:
            continue
        if run.experiment.train.stop_after:
            early_stopping.end_at_best_state("end", until, run.checkpoints, run.write)
        else:
            run.write("end", step=until)
    return {run.experiment.seed: run.failure for run in runs if run.failure}
