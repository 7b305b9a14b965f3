"""Tuning: a value of each run is chosen on a validation split, with the same budget for each.

A `Tuning` says how a study tunes its runs before it compares them. Each run is tried with every
value of the grid, in <workdir>/tuning, while some training images are held out for validation. The
run then takes the best value. The test set is never used.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cnn_jax.config import Experiment, Log, Train
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.values import format_value

Score = Callable[[Any], float]


class Trial(Protocol):
    """Attributes of a trial that `get_final_error` reads; `cnn_jax.report.results.Run` has them."""

    @property
    def final_error(self) -> float | None:
        """The error of the last evaluation, 0 to 1; None: it did not come to its last step."""


def get_final_error(run: Trial) -> float:
    """Returns the error at the end, infinite if the run has diverged."""
    error = run.final_error
    return math.inf if error is None else error


def compute_mean_training_error(run: Any) -> float:
    """Returns the mean of the logged training errors, the lower the faster a run has learned.

    It is infinite if the run has diverged.
    """
    errors = [line.error for line in run.train.values() if line.error is not None]
    return sum(errors) / len(errors) if run.finished and errors else math.inf


@dataclass(frozen=True)
class Tuning:
    """How runs are tuned.

    Attributes:
      values: The grid. Of values with equal scores the first is chosen.
      validation_images: Training images that a trial holds out, and is evaluated on.
      field: Which field takes the values.
      runs: A pattern of the runs that are tuned; the others stay as they are.
      seeds: Each trial is trained with the seeds 0 to seeds - 1, and has their mean score.
      steps: Number of steps of a trial; 0: as many as the run has.
      score: Computes the score of a seed of a trial from a `cnn_jax.report.results.Run` with one
        evaluation, at its end. The lowest score is the best. A trial that failed has an infinite
        score; one that is not a number counts as infinite.
      score_name: Name of the score in the report.
      scale: Factor by which the report multiplies the score.
    """

    values: tuple[float, ...]
    validation_images: int
    field: str = "schedule.base"
    runs: str = "*"
    seeds: int = 1
    steps: int = 0
    score: Score = get_final_error
    score_name: str = "validation error (%)"
    scale: float = 100.0


def check_tuning(tuning: Tuning, runs: Iterable[str]) -> None:
    """Checks a grid and its budget.

    Args:
      tuning: The grid.
      runs: The names of the study's runs.

    Raises:
      UserError: If a field of the tuning has a wrong value, or no run is tuned.
    """
    values = tuning.values
    if not values:
        raise UserError(f"Tuning.values: has no value of {tuning.field} to try")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"Tuning.values={value!r}: a grid has numbers only")
    if len(set(values)) < len(values):
        raise UserError(f"Tuning.values={format_value(tuple(values))}: a value is given twice")
    for name, least in (("seeds", 1), ("steps", 0), ("validation_images", 1)):
        if (count := getattr(tuning, name)) < least:
            why = ": the test set must not choose a value" if name == "validation_images" else ""
            raise UserError(f"Tuning.{name}={count}: must be at least {least}{why}")
    if not fnmatch.filter(runs := tuple(runs), tuning.runs):
        raise UserError(
            f"Tuning.runs={tuning.runs!r}: no such run; {suggest_names(tuning.runs, runs)}"
        )


def note_untuned(tuning: Tuning | None) -> tuple[str, ...]:
    """Returns the report's note for a launch that leaves out the study's tuning.

    The study's own notes may say that each run has its best value.

    Args:
      tuning: The study's tuning; None: it has none, and there is no note.
    """
    if tuning is None:
        return ()
    return (f"No run is tuned here: {tuning.field} is what the launch or the study sets.",)


def is_tuned(tuning: Tuning, run: str) -> bool:
    """Returns whether the run of this name is tuned."""
    return fnmatch.fnmatch(run, tuning.runs)


def name_trial(tuning: Tuning, run: str, value: float) -> str:
    """Returns the name of a trial, which is that of its folder."""
    return f"{run}-{tuning.field.rpartition('.')[2]}{format_value(value)}"


def make_trials(
    tuning: Tuning, runs: Iterable[Experiment], papers: Mapping[str, Experiment]
) -> list[Experiment]:
    """Returns the trials of runs, each with the first of its seeds, in the order of training.

    Args:
      tuning: The grid.
      runs: The runs.
      papers: The paper's own recipe of each run, by its name; one may be missing.

    Raises:
      UserError: If a run that is tuned starts from another one.
    """
    tuned = [run for run in runs if is_tuned(tuning, run.name)]
    for run in tuned:
        if run.train.start_from:
            raise UserError(
                f"{run.name}: starts from {run.train.start_from}, which is trained only after the"
                f" trials: leave {run.name} out of Tuning.runs, or set {tuning.field}"
            )
    return [
        dataclasses.replace(
            set_value(tuning, run, value, papers.get(run.name)),
            name=name_trial(tuning, run.name, value),
            seed=0,
            data=dataclasses.replace(run.data, validation_images=tuning.validation_images),
            train=_shorten(run.train, tuning.steps or run.train.steps),
            log=Log(),
            protocols=(),
        )
        for run in tuned
        for value in tuning.values
    ]


def _shorten(train: Train, steps: int) -> Train:
    """Returns the settings of a trial, which is evaluated and saved once, at its end."""
    return dataclasses.replace(
        train, steps=steps, eval_every=steps, save_every=steps, on_nan="record"
    )


def set_value(
    tuning: Tuning, run: Experiment, value: float, paper: Experiment | None
) -> Experiment:
    """Returns a run with a value of the grid, and with how that differs from the paper's value.

    Args:
      tuning: The grid.
      run: The run. Its deviations that mention the old value are removed.
      value: The value.
      paper: The paper's own recipe; None: there is none.
    """
    from cnn_jax.overrides import override
    from cnn_jax.training.components import KINDS, complete, find_changes

    run = override(run, [f"{tuning.field}={format_value(value)}"], KINDS)
    start = f"{tuning.field}: "
    differences = find_changes(complete(paper), run) if paper else ()
    kept = [words for words in run.deviations if not words.startswith(start)]
    new = [words for words in differences if words.startswith(start)]
    return dataclasses.replace(run, deviations=(*kept, *new))


def find_scores(
    tuning: Tuning,
    run: str,
    trials: Mapping[str, tuple[Any, ...]],
    left_out: int | None = None,
) -> dict[float, float | None]:
    """Returns the score of each value for a run; None: not all seeds of its trial have ended.

    Args:
      tuning: The grid.
      run: The run's name.
      trials: The seeds of each trial, by its name.
      left_out: A seed that does not count; None: all count.

    Raises:
      UserError: If a score is no number.
    """
    count = tuning.seeds - (left_out is not None)
    scores: dict[float, float | None] = {}
    for value in tuning.values:
        own = find_seeds_of_trial(tuning, run, value, trials)
        own = [trial for trial in own if trial.seed != left_out]
        scores[value] = None
        if own and len(own) == count and all(trial.ended for trial in own):
            score = sum(_compute_score(tuning, trial) for trial in own) / count
            scores[value] = math.inf if math.isnan(score) else score
    return scores


def _compute_score(tuning: Tuning, trial: Any) -> float:
    score: Any = tuning.score(trial)
    try:
        return float(score)
    except (TypeError, ValueError):
        raise UserError(
            f"Tuning.score: returns {score!r} for a trial: return a number, or math.inf if it has"
            " none"
        ) from None


def find_seeds_of_trial(
    tuning: Tuning, run: str, value: float, trials: Mapping[str, tuple[Any, ...]]
) -> list[Any]:
    """Returns the seeds of a trial, without those that an earlier launch has tried besides."""
    own = trials.get(name_trial(tuning, run, value), ())
    return [trial for trial in own if trial.seed < tuning.seeds]


def choose_value(scores: Mapping[float, float | None]) -> float | None:
    """Returns the value with the least score, the first of equal ones; None: one has no score."""
    known = {value: score for value, score in scores.items() if score is not None}
    if not known or len(known) < len(scores):
        return None
    return min(known, key=lambda value: known[value])


def apply_choices(
    tuning: Tuning,
    runs: Mapping[str, Experiment],
    trials: Mapping[str, tuple[Any, ...]],
    papers: Mapping[str, Experiment],
) -> dict[str, Experiment]:
    """Returns the runs with the values that their trials have chosen.

    Args:
      tuning: The grid.
      runs: The runs by name.
      trials: The seeds of each trial, by its name.
      papers: The paper's own recipe of each run, by its name; one may be missing.

    Raises:
      UserError: If a trial of a run has not ended, or its score is no number.
    """
    chosen = {}
    for name, run in runs.items():
        if is_tuned(tuning, name):
            scores = find_scores(tuning, name, trials)
            value = choose_value(scores)
            if value is None:
                left = next(value for value, score in scores.items() if score is None)
                raise UserError(
                    f"{name_trial(tuning, name, left)}: has not ended, so that {tuning.field} of"
                    f" {name} cannot be chosen: delete its folder, and launch the study again"
                )
            run = set_value(tuning, run, value, papers.get(name))
        chosen[name] = run
    return chosen


def describe_tuning(tuning: Tuning | None) -> dict[str, Any]:
    """Returns the tuning as study.json holds it; `restore_tuning` reads it."""
    if tuning is None:
        return {}
    return {
        "field": tuning.field,
        "values": list(tuning.values),
        "validation_images": tuning.validation_images,
        "runs": tuning.runs,
        "seeds": tuning.seeds,
        "steps": tuning.steps,
        "score": tuning.score_name,
    }


def restore_tuning(tuning: Tuning, described: Mapping[str, Any]) -> Tuning:
    """Returns the tuning with the grid and the budget of a finished study.

    The code may have another grid by now.

    Args:
      tuning: The study's tuning by the code.
      described: What `describe_tuning` returned when the study was launched; may be empty.
    """
    names = ("field", "runs", "seeds", "steps", "validation_images")
    kept: dict[str, Any] = {name: described[name] for name in names if name in described}
    if "values" in described:
        kept["values"] = tuple(described["values"])
    return dataclasses.replace(tuning, **kept)
