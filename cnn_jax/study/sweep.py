"""Sweeps: each run of a study, trained with every combination of given values."""

import dataclasses
import itertools
from collections.abc import Iterable

from cnn_jax.config import Experiment
from cnn_jax.errors import UserError
from cnn_jax.study import Row, Study, configure
from cnn_jax.tuning import note_untuned

MAX_RUNS = 1_000


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Splits the text of a sweep, 'schedule.base=0.01,0.1,1', into its field and its values.

    Values that contain commas are separated by semicolons: 'model.hidden=100;300,100'.

    Args:
      text: A value of the flag --sweep.

    Returns:
      (field, values), all as text.

    Raises:
      UserError: If the text is not of this form, or contains a value twice.
    """
    field, equals, values = text.partition("=")
    parts = [part.strip() for part in values.split(";" if ";" in values else ",") if part.strip()]
    if not equals or not field or not parts:
        raise UserError(f"sweep={text}: write it as field=value,value, such as schedule.base=0.1,1")
    if len(set(parts)) < len(parts):
        raise UserError(f"sweep={text}: a value is given twice")
    return field.strip(), tuple(parts)


def expand_grid(study: Study, sweeps: Iterable[str], only: str = "*") -> Study:
    """Returns a study with a run for each combination of values; deviations are not listed yet.

    The result has no claims, no tuning and no measurements of trained models, because these name
    the runs of the study that is varied.

    Args:
      study: The study whose runs are varied.
      sweeps: Texts such as 'schedule.base=0.01,0.1'. The values of several sweeps are combined each
        with each.
      only: The pattern of the names of the runs that are varied.

    Raises:
      UserError: If a sweep is wrong, or the grid is too large.
    """
    from cnn_jax.overrides import override
    from cnn_jax.study import select
    from cnn_jax.training.components import KINDS

    pairs = [parse(text) for text in sweeps]
    axes = dict(pairs)
    if len(axes) < len(pairs):
        raise UserError("sweep: a field is given twice; give all its values at once")
    combinations = list(itertools.product(*axes.values()))
    chosen = select(study, only)
    if (count := len(combinations) * len(chosen)) > MAX_RUNS:
        raise UserError(f"sweep: {count} runs; at most {MAX_RUNS}")
    runs, rows, paper_runs = {}, [], {}
    seen: dict[Experiment, str] = {}
    for run, values in itertools.product(chosen, combinations):
        pairs = list(zip(axes, values, strict=True))
        assignments = [f"{field}={value}" for field, value in pairs]
        label = ", ".join(f"{field.rpartition('.')[2]}={value}" for field, value in pairs)
        short = "-".join(f"{field.rpartition('.')[2]}{value}" for field, value in pairs)
        name = f"{run.name}-{short}".replace(",", "_").replace("/", "_")
        if name in runs:
            raise UserError(f"sweep: two runs would be named {name}")
        varied = override(run, assignments, KINDS)
        if varied in seen:
            raise UserError(f"sweep: {', '.join(assignments)} is the same as {seen[varied]}")
        seen[varied] = name
        runs[name] = dataclasses.replace(varied, name=name)
        paper_runs[name] = study.paper_runs.get(run.name, run)
        rows.append(Row(name, f"{run.name}: {label}", run.name, ""))
    return dataclasses.replace(
        study,
        title=f"{study.title}: a sweep of {', '.join(axes)}",
        runs=runs,
        rows=tuple(rows),
        claims=(),
        paper_runs=paper_runs,
        tuning=None,
        notes=(*study.notes, *note_untuned(study.tuning)),
        measure_runs=None,  # It looks for the runs by the names that the study gave them.
        swept=tuple(axes),
    )


def configure_grid(
    found: Study, configured: Study, sweeps: Iterable[str], only: str = "*"
) -> Study:
    """Returns the grid of a study that `configure` has changed, with the deviations of its runs.

    Args:
      found: The study before `configure` changed it.
      configured: The result of `configure`. Its lists of deviations are not used, because the runs
        of the grid have the swept values instead.
      sweeps: As in `expand_grid`.
      only: As in `expand_grid`.

    Raises:
      UserError: As `expand_grid` does.
    """
    runs = {
        name: dataclasses.replace(run, deviations=found.runs[name].deviations)
        for name, run in configured.runs.items()
    }
    stated = dataclasses.replace(configured, runs=runs, paper_runs=found.runs | found.paper_runs)
    return configure(expand_grid(stated, sweeps, only))
