"""Finds a study by name or path, changes its configuration, and selects its runs."""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cnn_jax import file_names, user_file
from cnn_jax.config import RUNTIME_FIELDS, Data, Experiment, parse_dataset
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.files import expand_path
from cnn_jax.study.definition import Study
from cnn_jax.tuning import check_tuning, is_tuned, make_trials, note_untuned

# Fields that change none of a run's numbers: how often the run is logged, and how it is compiled.
HARMLESS_FIELDS = (
    *RUNTIME_FIELDS,
    "study",
    "name",
    "seed",
    "model.scan_min_blocks",
    "model.remat",
    "train.log_every",
    "train.save_every",
    "log.layer_statistics",
)

# {data set: augmentation that replaces the preset's augmentation, if the preset has any}. For
# example, digits must not be mirrored.
AUGMENTATION: dict[str, dict[str, Any]] = {
    "digits": {"pad_and_crop": 1, "flip": False},
    "mnist": {"pad_and_crop": 4, "flip": False},
    "cifar10": {"pad_and_crop": 4, "flip": True},
}


def load(name: str, preset: str, studies: Mapping[str, Callable[[str], Study]]) -> Study:
    """Returns a study by its name, or the study of a user's file by the file's path.

    Args:
      name: A name of `studies`, or the path of a Python file that defines `study(preset)`.
      preset: The study's preset, such as laptop.
      studies: The function of each study, by the study's name.

    Raises:
      UserError: If there is no such study, file or preset.
    """
    if name in studies:
        return studies[name](preset)
    if name.endswith(".py") or "/" in name:
        return _load_file(expand_path("experiment", name), preset)
    raise UserError(f"experiment={name}: no such study; {suggest_names(name, studies)}")


def _load_file(path: Path, preset: str) -> Study:
    found = user_file.call(path, "study", preset)
    if not isinstance(found, Study):
        raise UserError(f"{path}: study({preset!r}) returns no cnn_jax.study.Study")
    return dataclasses.replace(found, file=str(path.resolve()))


def configure(
    study: Study,
    overrides: Iterable[str] = (),
    data: str = "",
    data_dir: str = "",
) -> Study:
    """Returns the study with changed settings, and with the deviations of its runs listed.

    Each run of the result stores the values of all arguments of its optimizer and schedule. The
    study's tuning is dropped if `overrides` sets the tuned field. If it sets the steps of runs,
    trials have no more steps than the runs that they tune.

    Args:
      study: The study.
      overrides: Changes of every run, such as 'schedule.base=0.05'.
      data: Name of a data set that replaces the study's own, with the augmentation that suits it;
        empty: the study's own.
      data_dir: Folder of prepared TFDS data sets; empty: that of the runs.

    Raises:
      UserError: If a field has an invalid value, or the names of runs and rows do not agree.
    """
    _check_names(study)
    changes = tuple(overrides)
    runs = {}
    for name, run in study.runs.items():
        paper = study.paper_runs.get(name, run)
        runs[name] = _configure_run(run, paper, changes, data, data_dir)
    tuning, fields = study.tuning, {change.partition("=")[0].strip() for change in changes}
    notes = study.notes
    if tuning and tuning.field in fields:
        notes, tuning = (*notes, *note_untuned(tuning)), None
    elif tuning and tuning.steps and "train.steps" in fields:
        steps = [run.train.steps for name, run in runs.items() if is_tuned(tuning, name)]
        tuning = dataclasses.replace(tuning, steps=min([tuning.steps, *steps]))
    return dataclasses.replace(study, runs=runs, tuning=tuning, notes=notes)


