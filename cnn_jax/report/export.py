"""Exports a study's results as few files: the report, its figures, its claims, and all curves."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.report import build
from cnn_jax.report.elements import Figure, Report
from cnn_jax.report.reading.folder import read
from cnn_jax.report.reading.run_files import (
    COMPACT_VERSION,
    RunFiles,
    read_compact,
    read_run_files,
)
from cnn_jax.report.reading.study_file import read_study_file
from cnn_jax.report.results import Run

# Fields of an evaluation's file that are large and that no report reads.
_LEFT_OUT = ("confusion", "error_by_class")


def export(
    workdir: str | os.PathLike,
    out: str | os.PathLike,
    study: build.ReportedStudy | None = None,
) -> Report:
    """Copies a study's results, without checkpoints, to another folder.

    The new folder contains study.json, runs.json (the settings, launches, logs and evaluations of
    all runs), report.md, the figures and claims.json. `build` can build the same report from it.

    Args:
      workdir: The study's folder.
      out: The new folder, which is created.
      study: The study that composes the page; None: as for `build.build`.

    Returns:
      The paths of the new report.

    Raises:
      UserError: If the folder has no study.json or has damaged files, or `out` cannot be written.
    """
    source, target = Path(workdir), Path(out)
    study_file = read_study_file(source)
    study = study or build.find_study(source, study_file)
    results = read(source, study.rows, study.claims, study.tuning)
    if results.problems:
        raise UserError(f"{source}: {results.problems[0]}")
    with explain_os_errors(f"cannot write to {target}"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file_names.STUDY, target / file_names.STUDY)
        _write_runs(source, results.every_run, target)
        if results.trials:
            (target / file_names.TRIALS).mkdir(exist_ok=True)
            trials = [run for seeds in results.trials.values() for run in seeds]
            _write_runs(source / file_names.TRIALS, trials, target / file_names.TRIALS)
        for figure in build.compose(results, study).find(Figure):
            if figure.svgs is None:  # The report does not draw it: the study wrote this file.
                shutil.copyfile(source / figure.file, target / figure.file)
    return build.build(target, study, html=False)


def _write_runs(source: Path, runs: Iterable[Run], target: Path) -> None:
    """Writes runs.json, unless no run has been started."""
    kept = read_compact(source, [])
    lines = []
    for run in runs:
        if not run.config:
            continue
        files = kept.get((run.name, run.seed))
        if files is None or (source / run.folder).is_dir():
            files = read_run_files(source, run.folder, [])
        words = _describe_run(files, run.name, run.seed)
        lines.append(json.dumps(words, separators=(",", ":")))
    if lines:
        joined = ",\n".join(lines)
        text = f'{{"version":{COMPACT_VERSION},"runs":[\n{joined}\n]}}\n'
        write_whole(target / file_names.COMPACT_RUNS, text)


def _describe_run(files: RunFiles, name: str, seed: int) -> dict[str, Any]:
    evaluations = {
        protocol: {key: value for key, value in words.items() if key not in _LEFT_OUT}
        for protocol, words in files.evaluations.items()
    }
    return {
        "run": name,
        "seed": seed,
        "config": json.loads(files.config),
        "starts": files.starts,
        "metrics": files.metrics,
        "evaluations": evaluations,
        **({"layers": files.layers} if files.layers else {}),
    }
