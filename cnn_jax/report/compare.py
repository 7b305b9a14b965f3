"""Compares finished runs of any folders in one table and one figure."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.config import Experiment, flatten
from cnn_jax.errors import UserError, explain_os_errors, join_messages
from cnn_jax.files import find_files, read_seed
from cnn_jax.report import parts as make
from cnn_jax.report.build import write_page
from cnn_jax.report.elements import Cell, Missing, Page, Report, Settings, Table
from cnn_jax.report.reading.folder import leave_out_others, read_runs
from cnn_jax.report.results import Results, Run, StudyFile
from cnn_jax.report.rows import Row
from cnn_jax.values import format_value

# Fields that identify a run, and fields that have their own columns.
_LEFT_OUT = ("study", "name", "seed", "deviations", "data.dataset", "model", "train.steps")
FOOTNOTE = (
    "Errors are the mean ± sample standard deviation over the finished seeds at their last"
    " evaluation. The training error is the last one logged, a mean over the last log interval."
    " Errors on different data are not comparable."
)


def compare(folders: Sequence[str | os.PathLike], out: str | os.PathLike) -> Report:
    """Writes compare.md, compare.html and compare.png of the finished runs of several folders.

    Args:
      folders: Workdirs of studies, exported results, or folders of runs. All runs below them are
        compared.
      out: Folder to write to; it is created.

    Returns:
      The paths of the files that were written.

    Raises:
      UserError: If there is no run below a folder, or no run is finished.
    """
    problems: list[str] = []
    found: dict[str, tuple[Run, ...]] = {}
    origins: dict[str, str] = {}
    every = {}
    for folder in itertools.chain(*(_list_places(Path(given)) for given in folders)):
        own: list[str] = []
        every[folder] = read_runs(folder, own)
        problems += [_name_place(folder, problem) for problem in own]
    for folder, runs in every.items():
        if not runs:
            raise UserError(f"{folder}: no run below it: give a study's workdir or a run's folder")
    for folder, runs in every.items():
        for name, seeds in runs.items():
            shared = sum(name in other for other in every.values()) > 1
            label = f"{name} ({_name_origin(folder, name)})" if shared else name
            if label in found:
                label = f"{name} ({folder})"
            found[label] = seeds
            origins[label] = str(folder)
    finished = {}
    for label, seeds in found.items():
        own = []
        kept = leave_out_others([run for run in seeds if run.finished and run.experiment], own)
        problems += [_name_place(Path(origins[label]), problem) for problem in own]
        if kept:
            finished[label] = tuple(kept)
    if not finished:
        why = f" ({join_messages(problems)})" if problems else ""
        raise UserError(f"{', '.join(map(str, folders))}: no run there is finished{why}")
    results = _make_results(Path(out), finished, tuple(problems))
    rows = [
        Row(label, label, f"data {runs[0].experiment.data.name}", "")
        for label, runs in finished.items()
        if runs[0].experiment
    ]
    left_out = tuple(
        f"{label}: {make.describe_states(seeds)}"
        for label, seeds in found.items()
        if not all(run.finished for run in seeds)
    )
    page = Page(
        results.study.title,
        (
            make.facts(results),
            Missing("Left out", left_out, "") if left_out else None,
            make.problems(results),
            _make_table(finished, origins),
            make.error_curves(results, rows, file="compare.png"),
            _make_settings(finished, origins),
        ),
    )
    with explain_os_errors(f"cannot write to {out}", "choose another workdir"):
        Path(out).mkdir(parents=True, exist_ok=True)
    return write_page(page, Path(out), "compare")


def _list_places(folder: Path) -> list[Path]:
    """Returns a folder, unless all its runs are in exports below it, and these exports."""
    found = [path.parent for path in find_files(folder, file_names.COMPACT_RUNS)]
    below = [place for place in found if place != folder and place.name != file_names.TRIALS]
    return [folder, *below] if not below or read_runs(folder, []) else below


def _name_origin(folder: Path, run: str) -> str:
    """Returns the name of the workdir that contains a run's folder."""
    place = Path(os.path.abspath(folder))
    if read_seed(place.name) is not None:
        place = place.parent
    if place.name == run and place.parent.name:
        place = place.parent
    return place.name


def _name_place(folder: Path, problem: str) -> str:
    """Returns a message about a run with the folder that it was read from."""
    return problem if problem.startswith(str(folder / "_")[:-1]) else f"{folder / problem}"


def _make_results(
    out: Path, runs: dict[str, tuple[Run, ...]], problems: tuple[str, ...]
) -> Results:
    study = StudyFile(
        name="compare",
        title=f"Comparison of {len(runs)} run{'s' * (len(runs) != 1)}",
        paper="",
        paper_data="",
        preset="",
        file="",
        data="",
        command="",
        seeds=1,
        runs=tuple(runs),
        notes=(),
        swept=(),
        swept_from={},
        paper_runs={},
        commit="",
        measured=(),
        tuning={},
    )
    renamed = {label: tuple(replace(run, name=label) for run in own) for label, own in runs.items()}
    return Results(out, study, renamed, problems)


def _make_table(runs: dict[str, tuple[Run, ...]], origins: dict[str, str]) -> Table:
    flat = {
        label: flatten(own[0].experiment) if own[0].experiment else {}
        for label, own in runs.items()
    }
    whole = {label: _get_defaults(own[0].experiment) | flat[label] for label, own in runs.items()}
    fields = list(dict.fromkeys(field for own in flat.values() for field in own))
    other = [
        field
        for field in fields
        if field not in _LEFT_OUT
        and len({format_value(own.get(field)) for own in whole.values()}) > 1
    ]
    metrics = list(dict.fromkeys(run.error_name for own in runs.values() for run in own))
    rows = []
    for label, own in runs.items():
        line: list[Cell | str] = [label, str(flat[label].get("model", make.DASH))]
        line += [own[0].experiment.data.name if own[0].experiment else make.DASH]
        for metric in metrics:
            line += [make.format_final_error(own, metric), make.format_training_error(own, metric)]
        line += [str(len(own)), f"{own[0].steps:,}" if own[0].steps else make.DASH]
        words = [
            f"{field} {format_value(flat[label][field])}" for field in other if field in flat[label]
        ]
        rows.append((*line, origins[label], "; ".join(words) or make.DASH))
    heads = [h for m in map(make.name_metric, metrics) for h in (m, f"training {m}")]
    columns = ("run", "model", "data", *heads, "seeds", "steps", "folder", "other settings")
    last = len(columns) - 1
    return Table("Runs", columns, tuple(rows), FOOTNOTE, left=(0, 1, 2, last - 1, last))


def _get_defaults(experiment: Experiment | None) -> dict[str, Any]:
    """Returns {field: default} of the options of a run's model and data set."""
    from cnn_jax import models  # It imports JAX.
    from cnn_jax.data import datasets

    if experiment is None:
        return {}
    of_data = datasets.get_defaults(experiment.data.dataset.name)
    of_model = models.get_defaults(experiment.model.name)
    return {
        **{f"data.dataset.{option}": value for option, value in of_data.items()},
        **{f"model.{option}": value for option, value in of_model.items()},
    }


def _make_settings(runs: dict[str, tuple[Run, ...]], origins: dict[str, str]) -> Settings:
    items = tuple(
        (
            label,
            tuple(
                (f"{origins[label]}/{run.folder}/{file_names.CONFIG}", run.config) for run in own
            ),
        )
        for label, own in runs.items()
    )
    return Settings(items, linked=False)
