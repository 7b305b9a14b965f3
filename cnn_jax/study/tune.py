"""Tunes a study: trains its trials, and gives the runs the values that these have chosen."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from cnn_jax import file_names, user_file
from cnn_jax.config import flatten
from cnn_jax.errors import UserError, join_messages
from cnn_jax.files import find_seeds
from cnn_jax.study.definition import Study
from cnn_jax.study.selection import list_trials, select
from cnn_jax.study.train_groups import train_groups
from cnn_jax.tuning import Tuning, apply_choices, check_tuning, is_tuned, set_value


def expect_values(study: Study, folder: Path) -> Study:
    """Returns the study with its runs as they may be after the trials.

    They can be checked before the trials, and runs that are not launched are as they were trained.
    A run that is tuned has the value of the grid that its folder holds; the first if there is none.

    Args:
      study: The study.
      folder: Its folder.

    Raises:
      UserError: If the tuning has a mistake.
    """
    tuning = study.tuning
    if not tuning:
        return study
    check_tuning(tuning, study.runs)
    expected = {
        name: set_value(tuning, run, _find_value(tuning, folder / name), study.paper_runs.get(name))
        for name, run in study.runs.items()
        if is_tuned(tuning, name)
    }
    return dataclasses.replace(study, runs=study.runs | expected)


def _find_value(tuning: Tuning, run: Path) -> float:
    """Returns the value of the grid with which a seed of a run has been trained, or the first."""
    from cnn_jax.training import run_folders

    for seed in sorted(find_seeds(run)):
        with contextlib.suppress(UserError):  # A damaged config.json is reported later.
            there = run_folders.read_config_there(run / f"seed{seed}")
            if there and (value := flatten(there).get(tuning.field)) in tuning.values:
                return value
    return tuning.values[0]


def tune(study: Study, only: str, folder: Path, tell: Callable[[str], None]) -> Study:
    """Trains the trials that are missing, and returns the study with the values that are chosen.

    A trial whose loss is not finite is a result; one that fails ends the launch.

    Args:
      study: The study.
      only: Only runs whose name matches this pattern.
      folder: The study's folder.
      tell: Takes a line for each trial.

    Raises:
      UserError: If trials have failed.
      StoppedError: If a signal stopped a trial, which is saved.
    """
    from cnn_jax.report.reading.folder import read_runs
    from cnn_jax.training.components import is_plain_jit

    tuning, trials, place = study.tuning, list_trials(study, only), folder / file_names.TRIALS
    assert tuning is not None
    size = tuning.seeds if all(map(is_plain_jit, trials)) else 1
    groups = [trials[start : start + size] for start in range(0, len(trials), size)]
    failed = train_groups(enumerate(groups), place, len(trials), 0, tell)
    if failed:
        raise UserError(join_messages(map(str, failed.values())))
    runs = {one.name: study.runs[one.name] for one in select(study, only)}
    with user_file.explain_errors(study.file):
        runs = apply_choices(tuning, runs, read_runs(place, []), study.paper_runs)
    return dataclasses.replace(study, runs=study.runs | runs)
