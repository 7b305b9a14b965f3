"""Reads a study's folder, or the folders of any runs.

A study's folder contains study.json and, for each run and seed, either a folder <run>/seed<k> with
config.json, starts.jsonl, metrics.jsonl and evaluations/<protocol>.json, or an entry of the compact
runs.json that `cnn_jax.report.export` writes.

Only a damaged study.json is an error. Damaged parts of a run's files are ignored, and a message
names them and the remedy.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cnn_jax import file_names
from cnn_jax.config import RUNTIME_FIELDS, Experiment, find_differences
from cnn_jax.errors import UserError
from cnn_jax.files import find_files, find_seeds, name_run_folder, read_seed
from cnn_jax.report.claims import Claim
from cnn_jax.report.reading.run_files import RunFiles, read_compact, read_run_files
from cnn_jax.report.reading.runs import make_run
from cnn_jax.report.reading.study_file import read_study_file
from cnn_jax.report.results import Results, Run, StudyFile
from cnn_jax.report.rows import Row
from cnn_jax.tuning import Tuning, restore_tuning


def read(
    workdir: Path,
    rows: Iterable[Row] = (),
    claims: Iterable[Claim] = (),
    tuning: Tuning | None = None,
) -> Results:
    """Reads a study's folder.

    Args:
      workdir: The folder.
      rows: The study's rows.
      claims: The study's claims.
      tuning: How the study tunes its runs; None: it does not. The grid and the budget are those
        of study.json.

    Raises:
      UserError: If study.json is missing or damaged.
    """
    study = read_study_file(workdir)
    problems: list[str] = []
    kept = read_compact(workdir, problems)
    runs = {name: _read_seeds(workdir, study, name, kept, problems) for name in study.runs}
    compact = bool(kept) and not any((workdir / name).is_dir() for name in study.runs)
    if study.tuning == {}:  # The last launch has set the field that the study tunes.
        tuning = None
    trials = read_runs(workdir / file_names.TRIALS, problems) if tuning else {}
    tuning = restore_tuning(tuning, study.tuning or {}) if tuning and trials else None
    return Results(
        workdir,
        study,
        runs,
        tuple(problems),
        compact,
        tuple(rows),
        tuple(claims),
        tuning,
        trials,
    )


def read_runs(place: Path, problems: list[str]) -> dict[str, tuple[Run, ...]]:
    """Reads every run below a folder: a study's workdir, a run's folder, or one of its seeds.

    Args:
      place: The folder.
      problems: A message is appended for each damaged file.

    Returns:
      {name of the run: its seeds}. If several workdirs have a run of this name, the name includes
      the folders between, such as laptop-digits/plain-20.
    """
    kept = read_compact(place, problems)
    found = dict(kept)  # {(the run's folder, relative to this one, and seed): its files}
    names = {run: run for run, _ in kept}
    for path in find_files(place, file_names.CONFIG):
        name, own = name_run_folder(path.parent)
        if (seed := read_seed(own)) is not None:
            inside = path.parent.relative_to(place)
            folder = str(inside.parent)
            names[folder] = name
            found[folder, seed] = read_run_files(place, str(inside), problems)
    count = Counter(names.values())
    runs: dict[str, list[Run]] = {}
    for folder, seed in sorted(found):
        alone = count[names[folder]] == 1 or folder == "."
        name = names[folder] if alone else folder
        runs.setdefault(name, []).append(make_run(name, seed, found[folder, seed], problems))
    return {name: tuple(seeds) for name, seeds in runs.items()}


def _read_seeds(
    workdir: Path,
    study: StudyFile,
    name: str,
    kept: Mapping[tuple[str, int], RunFiles],
    problems: list[str],
) -> tuple[Run, ...]:
    """Reads the seeds of a run: those of the last launch, and others that earlier ones trained."""
    there = find_seeds(workdir / name)
    every = there | {seed for run, seed in kept if run == name} | set(range(study.seeds))
    runs = []
    for seed in sorted(every):
        folder = f"{name}/seed{seed}"
        if seed in there or (name, seed) not in kept:
            files = read_run_files(workdir, folder, problems)
        else:
            files = kept[name, seed]
        run = make_run(name, seed, files, problems)
        if seed < study.seeds or run.state != "not started":
            runs.append(run)
    return tuple(leave_out_others(runs, problems))


def leave_out_others(runs: Sequence[Run], problems: list[str]) -> Sequence[Run]:
    """Returns the seeds that have the configuration of the seed that was started last.

    The others are of earlier launches with other settings, and in no mean with these.

    Args:
      runs: The seeds of a run.
      problems: A message is appended for each seed that is left out.
    """
    known = [run for run in runs if run.experiment]
    newest = max(known, key=lambda run: max((s.time for s in run.starts), default=""), default=None)
    if newest is None:
        return runs
    kept = []
    for run in runs:
        if changed := _find_changes(run, newest):
            problems.append(
                f"{run.folder}: left out, because seed {newest.seed}, which was started last, has"
                f" another configuration ({'; '.join(changed)}); a launch with"
                f" --seeds={run.seed + 1} trains it with that too, or says why not"
            )
        else:
            kept.append(run)
    return kept


def _find_changes(old: Run, new: Run) -> list[str]:
    """Returns the settings, apart from the seed, in which two seeds of a run differ."""
    ignored = (*RUNTIME_FIELDS, "seed")
    if not old.experiment or not new.experiment:
        return []
    if not find_differences(old.experiment, new.experiment, ignored):
        return []
    from cnn_jax.training.components import find_changes  # It imports JAX.

    # One may have been written before an option was added, whose default it has.
    return find_changes(_complete(old.experiment), _complete(new.experiment), ignored)


def _complete(experiment: Experiment) -> Experiment:
    from cnn_jax.training.components import complete

    with contextlib.suppress(UserError):  # It has another version.
        return complete(experiment)
    return experiment
