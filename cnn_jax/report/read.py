"""What a study's folder holds, read back as values. Each kind of file has one reader.

A folder holds study.json and, for each run and seed, either a folder <run>/seed<k> with
config.json, starts.jsonl, metrics.jsonl and evaluations/<protocol>.json, or an entry of the compact
runs.json that `cnn_jax.report.export` writes.

Only a broken study.json stops a report. Whatever is damaged in a run's files is left out and named,
with what to do about it.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_jax.config import Experiment
from cnn_jax.config_file import from_json
from cnn_jax.errors import UserError
from cnn_jax.report.claims import Claim
from cnn_jax.report.rows import Row, Setting

COMPACT = "runs.json"
COMPACT_VERSION = 1


@dataclass(frozen=True)
class StudyFile:
    """study.json: which study made the folder.

    Attributes:
      name: Of the study.
      title: Of its report.
      paper: Authors, year, section.
      paper_data: The data set of the paper's figures; empty: the study's own.
      preset: Which size of the study.
      file: The Python file of a user's study; empty: a registered one.
      data: The data set in words.
      command: What makes the whole study.
      seeds: Seeds of each run.
      runs: The runs' names, in the order of training.
      notes: For the reader of the report.
      swept: The fields that a sweep varied.
      swept_from: For each run of a sweep, the study's run that it varies.
      paper_runs: The paper's setting of each run.
      commit: Of the code that measured, where nothing was trained.
      measured: What a study that trains nothing has measured.
    """

    name: str
    title: str
    paper: str
    paper_data: str
    preset: str
    file: str
    data: str
    command: str
    seeds: int
    runs: tuple[str, ...]
    notes: tuple[str, ...]
    swept: tuple[str, ...]
    swept_from: dict[str, str]
    paper_runs: dict[str, Setting]
    commit: str
    measured: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Start:
    """A line of starts.jsonl: when, where and with what a run was started."""

    time: str
    commit: str
    hardware: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Logged:
    """A line of metrics.jsonl.

    Attributes:
      step: The training step.
      error: As the run's `error_name` calls it; None: not finite.
      loss: In nats; None: not finite.
      images: How many were evaluated; None: a line of training.
    """

    step: int
    error: float | None
    loss: float | None
    images: int | None


@dataclass(frozen=True)
class Evaluation:
    """evaluations/<protocol>.json: what a protocol measured of a finished run.

    Attributes:
      errors: By metric, such as top1_error, 0 to 1.
      intervals: 95% intervals over the test images, by metric.
      wrong: A character for each test image, 1 where the answer is wrong; empty: not known.
    """

    errors: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    wrong: str


@dataclass(frozen=True)
class Run:
    """One seed of a run.

    Attributes:
      name: The run's name in its study.
      seed: The seed.
      folder: Where its files lie, seen from the study's folder.
      config: The text of config.json, or empty.
      experiment: The settings; None: never started, or unreadable.
      starts: Its launches.
      error_name: What the model calls its error: top1_error, or reconstruction_error.
      train: Means of training since the line before, by step.
      evaluations: The evaluations during training, by step.
      protocols: What the protocols measured, by protocol.
      reached: The last step that left a line.
      state: finished, finished early at step k, diverged at step k, cut off at step k of n, stopped
        by NaN at step k, not started, damaged or unreadable.
      best_step: The step whose state a run with train.stop_after has kept; None: the last.
      diverged: The step whose loss was not finite, where the run was to record that; None: none.
    """

    name: str
    seed: int
    folder: str
    config: str
    experiment: Experiment | None
    starts: tuple[Start, ...]
    error_name: str
    train: dict[int, Logged]
    evaluations: dict[int, Logged]
    protocols: dict[str, Evaluation]
    reached: int
    state: str
    best_step: int | None = None
    diverged: int | None = None

    @property
    def steps(self) -> int | None:
        """The steps that it was to make; None: it has no settings."""
        return self.experiment.train.steps if self.experiment else None

    @property
    def finished(self) -> bool:
        """Whether it came to its end, or stopped early."""
        return self.state.startswith("finished")

    @property
    def final_error(self) -> float | None:
        """The error of a finished run at its last or its best step, 0 to 1."""
        return _at(self.evaluations, self.best_step).error if self.finished else None

    @property
    def final_training_error(self) -> float | None:
        """The error of training that a finished run logged last, or at its best step.

        It is a mean over the log interval before.
        """
        return _at(self.train, self.best_step).error if self.finished and self.train else None


def _at(lines: Mapping[int, Logged], step: int | None) -> Logged:
    """Returns the line of a step, or the last one."""
    return lines[max(lines) if step is None or step not in lines else step]


@dataclass(frozen=True)
class Results:
    """A study's folder.

    Attributes:
      folder: Where it lies.
      study: Its study.json.
      runs: The seeds of each run, by the run's name, in the order of training.
      problems: Damaged files, each in one line with what to do about it.
      compact: Whether the runs were read from runs.json.
      rows: The study's rows.
      claims: The study's claims.
    """

    folder: Path
    study: StudyFile
    runs: dict[str, tuple[Run, ...]]
    problems: tuple[str, ...] = ()
    compact: bool = False
    rows: tuple[Row, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def every_run(self) -> list[Run]:
        """Every seed of every run."""
        return [run for seeds in self.runs.values() for run in seeds]

    @property
    def comparable(self) -> bool:
        """Whether the data are those of the paper's figures."""
        return self.study.data == (self.study.paper_data or self.study.data)


