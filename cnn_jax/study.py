"""Studies: a paper's comparison of runs, and `run`, which trains it and builds its report."""

import contextlib
import dataclasses
import fnmatch
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_jax import user_file
from cnn_jax.config import RUNTIME_FIELDS, Data, Experiment, dataset, find_differences
from cnn_jax.errors import UserError, explain_os_errors, nearest
from cnn_jax.files import expand_path, write_whole
from cnn_jax.report.claims import Claim as Claim
from cnn_jax.report.rows import Row as Row
from cnn_jax.report.rows import describe_setting
from cnn_jax.tuning import FOLDER, Tuning, apply_choices, describe_tuning, make_trials

if TYPE_CHECKING:
    from cnn_jax.report.elements import Page, Report
    from cnn_jax.report.results import Results


MeasureRuns = Callable[[Path, list[Experiment], Callable[[str], None]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Study:
    """A paper's comparison: its runs, its table, and what a reader must know.

    Attributes:
      name: Its name on the command line.
      title: Of its report.
      paper: Authors, year, section.
      paper_data: The data set of the paper's figures; a difference from other data means nothing.
      preset: Which size of the study this is, such as laptop or paper.
      runs: The experiments by name, in the order of training.
      rows: The lines of the table.
      notes: For the report.
      claims: The paper's statements, and how to check them.
      report: Composes the report's page from the results, with the parts of `cnn_jax.report`; None:
        tables of the rows, a figure, notes and claims.
      paper_runs: The paper's own recipe of each run, which deviations are measured against.
      measure: Counts what the study compares, where nothing is trained: () -> a list of rows.
      tuning: How a field of the runs is chosen before they are trained; None: they are as they
        stand.
      measure_runs: Measures what is trained, where the evaluation protocols do not: (workdir, every
        seed of every run, a function that takes lines) -> a list of rows, which study.json keeps.
      swept: The fields that a sweep varies.
      contact_sheet: Whether sheet.png shows training images of each run as its model sees them.
      file: The Python file of a user's study; `load` sets it.
    """

    name: str
    title: str
    paper: str
    paper_data: str
    preset: str
    runs: dict[str, Experiment]
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    report: "Callable[[Results], Page] | None" = None
    paper_runs: dict[str, Experiment] = field(default_factory=dict)
    measure: Callable[[], list[dict[str, Any]]] | None = None
    tuning: Tuning | None = None
    measure_runs: MeasureRuns | None = None
    swept: tuple[str, ...] = ()
    contact_sheet: bool = False
    file: str = ""


# How often a run is logged, or how it is compiled, changes none of its numbers.
HARMLESS_FIELDS = (
    *RUNTIME_FIELDS,
    "study",
    "name",
    "seed",
    "model.scan_min_blocks",
    "model.remat",
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "log.layer_statistics",
)

# {data set: augmentation that replaces a preset's}: for example, digits must not be mirrored.
AUGMENTATION: dict[str, dict[str, Any]] = {
    "digits": {"pad_and_crop": 1, "flip": False},
    "mnist": {"pad_and_crop": 4, "flip": False},
    "cifar10": {"pad_and_crop": 4, "flip": True},
}


def load(name: str, preset: str, studies: Mapping[str, Callable[[str], Study]]) -> Study:
    """Returns a study by its name, or that of a user's file by its path.

    Args:
      name: A name of `studies`, or the path of a Python file that defines `study(preset)`.
      preset: Which size of the study.
      studies: The studies by name.

    Raises:
      UserError: If there is no such study, file or preset.
    """
    if name in studies:
        return studies[name](preset)
    if name.endswith(".py") or "/" in name:
        return _load_file(expand_path("experiment", name), preset)
    raise UserError(f"experiment={name}: no such study; {nearest(name, studies)}")


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
    """Returns the study with its runs changed, complete, and with their deviations listed.

    A field that is set is not tuned.

    Args:
      study: The study.
      overrides: Such as 'schedule.base=0.05', for every run.
      data: Another data set, with the augmentation that suits it.
      data_dir: Where prepared TFDS folders lie.

    Raises:
      UserError: If a field has a value that it cannot have.
    """
    changes = tuple(overrides)
    runs = {}
    for name, run in study.runs.items():
        paper = study.paper_runs.get(name, run)
        runs[name] = _configure_run(run, paper, changes, data, data_dir)
    tuning = study.tuning
    if tuning and any(change.partition("=")[0].strip() == tuning.field for change in changes):
        tuning = None
    return dataclasses.replace(study, runs=runs, tuning=tuning)


def _configure_run(
    run: Experiment, paper: Experiment, changes: tuple[str, ...], data: str, data_dir: str
) -> Experiment:
    from cnn_jax import models
    from cnn_jax.overrides import override
    from cnn_jax.training.components import KINDS, complete

    if data:
        suitable = AUGMENTATION.get(data, {})
        changed = dataclasses.replace(run.data, dataset=dataset(data), **suitable)
        run = dataclasses.replace(run, data=changed)
    if data_dir:
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, dir=data_dir))
    run = complete(override(run, changes, KINDS))
    of_model = models.deviations(run.model.name, **run.model.args)
    of_values = find_differences(complete(paper), run, HARMLESS_FIELDS)
    deviations = dict.fromkeys((*of_model, *run.deviations, *of_values))
    return dataclasses.replace(run, deviations=tuple(deviations))


