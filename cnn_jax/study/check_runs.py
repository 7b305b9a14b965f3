"""Checks a study's runs before anything is written."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from cnn_jax.config import Experiment
from cnn_jax.errors import UserError
from cnn_jax.files import find_seeds
from cnn_jax.study.definition import Study
from cnn_jax.study.write_files import check_study


def check_before_writing(
    study: Study,
    runs: Sequence[Experiment],
    folder: Path,
    together: bool = False,
    seeds: int = 1,
    profile_steps: int = 0,
    overwrite: bool = False,
) -> None:
    """Raises UserError for every error that can be detected before anything is written.

    Args:
      study: The study.
      runs: Its runs, or its trials.
      folder: The folder of the runs.
      together: Whether the seeds of a run are trained at once.
      seeds: The number of seeds.
      profile_steps: Number of steps of each run to trace.
      overwrite: Whether what the folder holds of the runs will be deleted.
    """
    from cnn_jax.training import metrics_log, profile, run_folders
    from cnn_jax.training.components import make_components

    for argument, count, least in (("seeds", seeds, 1), ("profile", profile_steps, 0)):
        if count < least:
            raise UserError(f"{argument}={count}: must be at least {least}")
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


def find_folders(runs: Iterable[Experiment], folder: Path) -> list[Path]:
    """Returns the folders of runs, and of the seeds of these runs that the folder holds besides."""
    from cnn_jax.training import run_folders

    return [run_folders.find_run_folder(one, folder) for one in _add_seeds(runs, folder)]


def find_trial_folders(study: Study, runs: Iterable[Experiment], folder: Path) -> list[Path]:
    """Returns the folders of the trials of runs, whatever field they tune.

    Args:
      study: The study. It may be launched without its tuning.
      runs: Some of its runs.
      folder: The folder of the trials, which may be missing.
    """
    names, found = {one.name for one in runs}, []
    for place in sorted(folder.glob("*/seed*")):
        # A trial is named RUN-FIELDVALUE, and the name of a run may begin with that of another.
        owners = [name for name in study.runs if place.parent.name.startswith(f"{name}-")]
        if max(owners, key=len, default="") in names:
            found.append(place)
    return found


def _add_seeds(runs: Iterable[Experiment], folder: Path) -> list[Experiment]:
    """Returns the runs, and after them these with the other seeds that the folder holds."""
    every = {(one.name, one.seed): one for one in runs}
    for one in list(every.values()):
        for seed in sorted(find_seeds(folder / one.name)):
            every.setdefault((one.name, seed), dataclasses.replace(one, seed=seed))
    return list(every.values())