def _check_names(study: Study) -> None:
    """Raises UserError if a run's name is taken or not its key, or a row names no run."""
    for name, run in study.runs.items():
        if name in file_names.OF_STUDY:
            raise UserError(
                f"study {study.name}: a run cannot be named {name!r}, because a file or folder of"
                " the study itself has this name"
            )
        if run.name != name:
            raise UserError(
                f"study {study.name}: the run {name!r} has the name {run.name!r}, which its folder"
                f" would have: set Experiment(name={name!r})"
            )
    for row in study.rows:
        if study.runs and row.run not in study.runs:
            raise UserError(
                f"study {study.name}: the row {row.label!r} is of the run {row.run!r}, which is not"
                f" in the study; {suggest_names(row.run, study.runs)}"
            )


def _configure_run(
    run: Experiment, paper: Experiment, changes: tuple[str, ...], data: str, data_dir: str
) -> Experiment:
    from cnn_jax import models
    from cnn_jax.overrides import override
    from cnn_jax.training.components import KINDS, complete, find_changes

    if data:
        run = dataclasses.replace(run, data=_replace_dataset(run.data, paper.data, data))
    if data_dir:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, dir=data_dir))
    run = complete(override(run, changes, KINDS))
    of_model = models.describe_deviations(run.model.name, **run.model.args)
    of_values = find_changes(complete(paper), run, _list_harmless_fields(run))
    deviations = dict.fromkeys((*of_model, *run.deviations, *of_values))
    return dataclasses.replace(run, deviations=tuple(deviations))


def _list_harmless_fields(run: Experiment) -> tuple[str, ...]:
    """Returns the fields that change none of a run's numbers."""
    evaluations_count = run.schedule.name == "plateau" or run.train.stop_after > 0
    return HARMLESS_FIELDS if evaluations_count else (*HARMLESS_FIELDS, "train.eval_every")


def _replace_dataset(config: Data, paper: Data, name: str) -> Data:
    """Returns the settings of the data with another data set and the augmentation that suits it.

    An augmentation that neither the run nor the paper's recipe has is not switched on. If the run
    has this data set already, its options are kept.
    """
    named = parse_dataset(name)
    if named.name == config.dataset.name and not named.args:
        return config
    suitable = {
        field: value
        for field, value in AUGMENTATION.get(name, {}).items()
        if not value or getattr(config, field) or getattr(paper, field)
    }
    return dataclasses.replace(config, dataset=named, **suitable)


def complete_study(study: Study) -> Study:
    """Returns the study with the deviations of its runs listed. `configure` may have done it."""
    from cnn_jax.training.components import complete

    _check_names(study)
    if all(run == complete(run) and run.deviations for run in study.runs.values()):
        return study
    return configure(study)


def select(study: Study, only: str = "*", seeds: int = 1) -> list[Experiment]:
    """Returns the runs whose name matches a pattern, each with the seeds 0 to seeds - 1.

    Args:
      study: The study.
      only: The pattern, such as 'plain-*'.
      seeds: Number of seeds of each run.

    Raises:
      UserError: If no run matches, or the study trains nothing.
    """
    if not study.runs:
        raise UserError(f"{study.name} trains nothing: it has no runs to select")
    names = fnmatch.filter(study.runs, only)
    if not names:
        raise UserError(
            f"run={only}: no such run in {study.name}; {suggest_names(only, study.runs)}"
        )
    return [
        dataclasses.replace(study.runs[name], seed=seed) for name in names for seed in range(seeds)
    ]


def list_trials(study: Study, only: str = "*") -> list[Experiment]:
    """Returns the trials that tune a study's runs, each with the seeds of the tuning.

    Args:
      study: The study. If it is not tuned, there are no trials.
      only: The pattern of the names of the runs.

    Raises:
      UserError: If no run matches, or the tuning has a mistake.
    """
    if study.tuning is None:
        return []
    check_tuning(study.tuning, study.runs)
    chosen = [study.runs[one.name] for one in select(study, only)]
    return [
        dataclasses.replace(trial, seed=seed)
        for trial in make_trials(study.tuning, chosen, study.paper_runs)
        for seed in range(study.tuning.seeds)
    ]