def select(study: Study, only: str = "*", seeds: int = 1) -> list[Experiment]:
    """Returns the runs whose name matches a pattern, each with the seeds 0 to seeds - 1.

    Raises:
      UserError: If no run matches, or the study trains nothing.
    """
    if not study.runs:
        raise UserError(f"{study.name} trains nothing: it counts in seconds")
    names = fnmatch.filter(study.runs, only)
    if not names:
        raise UserError(f"run={only}: no such run in {study.name}; {nearest(only, study.runs)}")
    return [
        dataclasses.replace(study.runs[name], seed=seed) for name in names for seed in range(seeds)
    ]


def run(
    study: Study,
    workdir: str | Path,
    *,
    seeds: int = 1,
    only: str = "*",
    together: bool = False,
    profile_steps: int = 0,
    overwrite: bool = False,
    share: bool = False,
    command: str = "",
    tell: Callable[[str], None] = print,
) -> "Report | None":
    """Trains a study's runs one by one, evaluates them, and builds the report.

    Finished runs are skipped, and interrupted ones continue. A run that fails does not stop the
    others.

    Args:
      study: The study, `configure`d if anything of it is to change.
      workdir: Where the runs and the report are written.
      seeds: Each run is trained with the seeds 0 to seeds - 1.
      only: Only runs whose name matches this pattern.
      together: Train the seeds of a run at once, in one program.
      profile_steps: Number of steps of each run to trace.
      overwrite: Delete what the folder holds of these runs, and start them anew.
      share: Share the runs with other launches of the same command (`cnn_jax.sharing`).
      command: What makes the whole study, for the report.
      tell: Takes a line for each finished run.

    Returns:
      The report; None in all but the first of several processes, and in all but the last of the
      launches that share the runs.

    Raises:
      UserError: If something is wrong before the first run, or runs have failed.
      StoppedError: If a signal stopped a run, which is saved.
    """
    from cnn_jax import distributed, sharing
    from cnn_jax.report.build import build
    from cnn_jax.training import metrics_log

    folder = expand_path("workdir", workdir)
    study = _complete(study)
    if study.measure:
        write_study(study, folder, seeds, command, study.measure())
        return build(folder, study)
    if study.tuning:
        if share or profile_steps:
            raise UserError(
                f"{study.name} tunes {study.tuning.field} first: it takes neither share nor profile"
                f" unless {study.tuning.field} is set"
            )
        study = _tune(study, folder, only, overwrite, tell)
    runs = select(study, only, seeds)
    if share and overwrite:
        raise UserError("share: a launch with overwrite would delete what the others have trained")
    if share and distributed.is_distributed():
        raise UserError("share: each launch is one process, but several train together here")
    check_before_writing(study, runs, folder, together, seeds, profile_steps, overwrite)
    primary = distributed.is_primary()
    if primary:
        for one in runs if overwrite else ():
            metrics_log.erase_run(metrics_log.run_folder(one, folder))
        write_study(study, folder, seeds, command)
        write_crops(study, folder)
    if overwrite:
        distributed.barrier("earlier runs are deleted")
    size = seeds if together else 1
    groups = [runs[start : start + size] for start in range(0, len(runs), size)]
    with contextlib.ExitStack() as stack:
        turns: Iterable[tuple[int, Sequence[Experiment]]] = enumerate(groups)
        builds_report = primary
        if share:
            leave = stack.enter_context(sharing.join_launches(folder))
            turns = sharing.claim_groups(groups, folder, tell)
        failed = _train_all(turns, folder, len(runs), profile_steps, tell)
        if share:
            builds_report = leave()
        if failed and len(failed) == len(runs) and not any(folder.glob("*/seed*/metrics.jsonl")):
            raise UserError("; ".join(map(str, dict.fromkeys(failed.values()))))
        if builds_report and study.measure_runs:
            measured = study.measure_runs(folder, select(study, seeds=seeds), tell)
            write_study(study, folder, seeds, command, measured)
        report = build(folder, study) if builds_report else None
    if share and not report:
        tell(f"another launch still works in {folder}; the last one builds the report")
    if failed:
        words = "; ".join(map(str, dict.fromkeys(failed.values())))
        raise RunsFailedError(words, report)
    return report


