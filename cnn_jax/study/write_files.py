"""Writes a study's own files into its folder: study.json, crops.png and sheet.png."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.config import Data
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.report.reading.json_values import is_list_of
from cnn_jax.report.rows import Row, describe_setting
from cnn_jax.study.definition import Study
from cnn_jax.tuning import describe_tuning


def describe_data(data: Data) -> str:
    """Returns a data set in words: its name, and how many training images are held out."""
    held_out = data.validation_images
    return data.name + (f", {held_out} training images held out" if held_out else "")


def describe_study(study: Study, seeds: int, command: str) -> dict[str, Any]:
    """Returns the content of study.json, from which a report reads what the study and its runs are.

    Args:
      study: The study.
      seeds: Number of seeds of each run.
      command: The command that runs the whole study.
    """
    first = next(iter(study.runs.values()), None)
    return {
        "name": study.name,
        "title": study.title,
        "paper": study.paper,
        "paper_data": study.paper_data,
        "preset": study.preset,
        "data": describe_data(first.data) if first else "",
        "command": command,
        "seeds": seeds,
        "notes": list(study.notes),
        "runs": list(study.runs),
        "tuning": describe_tuning(study.tuning),
        "swept": list(study.swept),
        "swept_from": {row.run: row.group for row in study.rows} if study.swept else {},
        "paper_runs": {
            name: dataclasses.asdict(describe_setting(paper))
            for name, paper in study.paper_runs.items()
        },
        "file": study.file,
    }


def check_study(study: Study, folder: Path) -> None:
    """Checks that a folder holds no other study, preset or data set.

    The path of a data set may differ, because a folder may move, and each machine may have its own.

    Args:
      study: The study.
      folder: The folder, which may be empty or missing.

    Raises:
      UserError: If the folder holds another study, preset or data set.
    """
    there, words = _read_file(folder), describe_study(study, 1, "")
    own = {"data": words["data"], **there}
    same_data = _leave_out_path(str(own["data"])) == _leave_out_path(words["data"])
    if not same_data or any(there.get(key, words[key]) != words[key] for key in ("name", "preset")):
        raise UserError(
            f"{folder} holds {there.get('name')}, preset {there.get('preset')}, with the data"
            f" {there.get('data')}: choose another workdir"
        )


def _leave_out_path(data: str) -> str:
    """Returns the result of `describe_data` without a path: 'folder' of 'folder:PATH'."""
    place, comma, held_out = data.rpartition(", ") if data.endswith("held out") else (data, "", "")
    return place.partition(":")[0] + comma + held_out


def _read_file(folder: Path) -> dict[str, Any]:
    """Returns the content of study.json, or {} if the file is missing or damaged."""
    try:
        there = json.loads((folder / file_names.STUDY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return there if isinstance(there, dict) else {}


def write_study(
    study: Study,
    folder: Path,
    seeds: int,
    command: str,
    measured: list[dict[str, Any]] | None = None,
) -> None:
    """Writes study.json.

    Args:
      study: The study.
      folder: The study's folder, which is created if it is missing.
      seeds: Number of seeds of each run.
      command: The command that runs the whole study; the report shows it.
      measured: The rows of `Study.measure` or `Study.measure_runs`; None: the rows in the folder's
        study.json are kept, with the commit that measured them.

    Raises:
      UserError: If the folder holds another study, or cannot be written to.
    """
    from cnn_jax.training import environment

    check_study(study, folder)
    words, there = describe_study(study, seeds, command), _read_file(folder)
    if measured is not None:
        words |= {"measured": measured, "commit": environment.find_commit()}
    elif is_list_of(there.get("measured"), dict):
        words |= {key: there[key] for key in ("measured", "commit") if key in there}
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / file_names.STUDY, json.dumps(words, indent=2) + "\n")


def write_crops(study: Study, folder: Path, anew: bool = False) -> None:
    """Writes crops.png and sheet.png: training images as the models see them.

    crops.png has a row for each training scale of full-size images. If `study.contact_sheet` is
    set, sheet.png has a row for each way in which runs prepare their images.

    Args:
      study: The study.
      folder: The study's folder.
      anew: Whether to draw files again that exist. Runs that start anew may prepare their images in
        another way.
    """
    scales = {
        f"S = {'-'.join(map(str, one.data.train_resize))}": one.data
        for one in study.runs.values()
        if one.data.image_size
    }
    runs: dict[Data, list[Row]] = {}
    for row in study.rows:
        runs.setdefault(study.runs[row.run].data, []).append(row)
    names = {rows[0].label if len(rows) == 1 else rows[0].group: one for one, rows in runs.items()}
    sheets = {file_names.CROPS: scales, file_names.SHEET: names if study.contact_sheet else {}}
    for name, each in sheets.items():
        path = folder / name
        if anew:
            path.unlink(missing_ok=True)
        if each and not path.exists():
            from cnn_jax.data import inspect

            image = io.BytesIO()
            inspect.draw_crops(each).savefig(image, format="png", dpi=80)
            with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
                write_whole(path, image.getvalue())
