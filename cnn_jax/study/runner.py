"""Tunes and trains a study's runs one by one, and builds the report."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_jax import file_names, user_file
from cnn_jax.config import Experiment
from cnn_jax.errors import UserError, join_messages
from cnn_jax.files import PART_AGE_S, expand_path, find_seeds, remove_parts
from cnn_jax.optional_packages import find_folder
from cnn_jax.study.definition import Study
from cnn_jax.study.selection import complete_study, list_trials, select
from cnn_jax.study.write_files import check_study, write_crops, write_study
from cnn_jax.tuning import apply_choices

if TYPE_CHECKING:
    from cnn_jax.report.elements import Report


class RunsFailedError(UserError):
    """Some runs of a study have failed.

    Attributes:
      report: The report of the others.
    """

    def __init__(self, words: str, report: "Report | None") -> None:
        super().__init__(words)
        self.report = report


def run(
    study: Study,
    workdir: str | Path,
    *,
    seeds: int = 1,
    only: str = "*",
    together: bool = False,
    profile_steps: int = 0,
    overwrite: bool = False,
    share: bool = False,
    command: str = "",
    tell: Callable[[str], None] = print,
) -> "Report | None":
    """Trains a study's runs one by one, evaluates them, and builds the report.

    Finished runs are skipped, and interrupted ones continue. A run that fails does not stop the
    others.

    Args:
      study: The study; `configure` changes its settings.
      workdir: Where the runs and the report are written.
      seeds: Each run is trained with the seeds 0 to seeds - 1.
      only: Only runs whose name matches this pattern.
      together: Train the seeds of a run at once, in one program.
      profile_steps: Number of steps of each run to trace.
      overwrite: Delete these runs from the folder and start them again.
      share: Share the runs with other launches of the same command (`cnn_jax.study.sharing`).
      command: The command that runs the whole study; the report shows it.
      tell: Takes a line for each finished run.

    Returns:
      The report; None in all but the first of several processes, and in all but the last of the
      launches that share the runs.

    Raises:
      UserError: If something is wrong before the first run, or runs have failed.
      StoppedError: If a signal stopped a run, which is saved.
    """
    from cnn_jax import distributed
    from cnn_jax.cpu import settings
    from cnn_jax.study import sharing
    from cnn_jax.training import run_folders, run_lock

    find_folder("matplotlib")  # Report a missing Matplotlib before training.
    settings.configure_once()  # Before the checks, which start JAX's backend.
    folder = expand_path("workdir", workdir)
    study = complete_study(study)
    if study.measure:
        with user_file.explain_errors(study.file):
            measured = study.measure()
        write_study(study, folder, seeds, command, measured)
        return _build_report(folder, study)
    if study.tuning:
        if share or profile_steps:
            raise UserError(
                f"{study.name} tunes {study.tuning.field} first: it takes neither share nor profile"
                f" unless {study.tuning.field} is set"
            )
        study = _tune(study, folder, only, overwrite, tell)
    runs = select(study, only, seeds)
    if share and overwrite:
        raise UserError("share: a launch with overwrite would delete what the others have trained")
    if share and distributed.is_distributed():
        raise UserError("share: each launch is one process, but several train together here")
    check_before_writing(study, runs, folder, together, seeds, profile_steps, overwrite)
    primary = distributed.is_primary()
    if primary:
        # Measurements of runs that are retrained or continued are outdated.
        outdated = overwrite or any(run_folders.extends_stored_run(one, folder) for one in runs)
        if overwrite:
            run_folders.erase_runs(_find_folders(runs, folder))
        elif not share:
            for one in runs:
                run_lock.check_free(run_folders.find_run_folder(one, folder))
        remove_parts(folder, PART_AGE_S)
        write_study(study, folder, seeds, command, [] if outdated and study.measure_runs else None)
        write_crops(study, folder, anew=overwrite)
    if overwrite:
        distributed.wait_for_all("earlier runs are deleted")
    size = seeds if together else 1
    groups = [runs[start : start + size] for start in range(0, len(runs), size)]
    with contextlib.ExitStack() as stack:
        turns: Iterable[tuple[int, Sequence[Experiment]]] = enumerate(groups)
        builds_report = primary
        if share:
            leave = stack.enter_context(sharing.join_launches(folder))
            turns = sharing.claim_groups(groups, folder, tell)
        failed = _train_all(turns, folder, len(runs), profile_steps, tell)
        if share:
            builds_report = leave()
        logs = folder.glob(f"*/seed*/{file_names.METRICS}")
        if failed and len(failed) == len(runs) and not any(logs):
            raise UserError(join_messages(map(str, failed.values())))
        if builds_report and study.measure_runs:
            with user_file.explain_errors(study.file):
                measured = study.measure_runs(folder, _list_seeds(study, folder, seeds), tell)
            write_study(study, folder, seeds, command, measured)
        report = _build_report(folder, study) if builds_report else None
    if share and not report:
        tell(f"another launch still works in {folder}; the last one builds the report")
    if failed:
        raise RunsFailedError(join_messages(map(str, failed.values())), report)
    return report


def _list_seeds(study: Study, folder: Path, seeds: int) -> list[Experiment]:
    """Returns every run with the seeds 0 to seeds - 1, and with those of earlier launches.

    Seeds of earlier launches that have another configuration are left out.
    """
    from cnn_jax.training import run_folders

    every = [
        dataclasses.replace(run, seed=seed)
        for name, run in study.runs.items()
        for seed in sorted({*range(seeds), *find_seeds(folder / name)})
    ]
    return [
        one
        for one in every
        if one.seed < seeds or run_folders.is_same(one, run_folders.find_run_folder(one, folder))
    ]


def _find_folders(runs: Iterable[Experiment], folder: Path) -> list[Path]:
    """Returns the folders of runs, and of the seeds of these runs that the folder holds besides."""
    from cnn_jax.training import run_folders

    return [run_folders.find_run_folder(one, folder) for one in _add_seeds(runs, folder)]


def _add_seeds(runs: Iterable[Experiment], folder: Path) -> list[Experiment]:
    """Returns the runs, and after them these with the other seeds that the folder holds."""
    every = {(one.name, one.seed): one for one in runs}
    for one in list(every.values()):
        for seed in sorted(find_seeds(folder / one.name)):
            every.setdefault((one.name, seed), dataclasses.replace(one, seed=seed))
    return list(every.values())


def _build_report(folder: Path, study: Study) -> "Report":
    from cnn_jax.report.build import build  # It imports Matplotlib, which training does not need.

    return build(folder, study)


def _tune(
    study: Study, folder: Path, only: str, overwrite: bool, tell: Callable[[str], None]
) -> Study:
    """Returns the study with the values that trials have chosen, which are trained where missing.

    A trial whose loss is not finite is a result; one that fails ends the launch.
    """
    from cnn_jax import distributed
    from cnn_jax.report.reading.folder import read_runs
    from cnn_jax.training import run_folders
    from cnn_jax.training.components import is_plain_jit

    tuning = study.tuning
    assert tuning is not None
    place, trials = folder / file_names.TRIALS, list_trials(study, only)
    check_study(study, folder)
    check_before_writing(study, trials, place, False, 1, overwrite=overwrite)
    if overwrite:
        if distributed.is_primary():
            run_folders.erase_runs(_find_folders(trials, place))
        distributed.wait_for_all("earlier trials are deleted")
    size = tuning.seeds if all(map(is_plain_jit, trials)) else 1
    groups = [trials[start : start + size] for start in range(0, len(trials), size)]
    failed = _train_all(enumerate(groups), place, len(trials), 0, tell)
    for error in failed.values():
        raise error
    chosen = {one.name: study.runs[one.name] for one in select(study, only)}
    with user_file.explain_errors(study.file):
        chosen = apply_choices(tuning, chosen, read_runs(place, []), study.paper_runs)
    return dataclasses.replace(study, runs=study.runs | chosen)


def check_before_writing(
    study: Study,
    runs: Sequence[Experiment],
    folder: Path,
    together: bool,
    seeds: int,
    profile_steps: int = 0,
    overwrite: bool = False,
) -> None:
    """Raises UserError for every error that can be detected before anything is written."""
    from cnn_jax.training import metrics_log, profile, run_folders
    from cnn_jax.training.components import make_components

    if together and seeds == 1:
        raise UserError("together: trains several seeds at once: ask for more than one")
    check_study(study, folder)
    _check_starts(runs)
    if not overwrite:
        # Seeds of earlier launches with other settings would be averaged with these.
        for one in _add_seeds(runs, folder):
            run_folders.check_folder(one, run_folders.find_run_folder(one, folder))
    for one in runs:
        own = run_folders.find_run_folder(one, folder)
        if problem := profile.explain_too_few(profile_steps, one.train.steps):
            raise UserError(problem)
        make_components(one, seeds=seeds if together else 1)
        start, names = one.train.start_from, {other.name for other in runs}
        if start and start not in names and not metrics_log.read_result(own):
            run_folders.check_start(one, own)


def _check_starts(runs: Iterable[Experiment]) -> None:
    """Raises UserError if runs start from one another in a circle: none of them could be first."""
    starts = {one.name: one.train.start_from for one in runs}
    for name in starts:
        path = [name]
        while (start := starts.get(path[-1])) and start not in path:
            path.append(start)
        if start == name:
            circle = " -> ".join([*path, start])
            raise UserError(
                f"train.start_from: {circle} is a circle, in which no run can be the first: let one"
                " of them start anew"
            )


def _train_all(
    turns: Iterable[tuple[int, Sequence[Experiment]]],
    folder: Path,
    total: int,
    profile_steps: int,
    tell: Callable[[str], None],
) -> dict[Experiment, UserError]:
    """Trains groups of runs that differ only in their seed.

    Args:
      turns: (number, group), in the order of training.
      folder: The study's folder.
      total: The number of runs in all groups.
      profile_steps: Number of steps of each run to trace.
      tell: Takes a line for each run.

    Returns:
      What ended the runs that failed.
    """
    from cnn_jax import distributed
    from cnn_jax.training import metrics_log, train
    from cnn_jax.training.compiled_functions import Reusable

    failed: dict[Experiment, UserError] = {}
    reusable = Reusable()
    for turn, group in turns:
        began, size = time.perf_counter(), len(group)
        seeds = [one.seed for one in group]
        try:
            ends = train.run_seeds(group[0], seeds, folder, profile_steps, reusable)
        except UserError as error:
            if distributed.is_distributed():
                raise  # It may be this process's alone, and the others wait for it in this run.
            # Their frames would keep the run's arrays on the device while the others are trained.
            error.__context__ = None
            error.__traceback__ = None
            ends = dict.fromkeys(seeds, error)
        took = f"{time.perf_counter() - began:.0f} s" + (f", {size} together" if size > 1 else "")
        first = turn * size + 1
        for number, (one, end) in enumerate(zip(group, ends.values(), strict=True), first):
            if isinstance(end, UserError):
                failed[one] = end
                words = f"failed: {end}"
            else:
                words = metrics_log.describe_error(end)
            if distributed.is_primary():
                tell(f"[{number}/{total}] {one.name} seed {one.seed}: {words} ({took})")
    return failed
