"""Checks to which run a folder belongs, writes its config.json and data.json, and deletes runs."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cnn_jax import data, distributed, file_names
from cnn_jax.config import RUNTIME_FIELDS, Experiment
from cnn_jax.config_file import read_config, to_json
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.optim import schedule_depends_on_steps
from cnn_jax.text import escape_unprintable
from cnn_jax.training import metrics_log, run_lock
from cnn_jax.training.components import complete, find_changes

# Fields of data.json that may not change while a run is trained.
DATA_FIELDS = ("train_images", "test_images", "num_classes", "class_names", "checksum")
# The files of a run, in the order in which `erase_runs` deletes them. config.json comes last: until
# then it names the run, and no other configuration takes over what an interrupted deletion left.
RUN_FILES = (
    file_names.METRICS,
    file_names.CHECKSUMS,
    file_names.STARTS,
    file_names.DATA,
    file_names.DAMAGED_METRICS,
    file_names.LAYERS,
    file_names.ERASED_CHECKPOINTS,
    file_names.DAMAGED_CHECKPOINTS,
    file_names.EVALUATIONS,
    file_names.TENSORBOARD,
    file_names.PROFILE,
    file_names.CONFIG,
)


def find_run_folder(experiment: Experiment, workdir: str | Path) -> Path:
    """Returns a run's folder: <workdir>/<run>/seed<k>."""
    return Path(workdir) / experiment.name / f"seed{experiment.seed}"


def find_start_folder(experiment: Experiment, folder: Path) -> Path:
    """Returns the folder of the run whose parameters initialize a run, of the same seed.

    Args:
      experiment: The run, whose field train.start_from names the other run.
      folder: The folder of `experiment`.
    """
    return folder.parent.with_name(experiment.train.start_from) / folder.name


def check_start(experiment: Experiment, folder: Path) -> None:
    """Checks that the run whose parameters initialize a run is finished.

    Args:
      experiment: The run, whose field train.start_from names the other run.
      folder: The folder of `experiment`.

    Raises:
      UserError: If the other run is not finished.
    """
    other = find_start_folder(experiment, folder)
    if not metrics_log.read_result(other):
        raise UserError(
            f"{experiment.name}: starts from {experiment.train.start_from}, which is not finished"
            f" in {other}: run that first"
        )


def check_folder(experiment: Experiment, folder: Path) -> None:
    """Checks that a folder holds no other configuration than a run's.

    More steps than the folder's configuration has are allowed, and continue the run.

    Args:
      experiment: The run.
      folder: The run's folder, which may be missing.

    Raises:
      UserError: If the folder holds another configuration.
    """
    there = read_config_there(folder)
    if there is None or is_longer(there, experiment):
        return
    if changed := find_changes(there, experiment, RUNTIME_FIELDS):
        raise UserError(
            f"{folder} holds another configuration ({'; '.join(changed)}): choose another workdir,"
            " repeat the flags it was made with, or start again with --overwrite"
        )


def read_config_there(folder: Path) -> Experiment | None:
    """Returns the configuration of a run's folder, or None if the folder holds no run.

    Options of the optimizer and the schedule that were added to the code after the run was started
    have their defaults, which are what the code did before.

    Args:
      folder: The run's folder.

    Raises:
      UserError: If config.json cannot be read.
    """
    path = folder / file_names.CONFIG
    with explain_os_errors(f"{path} cannot be read", "choose another workdir"):
        there = read_config(path) if path.exists() else None
    with contextlib.suppress(UserError):  # It has another version and therefore differs.
        return complete(there) if there else None
    return there


def is_longer(old: Experiment, new: Experiment) -> bool:
    """Returns whether an experiment differs from another only in that it has more steps."""
    longer = dataclasses.replace(old, train=dataclasses.replace(old.train, steps=new.train.steps))
    more = new.train.steps > old.train.steps
    return more and not find_changes(longer, new, RUNTIME_FIELDS)


def holds_run(experiment: Experiment, folder: Path) -> bool:
    """Returns whether a folder holds an experiment, with the same number of steps."""
    with contextlib.suppress(UserError):  # Its config.json is damaged.
        there = read_config_there(folder)
        return there is not None and not find_changes(there, experiment, RUNTIME_FIELDS)
    return False


def extends_stored_run(experiment: Experiment, workdir: Path) -> bool:
    """Returns whether the workdir holds the experiment's run with fewer steps."""
    there = read_config_there(find_run_folder(experiment, workdir))
    return there is not None and is_longer(there, experiment)


def write_config(experiment: Experiment, folder: Path, done: int = 0) -> None:
    """Writes config.json, by which the folder belongs to the run.

    Args:
      experiment: The run.
      folder: The run's folder.
      done: The step from which the run continues; 0: it starts.

    Raises:
      UserError: If the file cannot be written.
    """
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        there = read_config_there(folder)
        if there is None:
            write_whole(folder / file_names.CONFIG, to_json(experiment))
        elif is_longer(there, experiment):
            new = _add_deviation(there, experiment, done)
            write_whole(folder / file_names.CONFIG, to_json(new))