@dataclass
class _RunFiles:
    """What the files of a run hold, before it is checked."""

    folder: str
    config: str = ""
    starts: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    evaluations: dict[str, Any] = field(default_factory=dict)


def read(
    workdir: Path,
    rows: Iterable[Row] = (),
    claims: Iterable[Claim] = (),
) -> Results:
    """Reads a study's folder.

    Args:
      workdir: The folder.
      rows: The study's rows.
      claims: The study's claims.

    Raises:
      UserError: If the folder holds no study.json, or a broken one.
    """
    study = read_study_file(workdir)
    problems: list[str] = []
    kept = _read_compact(workdir, problems)
    runs = {name: _read_seeds(workdir, study, name, kept, problems) for name in study.runs}
    compact = bool(kept) and not any((workdir / name).is_dir() for name in study.runs)
    return Results(workdir, study, runs, tuple(problems), compact, tuple(rows), tuple(claims))


def read_study_file(workdir: Path) -> StudyFile:
    """Reads study.json.

    Raises:
      UserError: If there is none, or it is damaged.
    """
    path = workdir / "study.json"
    again = "delete it, and launch the study again"
    try:
        words = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{workdir} holds no study.json, so it is no study's folder; run the study first:"
            f" python launch.py --experiment=NAME --workdir={workdir}"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
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
            raise UserError(f"{path}: {key} is missing or no text; {again}")
    for key in ("runs", "notes", "swept"):
        if not _is_list_of(words.get(key), str):
            raise UserError(f"{path}: {key} is missing or no list of texts; {again}")
    if not _is_count(words.get("seeds")):
        raise UserError(f"{path}: seeds is missing or no count; {again}")
    measured = words.get("measured", [])
    if not _is_list_of(measured, dict):
        raise UserError(f"{path}: measured is no list of objects; {again}")
    swept_from = words.get("swept_from", {})
    if not isinstance(swept_from, dict) or not _is_list_of(list(swept_from.values()), str):
        raise UserError(f"{path}: swept_from is damaged; {again}")
    if not words["runs"] and not measured:
        raise UserError(f"{path}: no runs, so there is nothing to report; {again}")
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
    )


def _read_settings(path: Path, items: Any, again: str) -> dict[str, Setting]:
    try:
        settings = {name: Setting(**setting) for name, setting in items.items()}
        assert all(isinstance(s.model, str) and isinstance(s.data, str) for s in settings.values())
        assert all(_is_count(s.steps) for s in settings.values())
        assert all(_is_list_of([*s.options, *s.options.values()], str) for s in settings.values())
    except (AttributeError, TypeError, AssertionError):
        raise UserError(f"{path}: paper_runs is damaged; {again}") from None
    return settings


def read_runs(place: Path, problems: list[str]) -> dict[str, tuple[Run, ...]]:
    """Reads every run below a folder: a study's workdir, a run's folder, or one of its seeds.

    Args:
      place: The folder.
      problems: Takes a line for each damaged file.

    Returns:
      The seeds of each run, by the run's name.
    """
    kept = _read_compact(place, problems)
    found = {(run, seed): files for (run, seed), files in kept.items()}
    for path in sorted(place.glob("**/config.json")):
        folder = path.parent
        number = folder.name.removeprefix("seed")
        if number.isdecimal() and number.isascii():
            name = folder.absolute().parent.name
            found[name, int(number)] = _read_folder(place, str(folder.relative_to(place)), problems)
    runs: dict[str, list[Run]] = {}
    for name, seed in sorted(found):
        runs.setdefault(name, []).append(_make_run(name, seed, found[name, seed], problems))
    return {name: tuple(seeds) for name, seeds in runs.items()}


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    kind = isinstance(value, int | float) and not isinstance(value, bool)
    return kind and abs(value) < 1e300 and math.isfinite(value)


