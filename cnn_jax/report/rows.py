"""Rows of a paper's table, and the settings that must be equal to compare a run with the paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnn_jax.config import Data, Experiment
from cnn_jax.values import format_value

# Options of a model that change how its outputs are computed, but not the outputs.
_HOW_COMPUTED = ("remat", "scan_min_blocks")
_CHANGES = ("validation_images", "shuffle_pixels", "long_tail")  # Fields of `Data`.


@dataclass(frozen=True)
class Row:
    """A row of the paper's table.

    Attributes:
      run: Name of the run that reproduces the row.
      label: Label of the row.
      group: Panel of the figure in which the run is drawn.
      source: Where the paper prints the row.
      paper: {metric: the paper's value}; errors are in %.
      table: Title of the table, if a report has several.
      protocol: Name of the evaluation protocol; empty: the last evaluation during training.
    """

    run: str
    label: str
    group: str
    source: str
    paper: dict[str, float] = field(default_factory=dict)
    table: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Setting:
    """The settings that two runs must share to be comparable.

    Attributes:
      model: Name of the model.
      options: {option of the model: value as text}.
      data: Name of the data set.
      steps: Number of training steps.
      changes: {what was done to the data set: value as text}; None: not recorded.
    """

    model: str
    options: dict[str, str]
    data: str
    steps: int
    changes: dict[str, str] | None = None


def describe_setting(experiment: Experiment) -> Setting:
    """Returns the setting of a run."""
    args = experiment.model.args
    options = {key: format_value(args[key]) for key in args if key not in _HOW_COMPUTED}
    return Setting(
        experiment.model.name,
        options,
        experiment.data.name,
        experiment.train.steps,
        _describe_changes(experiment.data),
    )


def _describe_changes(config: Data) -> dict[str, str]:
    """Returns what was done to a data set before training, by the option that does it."""
    args = config.dataset.args
    changes = {name: args[name] for name in args if name != "path"}
    changes |= {name: getattr(config, name) for name in _CHANGES if getattr(config, name)}
    return {name: format_value(value) for name, value in changes.items()}


def find_other_settings(ours: Setting, paper: Setting) -> tuple[str, ...]:
    """Describes how a run differs from the paper's: ('model mlp', '240 of 64,000 steps').

    Args:
      ours: Setting of our run.
      paper: Setting of the paper's run.
    """
    words = []
    if ours.model != paper.model:
        words.append(f"model {ours.model}")
    elif other := _find_other_options(ours, paper):
        values = [shorten_list(ours.options.get(name, "default")) for name in other]
        words.append(", ".join(f"{n} {value}" for n, value in zip(other, values, strict=True)))
    if ours.data != paper.data:
        words.append(f"data {ours.data}")
    elif ours.changes is not None:
        other = _find_other_changes(ours, paper)
        words += [f"{name} {ours.changes.get(name, 'not set')}" for name in other]
    if ours.steps != paper.steps:
        words.append(f"{ours.steps:,} of {paper.steps:,} steps")
    return tuple(words)


def _find_other_options(ours: Setting, paper: Setting) -> list[str]:
    """Returns the options in which two settings of a model differ, by their values or defaults."""
    if ours.options == paper.options:
        return []
    from cnn_jax import models  # It imports JAX.

    return sorted(_compare(ours.options, paper.options, models.get_defaults(ours.model)))


def _find_other_changes(ours: Setting, paper: Setting) -> list[str]:
    """Returns the changes of the data set in which two settings differ; [] if one has no record."""
    if ours.changes is None or paper.changes is None or ours.changes == paper.changes:
        return []
    from cnn_jax.data import datasets  # It imports JAX.

    return _compare(ours.changes, paper.changes, datasets.get_defaults(ours.data.partition(":")[0]))


def _compare(
    ours: Mapping[str, str], paper: Mapping[str, str], defaults: Mapping[str, Any]
) -> list[str]:
    """Returns the names whose values, as text, differ. A missing value is the default."""
    shown = {name: format_value(value) for name, value in defaults.items()}
    own, theirs = {**shown, **ours}, {**shown, **paper}
    return [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]


def shorten_list(text: str) -> str:
    """Shortens a long list of equal items, such as '60,60,60,60', to '4 times 60'."""
    items = text.split(",")
    if len(items) > 3 and len(set(items)) == 1:
        return f"{len(items)} times {items[0]}"
    return text