def check_data(description: dict[str, Any], folder: Path, finished: bool = False) -> None:
    """Checks that a data set is the one on which a run was trained.

    Args:
      description: The result of `cnn_jax.data.describe_dataset`.
      folder: The run's folder. If its data.json is missing or damaged, nothing is compared.
      finished: Whether the run is not trained any further. Its test images may then be others,
        unless every k-th image of a class is a test image, because added files shift that split.

    Raises:
      UserError: If the data set has changed.
    """
    try:
        there = json.loads((folder / file_names.DATA).read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(there, dict):
        return
    fields = DATA_FIELDS
    if finished and not (description["folder"] or {}).get("test_every"):
        fields = tuple(name for name in fields if name != "test_images")
        there, description = _keep_training_part(there), _keep_training_part(description)
    for name in fields:
        if name in there and there[name] != description[name]:
            before, now = (
                escape_unprintable(str(each[name]))[:100] for each in (there, description)
            )
            raise UserError(
                f"the data set is another one than {folder} was trained on ({name}: {before} then,"
                f" {now} now): restore it, or start again with --overwrite or another workdir; if"
                f" only {folder / file_names.DATA} is damaged, delete that file"
            )


def _keep_training_part(description: dict[str, Any]) -> dict[str, Any]:
    """Returns a description whose checksum is that of the training images alone."""
    if "checksum" not in description:
        return description
    return description | {"checksum": str(description["checksum"])[:8]}


def follow_moved_data(experiment: Experiment, folder: Path) -> None:
    """Checks a data set that lies elsewhere than config.json says, and writes the new place there.

    Args:
      experiment: A run that `check_folder` has accepted.
      folder: The run's folder.

    Raises:
      UserError: If it is not the data set on which the run was trained, or cannot be read.
    """
    there = read_config_there(folder)
    if there is None or there.data.dataset == experiment.data.dataset:
        return
    check_data(data.describe_dataset(data.load_dataset(experiment.data)), folder)
    if distributed.is_primary():
        moved = dataclasses.replace(there.data, dataset=experiment.data.dataset)
        with (
            explain_os_errors(f"cannot write to {folder}", "choose another workdir"),
            run_lock.hold(folder),
        ):
            write_whole(folder / file_names.CONFIG, to_json(dataclasses.replace(there, data=moved)))


def write_data(description: dict[str, Any], folder: Path) -> None:
    """Writes data.json, the description of the data set.

    Args:
      description: The result of `cnn_jax.data.describe_dataset`.
      folder: The run's folder.

    Raises:
      UserError: If it cannot be written.
    """
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        write_whole(folder / file_names.DATA, json.dumps(description, indent=2) + "\n")


def _add_deviation(old: Experiment, new: Experiment, done: int) -> Experiment:
    """Returns the longer run with its differences from an uninterrupted run as deviations.

    Args:
      old: The run so far.
      new: The same run with more steps.
      done: Number of steps that have been trained, after which the state is saved.
    """
    if not done:
        return new
    before, after = old.train.steps, new.train.steps
    words = []
    if schedule_depends_on_steps(new.schedule, before, after):
        words.append(f"its learning rates to step {done:,} are those of a run of {before:,} steps")
    if done == before and before % new.train.eval_every:  # Evaluated because it was the last.
        if new.schedule.name == "plateau":
            words.append(f"its plateau schedule has also seen an evaluation at step {before:,}")
        if new.train.stop_after:
            words.append(f"its early stopping has also seen an evaluation at step {before:,}")
    said = tuple(f"Continued from {done:,} to {after:,} steps: {each}" for each in words)
    kept = tuple(each for each in old.deviations if each.startswith("Continued from "))
    return dataclasses.replace(
        new, deviations=tuple(dict.fromkeys((*new.deviations, *kept, *said)))
    )


def erase_runs(folders: Iterable[Path]) -> None:
    """Deletes the files of runs in their folders, and no other files.

    Nothing is deleted unless all of the folders can be locked.

    Args:
      folders: The folders of the runs. Missing folders are skipped.

    Raises:
      UserError: If another process uses one of the folders, or a file cannot be deleted.
    """
    there = [folder for folder in folders if folder.exists()]
    with contextlib.ExitStack() as stack:
        for folder in there:
            stack.enter_context(run_lock.hold(folder))
        for folder in there:
            with explain_os_errors(f"cannot delete the run in {folder}"):
                _erase(folder)


def _erase(folder: Path) -> None:
    saved, erased = folder / file_names.CHECKPOINTS, folder / file_names.ERASED_CHECKPOINTS
    _delete(erased)  # Of a deletion that was cut off.
    # Deleting them takes long. Renamed first, all of them are gone at once.
    with contextlib.suppress(FileNotFoundError):
        os.replace(saved, erased)
    for name in RUN_FILES:
        _delete(folder / name)


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
