"""Tunes and trains a study's runs one by one, and builds the report."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_jax import file_names, user_file
from cnn_jax.config import Experiment
from cnn_jax.errors import UserError, join_messages
from cnn_jax.files import PART_AGE_S, expand_path, find_seeds, remove_parts
from cnn_jax.optional_packages import find_folder
from cnn_jax.study.check_runs import check_before_writing, find_folders, find_trial_folders
from cnn_jax.study.definition import Study
from cnn_jax.study.selection import complete_study, list_trials, select
from cnn_jax.study.train_groups import train_groups
from cnn_jax.study.tune import expect_values, tune
from cnn_jax.study.write_files import write_crops, write_study

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
    if study.tuning and (share or profile_steps):
        raise UserError(
            f"{study.name} tunes {study.tuning.field} first: it takes neither share nor profile"
            f" unless {study.tuning.field} is set"
        )
    if share and overwrite:
        raise UserError("share: a launch with overwrite would delete what the others have trained")
    if share and distributed.is_distributed():
        raise UserError("share: each launch is one process, but several train together here")
    study, place = expect_values(study, folder), folder / file_names.TRIALS
    runs, trials = select(study, only, seeds), list_trials(study, only)
    check_before_writing(study, runs, folder, together, seeds, profile_steps, overwrite)
    check_before_writing(study, trials, place, overwrite=overwrite)
    primary = distributed.is_primary()
    if primary:
        # Measurements of runs that are retrained or continued are outdated.
        outdated = overwrite or any(run_folders.extends_stored_run(one, folder) for one in runs)
        # Another launch may tune these runs, even if this one has no trials.
        used = find_trial_folders(study, runs, place)
        if not (overwrite or share):  # Deletion locks the runs, and shared runs may be in use.
            used += [run_folders.find_run_folder(one, folder) for one in runs]
        for one in used:
            run_lock.check_free(one)
        if overwrite:
            run_folders.erase_runs(find_folders(runs, folder) + find_folders(trials, place))
        remove_parts(folder, PART_AGE_S)
        write_study(study, folder, seeds, command, [] if outdated and study.measure_runs else None)
    if overwrite:
        distributed.wait_for_all("earlier runs are deleted")
    if study.tuning:
        study = tune(study, only, folder, tell)
        runs = select(study, only, seeds)
        check_before_writing(study, runs, folder, together, seeds, overwrite=overwrite)
    if primary:
        write_crops(study, folder, anew=overwrite)
    size = seeds if together else 1
    groups = [runs[start : start + size] for start in range(0, len(runs), size)]
    with contextlib.ExitStack() as stack:
        numbered: Iterable[tuple[int, Sequence[Experiment]]] = enumerate(groups)
        builds_report = primary
        if share:
            leave = stack.enter_context(sharing.join_launches(folder))
            numbered = sharing.claim_groups(groups, folder, tell)
        failed = train_groups(numbered, folder, len(runs), profile_steps, tell)
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
        if one.seed < seeds or run_folders.holds_run(one, run_folders.find_run_folder(one, folder))
    ]


def _build_report(folder: Path, study: Study) -> "Report":
    from cnn_jax.report.build import build  # It imports Matplotlib, which training does not need.

    return build(folder, study)
