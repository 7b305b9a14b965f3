"""The folder of a run: to which run it belongs, config.json and data.json, and its deletion."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from cnn_jax import data, distributed
from cnn_jax.config import RUNTIME_FIELDS, Experiment, find_differences
from cnn_jax.config_file import read_config, to_json
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.optim import schedule_depends_on_steps
from cnn_jax.text import printable
from cnn_jax.training import run_lock
from cnn_jax.training.components import complete

# What may not change of data.json while a run is trained.
DATA_FIELDS = ("train_images", "test_images", "num_classes", "class_names", "checksum")
RUN_FILES = (
    "config.json",
    "data.json",
    "starts.jsonl",
    "metrics.jsonl",
    "metrics.damaged.jsonl",
    "layers.jsonl",
    "digests.json",
    "checkpoints",
    "damaged_checkpoints",
    "evaluations",
    "tensorboard",
    "profile",
)


def run_folder(experiment: Experiment, workdir: str | Path) -> Path:
    """Returns a run's folder: <workdir>/<run>/seed<k>."""
    return Path(workdir) / experiment.name / f"seed{experiment.seed}"


def check_folder(experiment: Experiment, folder: Path) -> None:
    """Raises UserError if the folder holds another configuration.

    More steps are allowed: they continue the run.
    """
    there = read_config_there(folder)
    if there is None or is_continued(there, experiment):
        return
    if changed := find_differences(there, experiment, RUNTIME_FIELDS):
        raise UserError(
            f"{folder} holds another configuration ({'; '.join(changed)}): choose another workdir,"
            " repeat the flags it was made with, or start again with --overwrite"
        )


def read_config_there(folder: Path) -> Experiment | None:
    """Returns the configuration of a run's folder; None: there is no run.

    Options of the optimizer and the schedule that came after the run was started are at their
    defaults, which are what was done before them.

    Raises:
      UserError: If config.json cannot be read.
    """
    path = folder / "config.json"
    with explain_os_errors(f"{path} cannot be read", "choose another workdir"):
        there = read_config(path) if path.exists() else None
    with contextlib.suppress(UserError):  # It has another version and therefore differs.
        return complete(there) if there else None
    return there


def is_continued(old: Experiment, new: Experiment) -> bool:
    """Returns whether an experiment differs from another only in that it has more steps."""
    longer = dataclasses.replace(old, train=dataclasses.replace(old.train, steps=new.train.steps))
    more = new.train.steps > old.train.steps
    return more and not find_differences(longer, new, RUNTIME_FIELDS)


def is_longer(experiment: Experiment, workdir: Path) -> bool:
    """Returns whether a run of the workdir is an experiment with fewer steps."""
    there = read_config_there(run_folder(experiment, workdir))
    return there is not None and is_continued(there, experiment)


def write_config(experiment: Experiment, folder: Path) -> None:
    """Writes config.json, which makes the folder this run's.

    Raises:
      UserError: If it cannot be written.
    """
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        there = read_config_there(folder)
        if there is None:
            write_whole(folder / "config.json", to_json(experiment))
        elif is_continued(there, experiment):
            write_whole(folder / "config.json", to_json(_with_deviation(there, experiment)))


def check_data(description: dict[str, Any], folder: Path, finished: bool = False) -> None:
    """Checks that the data set of a run is the one that it was trained on.

    Args:
      description: The result of `cnn_jax.data.describe_dataset`.
      folder: The run's folder. A description in it that is missing or damaged is not compared.
      finished: Whether the run is not trained any further. Its test images may then be others,
        unless they are taken from the training images by counting: added files shift that split.

    Raises:
      UserError: If the data set has changed.
    """
    try:
        there = json.loads((folder / "data.json").read_bytes())
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
            before, now = (printable(str(each[name]))[:100] for each in (there, description))
            raise UserError(
                f"the data set is another one than {folder} was trained on ({name}: {before} then,"
                f" {now} now): restore it, or start again with --overwrite or another workdir; if"
                f" only {folder / 'data.json'} is damaged, delete that file"
            )


def _keep_training_part(description: dict[str, Any]) -> dict[str, Any]:
    """Returns a description whose checksum is that of the training images alone."""
    if "checksum" not in description:
        return description
    return description | {"checksum": str(description["checksum"])[:8]}


def follow_moved_data(experiment: Experiment, folder: Path) -> None:
    """Checks a data set that lies in another place than config.json says, and writes the new place.

    Args:
      experiment: A run that `check_folder` has accepted.
      folder: The run's folder.

    Raises:
      UserError: If the data set is another one than the run was trained on, or cannot be read.
    """
    there = read_config_there(folder)
    if there is None or there.data.dataset == experiment.data.dataset:
        return
    check_data(data.describe_dataset(data.load_dataset(experiment.data)), folder)
    if distributed.is_primary():
        moved = dataclasses.replace(there.data, dataset=experiment.data.dataset)
        with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
            write_whole(folder / "config.json", to_json(dataclasses.replace(there, data=moved)))


def write_data(description: dict[str, Any], folder: Path) -> None:
    """Writes data.json, the description of the data set.

    Args:
      description: The result of `cnn_jax.data.describe_dataset`.
      folder: The run's folder.

    Raises:
      UserError: If it cannot be written.
    """
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        write_whole(folder / "data.json", json.dumps(description, indent=2) + "\n")


def _with_deviation(old: Experiment, new: Experiment) -> Experiment:
    """Returns the longer run, with how it differs from an uninterrupted run of its length."""
    before, after = old.train.steps, new.train.steps
    words = []
    if schedule_depends_on_steps(new.schedule, before, after):
        words.append(
            f"its learning rates to step {before:,} are those of a run of {before:,} steps"
        )
    if new.schedule.name == "plateau" and before % new.train.eval_every:
        words.append(f"its plateau schedule has also seen an evaluation at step {before:,}")
    said = tuple(f"Continued from {before:,} to {after:,} steps: {each}" for each in words)
    kept = tuple(each for each in old.deviations if each.startswith("Continued from "))
    return dataclasses.replace(
        new, deviations=tuple(dict.fromkeys((*new.deviations, *kept, *said)))
    )


def erase_run(folder: Path) -> None:
    """Deletes a run's own files in its folder, and nothing else.

    Raises:
      UserError: If another process uses the folder, or a file cannot be deleted.
    """
    if not folder.exists():
        return
    with explain_os_errors(f"cannot delete the run in {folder}"), run_lock.hold(folder):
        for name in RUN_FILES:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
