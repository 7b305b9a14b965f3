"""Reads study.json, which describes the study that wrote a folder."""

import json
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.errors import UserError, explain_os_error
from cnn_jax.report.reading.json_values import is_count, is_list_of, is_number
from cnn_jax.report.results import StudyFile
from cnn_jax.report.rows import Setting


def read_study_file(workdir: Path) -> StudyFile:
    """Reads study.json.

    Args:
      workdir: The study's folder.

    Raises:
      UserError: If the file is missing or damaged.
    """
    path = workdir / file_names.STUDY
    again = "delete it, and launch the study again"
    try:
        words = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{workdir} is not the folder of a study, because it has no study.json; run the study"
            f" first: python launch.py --experiment=NAME --workdir={workdir}"
        ) from None
    except OSError as error:
        raise explain_os_error(f"{path} cannot be read", error) from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON; {again}") from None
    if not isinstance(words, dict):
        raise UserError(f"{path} is not a JSON object; {again}")
    if "rows" in words and "runs" not in words:
        raise UserError(
            f"{path} was written by an older version of cnn_jax: build the report with the commit"
            " that starts.jsonl names, or run the study again in another workdir"
        )
    texts = ("name", "title", "paper", "paper_data", "preset", "data", "command")
    for key in texts:
        if not isinstance(words.get(key), str):
            raise UserError(f"{path}: {key} is missing or not a text; {again}")
    for key in ("runs", "notes", "swept"):
        if not is_list_of(words.get(key), str):
            raise UserError(f"{path}: {key} is missing or not a list of texts; {again}")
    if not is_count(words.get("seeds")):
        raise UserError(f"{path}: seeds is missing or not a count; {again}")
    measured = words.get("measured", [])
    if not is_list_of(measured, dict):
        raise UserError(f"{path}: measured is not a list of objects; {again}")
    swept_from = words.get("swept_from", {})
    if not isinstance(swept_from, dict) or not is_list_of(list(swept_from.values()), str):
        raise UserError(f"{path}: swept_from is damaged; {again}")
    if not words["runs"] and not measured:
        raise UserError(f"{path}: has no runs to report; {again}")
    return StudyFile(
        **{key: words[key] for key in texts},
        file=str(words.get("file", "")),
        seeds=words["seeds"],
        runs=tuple(words["runs"]),
        notes=tuple(words["notes"]),
        swept=tuple(words["swept"]),
        swept_from=swept_from,
        paper_runs=_read_settings(path, words.get("paper_runs", {}), again),
        commit=str(words.get("commit", "")),
        measured=tuple(measured),
        tuning=_read_tuning(path, words["tuning"], again) if "tuning" in words else None,
    )


def _read_tuning(path: Path, words: Any, again: str) -> dict[str, Any]:
    if not isinstance(words, dict):
        raise UserError(f"{path}: tuning is not a JSON object; {again}")
    values = words.get("values", [1])
    fine = isinstance(values, list) and values and all(map(is_number, values))
    fine = fine and all(is_count(words.get(k, 0)) for k in ("seeds", "steps", "validation_images"))
    if not fine or not all(isinstance(words.get(key, ""), str) for key in ("field", "runs")):
        raise UserError(f"{path}: tuning is damaged; {again}")
    return words


def _read_settings(path: Path, items: Any, again: str) -> dict[str, Setting]:
    try:
        settings = {name: Setting(**setting) for name, setting in items.items()}
        assert all(isinstance(s.model, str) and isinstance(s.data, str) for s in settings.values())
        assert all(is_count(s.steps) for s in settings.values())
        texts = [(s.options, s.changes or {}) for s in settings.values()]
        assert all(is_list_of([*t, *t.values()], str) for pair in texts for t in pair)
    except (AttributeError, TypeError, AssertionError):
        raise UserError(f"{path}: paper_runs is damaged; {again}") from None
    return settings