def list_trials(study: Study, only: str = "*") -> list[Experiment]:
    """Returns the trials that tune the runs whose name matches a pattern, with their seeds."""
    if study.tuning is None:
        return []
    chosen = [study.runs[one.name] for one in select(study, only)]
    return [
        dataclasses.replace(trial, seed=seed)
        for trial in make_trials(study.tuning, chosen)
        for seed in range(study.tuning.seeds)
    ]


def _tune(
    study: Study, folder: Path, only: str, overwrite: bool, tell: Callable[[str], None]
) -> Study:
    """Returns the study with the values that trials have chosen, which are trained where missing.

    A trial whose loss is not finite is a result; one that fails ends the launch.
    """
    from cnn_jax import distributed
    from cnn_jax.report.read import read_runs
    from cnn_jax.training import metrics_log

    tuning = study.tuning
    assert tuning is not None
    place, trials = folder / FOLDER, list_trials(study, only)
    check_study(study, folder)
    check_before_writing(study, trials, place, False, 1, overwrite=overwrite)
    if overwrite:
        if distributed.is_primary():
            for one in trials:
                metrics_log.erase_run(metrics_log.run_folder(one, place))
        distributed.barrier("earlier trials are deleted")
    starts = range(0, len(trials), tuning.seeds)
    groups = [trials[start : start + tuning.seeds] for start in starts]
    failed = _train_all(enumerate(groups), place, len(trials), 0, tell)
    for error in failed.values():
        raise error
    chosen = {one.name: study.runs[one.name] for one in select(study, only)}
    chosen = apply_choices(tuning, chosen, read_runs(place, []))
    return dataclasses.replace(study, runs=study.runs | chosen)


class RunsFailedError(UserError):
    """Some runs of a study have failed.

    Attributes:
      report: What was built of the others.
    """

    def __init__(self, words: str, report: "Report | None") -> None:
        super().__init__(words)
        self.report = report


def _complete(study: Study) -> Study:
    """Returns the study with its deviations listed, unless `configure` has done it."""
    from cnn_jax.training.components import complete

    if all(run == complete(run) and run.deviations for run in study.runs.values()):
        return study
    return configure(study)