def _read_compact(workdir: Path, problems: list[str]) -> dict[tuple[str, int], _RunFiles]:
    path = workdir / COMPACT
    try:
        words = json.loads(path.read_bytes())
        if words["version"] != COMPACT_VERSION:
            raise UserError(f"{path}: written by another version of cnn_jax")
        return {
            (entry["run"], entry["seed"]): _RunFiles(
                f"{entry['run']}/seed{entry['seed']}",
                json.dumps(entry["config"], indent=2) + "\n",
                list(entry["starts"]),
                list(entry["metrics"]),
                dict(entry["evaluations"]),
            )
            for entry in words["runs"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else "is damaged, and left out"
        problems.append(f"{path}: {why}; restore it")
        return {}


def _read_seeds(
    workdir: Path,
    study: StudyFile,
    name: str,
    kept: Mapping[tuple[str, int], _RunFiles],
    problems: list[str],
) -> tuple[Run, ...]:
    folders = {path.name[4:] for path in (workdir / name).glob("seed*")}
    there = {int(k) for k in folders if k.isdecimal() and k.isascii()}
    every = there | {seed for run, seed in kept if run == name} | set(range(study.seeds))
    runs = []
    for seed in sorted(every):
        folder = f"{name}/seed{seed}"
        if seed in there or (name, seed) not in kept:
            files = _read_folder(workdir, folder, problems)
        else:
            files = kept[name, seed]
        runs.append(_make_run(name, seed, files, problems))
    return tuple(runs)


def _read_folder(workdir: Path, folder: str, problems: list[str]) -> _RunFiles:
    place = workdir / folder
    files = _RunFiles(folder)
    files.config = _read_text(place / "config.json", problems)
    files.starts = _read_lines(place / "starts.jsonl", problems)
    files.metrics = _read_lines(place / "metrics.jsonl", problems)
    for path in sorted((place / "evaluations").glob("*.json")):
        try:
            files.evaluations[path.stem] = json.loads(path.read_bytes())
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror})")
        except (ValueError, RecursionError):
            files.evaluations[path.stem] = None
    return files


def _read_text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        return "not UTF-8"  # Which is not JSON either.
    return ""


def _read_lines(path: Path, problems: list[str]) -> list[Any]:
    """Returns the JSON values of a log's lines, None for a damaged one.

    A crash while the last line was written may have torn it: then it is left out silently.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror})")
        return []
    values: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                values.append(json.loads(line))
        except (ValueError, RecursionError):
            if number < len(lines):
                values.append(None)
    return values


def _make_run(name: str, seed: int, files: _RunFiles, problems: list[str]) -> Run:
    experiment = None
    if files.config:
        try:
            experiment = from_json(files.config)
        except UserError as error:
            message = str(error).removeprefix("config.json ").removeprefix("config.json: ")
            problems.append(f"{files.folder}/config.json: {message}")
    starts = [start for line in files.starts if (start := _make_start(line))]
    if damaged := len(files.starts) - len(starts):
        problems.append(f"{files.folder}/starts.jsonl: {_count_lines(damaged)} left out")
    error_name = _find_error_name(files.metrics)
    events = [
        (line["event"], _make_logged(line, error_name)) for line in files.metrics if _is_event(line)
    ]
    damaged = len(files.metrics) - len(events)
    if damaged:
        problems.append(
            f"{files.folder}/metrics.jsonl: {_count_lines(damaged)} left out; delete the run's"
            " folder and launch the study again to have them back"
        )
    train, evaluations = (
        {line.step: line for event, line in events if event == kind} for kind in ("train", "eval")
    )
    steps = experiment.train.steps if experiment else None
    best_step = _find_best_step(files.metrics)
    diverged = None
    if experiment and experiment.train.on_nan == "record":
        diverged = next((line.step for event, line in events if event == "nan"), None)
    reached = max((line.step for _, line in events), default=0)
    if files.config and not experiment:
        state = "unreadable: its config.json is damaged or of another version"
    elif not starts and not events:
        state = "not started"
    else:
        state = _describe_state(events, evaluations, steps, best_step, bool(damaged))
    if diverged is not None:
        state = f"diverged at step {diverged:,}"
    return Run(
        name=name,
        seed=seed,
        folder=files.folder,
        config=files.config if experiment else "",
        experiment=experiment,
        starts=tuple(starts),
        error_name=error_name,
        train=train,
        evaluations=evaluations,
        protocols=_make_protocols(files, problems),
        reached=reached,
        state=state,
        best_step=best_step,
        diverged=diverged,
    )


def _find_best_step(lines: Iterable[Any]) -> int | None:
    """Returns the step that the last line of a run's end names as its best."""
    ends = [line for line in lines if _is_event(line) and line["event"] in ("stop", "end")]
    best = ends[-1].get("best_step") if ends else None
    return best if _is_count(best) else None


