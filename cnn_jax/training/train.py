"""Trains a run from its configuration to its files: `run(experiment, workdir)`.

An interrupted run continues from its last checkpoint.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cnn_jax import __version__, data, distributed, models
from cnn_jax.config import Experiment, flatten
from cnn_jax.cpu import settings
from cnn_jax.errors import (
    NotFiniteError,
    UserError,
    explain_os_errors,
    explain_out_of_memory,
)
from cnn_jax.evaluation.evaluate import evaluate_run
from cnn_jax.files import expand_path, remove_parts
from cnn_jax.training import (
    checkpoint,
    divergence,
    environment,
    metrics_log,
    profile,
    run_folders,
    run_lock,
    saved_parameters,
    watchdog,
)
from cnn_jax.training.compiled_functions import FunctionCache
from cnn_jax.training.components import complete
from cnn_jax.training.first_steps import FIRST_STEPS
from cnn_jax.training.loop import run_loop
from cnn_jax.training.program import TrainProgram, build_program
from cnn_jax.training.seed_run import SeedRun
from cnn_jax.training.state import State
from cnn_jax.values import Natural, convert


def run(experiment: Experiment, workdir: str | Path) -> dict[str, Any]:
    """Trains a run to its last step and evaluates it by its protocols.

    The files are in <workdir>/<name>/seed<k>. A finished run is not repeated. An interrupted run
    continues from its last checkpoint and ends bit for bit as without the interruption.

    Args:
      experiment: The run.
      workdir: The folder of the study's runs.

    Returns:
      The last evaluation, or with train.stop_after the best one: step, epoch, loss (nats),
      top1_error (0 to 1), images. With train.on_nan=record, a run whose loss is not finite gives
      {"diverged": step}.

    Raises:
      UserError: If the configuration has a mistake, the folder holds another run, the data are not
        prepared, or the loss is not finite.
      StoppedError: If a signal stopped the run, which is saved.
    """
    result = run_seeds(experiment, [experiment.seed], workdir)[experiment.seed]
    if isinstance(result, UserError):
        raise result
    return result


def run_seeds(
    experiment: Experiment,
    seeds: Sequence[int],
    workdir: str | Path,
    profile_steps: int = 0,
    cache: FunctionCache | None = None,
) -> dict[int, dict[str, Any] | UserError]:
    """Trains a run with several seeds in one program.

    Each seed has the files and, up to rounding, the numbers of a separate run. A seed whose loss is
    not finite ends, and the others continue. Seeds whose last checkpoint is earlier than that of
    others catch up first. In metrics.jsonl `step_time` is the time of the joint step of all seeds,
    and `images_per_s` counts the images of one seed.

    Args:
      experiment: The run. Its field `seed` is ignored.
      seeds: The seeds.
      workdir: The folder of the study's runs.
      profile_steps: Number of steps to trace (`profile.trace_steps`), once all seeds have caught
        up.
      cache: Cache of compiled functions that earlier runs have filled; None: a new one.

    Returns:
      For each seed, the value that `run` would return or the error that it would raise.

    Raises:
      UserError: If an error stops all seeds.
      StoppedError: If a signal stopped the training. All seeds are saved then.
    """
    settings.configure_once()
    cache = cache or FunctionCache()
    experiment, workdir = complete(experiment), expand_path("workdir", workdir)
    seeds = [convert("seed", seed, Natural) for seed in seeds]
    runs = {seed: replace(experiment, seed=seed) for seed in seeds}
    folders = {seed: run_folders.find_run_folder(one, workdir) for seed, one in runs.items()}
    failed: dict[int, UserError] = {}
    for seed, folder in folders.items():
        run_folders.check_folder(runs[seed], folder)
        run_folders.follow_moved_data(runs[seed], folder)
        events = metrics_log.read_events(folder)
        if error := divergence.find_earlier_end(runs[seed], events, folder):
            failed[seed] = error
    distributed.check_agreement(describe_run(experiment, seeds))
    trains = bool(_find_last_steps(folders, failed, experiment.train.steps))
    if profile_steps and not trains and distributed.is_primary():
        places = ", ".join(map(str, folders.values()))
        print(
            f"{places}: nothing is traced, because the run has ended: start it again with"
            " --overwrite or in another workdir",
            flush=True,
        )
    while last_steps := _find_last_steps(folders, failed, experiment.train.steps):
        least = min(last_steps.values())
        later = [step for step in last_steps.values() if step > least]
        until = min(later, default=experiment.train.steps)
        behind = {runs[s]: folders[s] for s, step in last_steps.items() if step == least}
        what = f"cannot write to {next(iter(behind.values()))}"
        with (
            explain_os_errors(what, then="the same command continues"),
            explain_out_of_memory(experiment.name, _suggest_less_memory(experiment)),
        ):
            # The seeds that catch up are not traced: all of them are in the last program.
            now = profile_steps if until == experiment.train.steps else 0
            failed |= _train(behind, until, now, cache)
        # Otherwise a process might read files before the first one has written them.
        distributed.wait_for_all("the end of a run")
    for seed, folder in folders.items():
        if seed not in failed:
            try:
                with explain_out_of_memory(
                    f"the evaluation of {folder}", "lower data.eval_batch_size"
                ):
                    evaluate_run(folder, experiment.protocols, experiment=runs[seed])
            except NotFiniteError as error:
                failed[seed] = UserError(f"{experiment.name} seed {seed}: {error}")
    record = experiment.train.on_nan == "record"
    ends: dict[int, dict[str, Any] | UserError] = {
        seed: {"diverged": e.step} if record and isinstance(e, divergence.DivergedError) else e
        for seed, e in failed.items()
    }
    for seed in folders.keys() - failed.keys():
        result = metrics_log.read_result(folders[seed])
        assert result is not None  # it has ended
        ends[seed] = result
    return {seed: ends[seed] for seed in folders}


def _suggest_less_memory(experiment: Experiment) -> str:
    """Returns the remedy for a run for which a device has not enough memory."""
    remat = "remat" in models.list_options(experiment.model.name)
    return (
        "lower data.batch_size"
        + (", set model.remat=true" if remat else "")
        + " or, if it was evaluating, lower data.eval_batch_size; --plan computes what a step needs"
    )


def describe_run(experiment: Experiment, seeds: Sequence[int]) -> dict[str, str]:
    """Describes all that must be equal in the processes that train a run together.

    Args:
      experiment: The run.
      seeds: The seeds that train in one program.

    Returns:
      {field: text} of the configuration, the seeds, the code, and the data (number of images,
      classes, order of the images); {} if a single process trains.
    """
    if not distributed.is_distributed():
        return {}
    places = {"data.dir", "data.dataset.path"}  # Each machine may have its own.
    fields = {k: repr(v) for k, v in flatten(experiment).items() if k not in places}
    known = data.describe_dataset(data.load_dataset(experiment.data))
    described = {f"the data's {k}": repr(v) for k, v in known.items() if k != "folder"}
    return (
        fields
        | described
        | {
            "the seeds": repr(list(seeds)),
            "the code's commit": environment.find_commit(),
            "the code's version": __version__,
        }
    )


def _find_last_steps(
    folders: dict[int, Path], failed: dict[int, UserError], steps: int
) -> dict[int, int]:
    """Returns {seed: the step of its newest checkpoint} of the seeds that are not done."""
    return {
        seed: checkpoint.find_latest_step(folder)
        for seed, folder in folders.items()
        if seed not in failed and not metrics_log.read_result(folder, steps)
    }


def _train(
    runs: dict[Experiment, Path], until: int, profile_steps: int, cache: FunctionCache
) -> dict[int, UserError]:
    """Trains runs that differ only in their seed up to a step; returns the errors by seed."""
    first, *_ = runs
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_matmul_precision(first.train.precision))
        if first.train.check_numerics:
            stack.enter_context(jax.numpy_rank_promotion("raise"))
            stack.enter_context(jax.numpy_dtype_promotion("strict"))
        # The program is built before anything is written, so that a mistake leaves no files.
        program = build_program(first, seeds=[run.seed for run in runs], cache=cache)
        for folder in runs.values():
            if checkpoint.find_latest_step(folder):
                run_folders.check_data(program.description, folder)
        for run, folder in runs.items() if distributed.is_primary() else ():
            with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run_lock.hold(folder))  # Before anything of another launch changes.
            run_folders.write_config(run, folder, checkpoint.find_latest_step(folder))
            run_folders.write_data(program.description, folder)
            remove_parts(folder)
        saved = [
            stack.enter_context(checkpoint.open_checkpoints(folder)) for folder in runs.values()
        ]
        initial = program.split(program.state)
        states = [
            _restore(run, folder, checkpoints, state)
            for (run, folder), checkpoints, state in zip(runs.items(), saved, initial, strict=True)
        ]
        done = int(states[0].step)
        if any(int(state.step) != done for state in states):
            return {}  # An unreadable checkpoint has been moved aside: restore again.
        if profile_steps and distributed.is_primary():
            folder = next(iter(runs.values()))
            untraced = FIRST_STEPS if program.first else 0
            program = _trace(stack, program, folder, profile_steps, until - max(done, untraced))
        seed_runs = [
            SeedRun(
                run,
                checkpoints,
                *_open_log(stack, run, folder, checkpoints, done),
                state,
                logged=metrics_log.find_last_evaluated_step(folder),
                folder=folder if distributed.is_primary() else None,
            )
            for (run, folder), checkpoints, state in zip(runs.items(), saved, states, strict=True)
        ]
        with watchdog.watch(first.train.watchdog_minutes) as watch:
            return run_loop(program, seed_runs, until, watch)


def _open_log(
    stack: contextlib.ExitStack,
    run: Experiment,
    folder: Path,
    checkpoints: ocp.CheckpointManager,
    done: int,
) -> tuple[metrics_log.Write, Any]:
    """Opens the log of a seed, until the stack is closed, and returns (write, progress bar)."""
    evaluated = bool(done) and checkpoint.was_evaluated(checkpoints, done)
    if not distributed.is_primary():
        return stack.enter_context(metrics_log.open_null_log())
    return stack.enter_context(metrics_log.open_log(run, folder, done, evaluated))


def _trace(
    stack: contextlib.ExitStack, program: TrainProgram, folder: Path, steps: int, left: int
) -> TrainProgram:
    """Returns the program with `steps` of its next `left` steps traced.

    If these are too few, it prints why nothing is traced, and returns the program as it is.
    """
    if problem := profile.explain_too_few(steps, left):
        print(f"{folder}: nothing is traced: {problem}", flush=True)
        return program
    traced: Callable = stack.enter_context(
        profile.trace_steps(program.compiled_step, folder, steps, left)
    )
    step = functools.wraps(program.compiled_step)(traced)
    return program._replace(compiled_step=step, steps_per_call=1)  # Single steps are traced.


def _restore(
    experiment: Experiment, folder: Path, checkpoints: ocp.CheckpointManager, new: State
) -> State:
    """Returns the run's last state, or a new one, possibly with parameters of another run."""
    if found := checkpoint.restore(checkpoints, new):
        return found
    if not experiment.train.start_from:
        return new
    run_folders.check_start(experiment, folder)
    other = run_folders.find_start_folder(experiment, folder)
    return saved_parameters.take_parameters(new, other, experiment.train.start_layers)