def check_before_writing(
    study: Study,
    runs: Sequence[Experiment],
    folder: Path,
    together: bool,
    seeds: int,
    profile_steps: int = 0,
    overwrite: bool = False,
) -> None:
    """Raises UserError for every error that can be detected before anything is written."""
    from cnn_jax.training import metrics_log
    from cnn_jax.training.components import make_components

    if together and seeds == 1:
        raise UserError("together: trains several seeds at once: ask for more than one")
    check_study(study, folder)
    for one in runs:
        own = metrics_log.run_folder(one, folder)
        if not overwrite:
            metrics_log.check_folder(one, own)
        if profile_steps >= one.train.steps:
            left = one.train.steps - 1
            raise UserError(
                f"profile={profile_steps}: after the first, {left} steps are left; ask for fewer"
            )
        make_components(one, seeds=seeds if together else 1)
        start = one.train.start_from
        if start and start not in {other.name for other in runs}:
            other = own.parent.with_name(start) / own.name
            if not metrics_log.read_result(own) and not metrics_log.read_result(other):
                raise UserError(
                    f"{one.name}: starts from {start}, which is not finished in {other}: run that"
                    " first"
                )


def _train_all(
    turns: Iterable[tuple[int, Sequence[Experiment]]],
    folder: Path,
    total: int,
    profile_steps: int,
    tell: Callable[[str], None],
) -> dict[Experiment, UserError]:
    """Trains groups of runs that differ only in their seed.

    Args:
      turns: (number, group), in the order of training.
      folder: The study's folder.
      total: The number of runs in all groups.
      profile_steps: Number of steps of each run to trace.
      tell: Takes a line for each run.

    Returns:
      What ended the runs that failed.
    """
    from cnn_jax import distributed
    from cnn_jax.training import metrics_log, train

    failed: dict[Experiment, UserError] = {}
    for turn, group in turns:
        began, size = time.perf_counter(), len(group)
        seeds = [one.seed for one in group]
        try:
            ends = train.run_seeds(group[0], seeds, folder, profile_steps)
        except UserError as error:
            if distributed.is_distributed():
                raise  # It may be this process's alone, and the others wait for it in this run.
            ends = dict.fromkeys(seeds, error)
        took = f"{time.perf_counter() - began:.0f} s" + (f", {size} together" if size > 1 else "")
        first = turn * size + 1
        for number, (one, end) in enumerate(zip(group, ends.values(), strict=True), first):
            if isinstance(end, UserError):
                failed[one] = end
                words = f"failed: {end}"
            else:
                words = metrics_log.error_words(end)
            if distributed.is_primary():
                tell(f"[{number}/{total}] {one.name} seed {one.seed}: {words} ({took})")
    return failed


def describe_data(data: Data) -> str:
    """Returns the data of a study in words."""
    held_out = data.validation_images
    return data.name + (f", {held_out} training images held out" if held_out else "")


def describe_study(study: Study, seeds: int, command: str) -> dict[str, Any]:
    """Returns the content of study.json, which tells the report about the study and its runs."""
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
    """Raises UserError if the folder holds another study, preset or data set."""
    try:
        there = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # Missing or damaged: it is written again.
    words = describe_study(study, 1, "")
    if not isinstance(there, dict):
        return
    if any(there.get(key, words[key]) != words[key] for key in ("name", "preset", "data")):
        raise UserError(
            f"{folder} holds {there.get('name')}, preset {there.get('preset')}, with the data"
            f" {there.get('data')}: choose another workdir"
        )


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
      folder: Its workdir, which is made.
      seeds: Seeds of each run.
      command: The command that runs the whole study.
      measured: What a study that trains nothing has measured.

    Raises:
      UserError: If the folder holds another study, or cannot be written to.
    """
    from cnn_jax.training import metrics_log

    check_study(study, folder)
    words = describe_study(study, seeds, command)
    if measured is not None:
        words |= {"measured": measured, "commit": metrics_log.find_commit()}
    with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "study.json", json.dumps(words, indent=2) + "\n")


def write_crops(study: Study, folder: Path) -> None:
    """Writes crops.png and sheet.png: training images as the models see them.

    crops.png has a row for each training scale of full-size images; sheet.png a row for each
    way in which runs prepare their images, if the study wants it.
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
    sheets = {"crops.png": scales, "sheet.png": names if study.contact_sheet else {}}
    for name, each in sheets.items():
        path = folder / name
        if each and not path.exists():
            from cnn_jax.data import inspect

            image = io.BytesIO()
            inspect.draw_crops(each).savefig(image, format="png", dpi=80)
            with explain_os_errors(f"cannot write to {folder}", "choose another workdir"):
                write_whole(path, image.getvalue())