def _count_lines(number: int) -> str:
    return f"{number} damaged line{'s' if number > 1 else ''}"


def _make_start(line: Any) -> Start | None:
    if not isinstance(line, dict):
        return None
    versions = line.get("versions", {})
    time, commit, hardware = (line.get(key, "") for key in ("time", "commit", "hardware"))
    if not isinstance(versions, dict):
        return None
    if not _is_list_of([time, commit, hardware, *versions.values()], str):
        return None
    return Start(time, commit, hardware, versions)


def _is_event(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("event"), str):
        return False
    if not _is_count(line.get("step")):
        return False
    numbers = [value for key, value in line.items() if key not in ("event", "step")]
    return all(value is None or _is_number(value) for value in numbers)


def _find_error_name(lines: Iterable[Any]) -> str:
    for line in lines:
        if _is_event(line):
            for key in line:
                if key.endswith("_error"):
                    return key
    return "top1_error"


def _make_logged(line: dict[str, Any], error_name: str) -> Logged:
    images = line.get("images")
    return Logged(
        line["step"],
        line.get(error_name),
        line.get("loss"),
        int(images) if images is not None else None,
    )


def _describe_state(
    events: list[tuple[str, Logged]],
    evaluations: dict[int, Logged],
    steps: int | None,
    best_step: int | None,
    damaged: bool,
) -> str:
    reached = max((line.step for _, line in events), default=0)
    end = max((line.step for event, line in events if event == "end"), default=-1)
    early = max((line.step for event, line in events if event == "stop"), default=-1)
    if best_step is not None and (early >= 0 or end >= (steps or 0)):
        if best_step not in evaluations:
            return "damaged: the evaluation of its best state is lost"
        of = f" of {steps:,}" if steps else ""
        ended = f"finished early at step {early:,}{of}" if early >= 0 else "finished"
        return f"{ended}, with its best state, of step {best_step:,}"
    if end >= (steps or 0):
        # An earlier evaluation must not pass for the last one where that line is damaged.
        last = max(evaluations, default=-1)
        whole = last == end if damaged else last >= 0
        return "finished" if whole else "damaged: its last evaluation is lost"
    if stopped := [line.step for event, line in events if event == "nan"]:
        return f"stopped by NaN at step {stopped[-1]:,}"
    return f"cut off at step {reached:,}" + (f" of {steps:,}" if steps else "")


def _make_protocols(files: _RunFiles, problems: list[str]) -> dict[str, Evaluation]:
    made = {}
    for protocol, words in files.evaluations.items():
        evaluation = _make_evaluation(words)
        if evaluation:
            made[protocol] = evaluation
        else:
            problems.append(
                f"{files.folder}/evaluations/{protocol}.json: damaged, and left out; launch the"
                " study again, which measures it anew"
            )
    return made


def _make_evaluation(words: Any) -> Evaluation | None:
    if not isinstance(words, dict):
        return None
    errors, intervals = {}, {}
    for key, value in words.items():
        if key.endswith("_error") and value is not None:
            if not _is_number(value):
                return None
            errors[key] = value
        if key.endswith("_interval") and value is not None:
            if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
                return None
            intervals[key.removesuffix("_interval") + "_error"] = (value[0], value[1])
    wrong = words.get("wrong", "")
    if not errors or not isinstance(wrong, str) or set(wrong) - {"0", "1"}:
        return None
    images = words.get("images", len(wrong))
    if wrong and (images != len(wrong) or not _agrees(errors, wrong)):
        return None
    return Evaluation(errors, intervals, wrong)


def _agrees(errors: dict[str, float], wrong: str) -> bool:
    """Returns whether the top-1 error is the share of wrong answers: else one is damaged."""
    top1 = errors.get("top1_error")
    return top1 is None or abs(wrong.count("1") / len(wrong) - top1) < 1e-6
