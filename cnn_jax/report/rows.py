"""Rows of a paper's table, and what a run must share with the paper's to be compared with it."""

from dataclasses import dataclass, field

from cnn_jax.config import Experiment
from cnn_jax.values import show

# Options of a model that change how it is computed, and none of its numbers.
_HOW_COMPUTED = ("remat", "scan_min_blocks")


@dataclass(frozen=True)
class Row:
    """A line of the paper's table.

    Attributes:
      run: The run that stands for it.
      label: What the table calls it.
      group: The panel of the figure in which it is drawn.
      source: Where the paper prints it.
      paper: The paper's figures by metric, errors in %.
      table: Which of the paper's tables, where there are several.
      protocol: The evaluation protocol's name; empty: the last evaluation in training.
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
    """What two runs must share for their figures to be of the same thing.

    Attributes:
      model: The model's name.
      options: The model's options as text, by name.
      data: The data set's name.
      steps: Training steps.
    """

    model: str
    options: dict[str, str]
    data: str
    steps: int


def describe_setting(experiment: Experiment) -> Setting:
    """Returns the setting of a run."""
    args = experiment.model.args
    options = {key: show(args[key]) for key in args if key not in _HOW_COMPUTED}
    return Setting(experiment.model.name, options, experiment.data.name, experiment.train.steps)


def find_other_settings(ours: Setting, paper: Setting) -> tuple[str, ...]:
    """Returns what of a run is not the paper's, such as ('mlp', '240 of 64,000 steps')."""
    words = []
    if ours.model != paper.model:
        words.append(f"model {ours.model}")
    elif ours.options != paper.options:
        names = sorted({*ours.options, *paper.options})
        other = [name for name in names if ours.options.get(name) != paper.options.get(name)]
        values = [shorten_list(ours.options.get(name, "default")) for name in other]
        words.append(", ".join(f"{n} {value}" for n, value in zip(other, values, strict=True)))
    if ours.data != paper.data:
        words.append(f"data {ours.data}")
    if ours.steps != paper.steps:
        words.append(f"{ours.steps:,} of {paper.steps:,} steps")
    return tuple(words)


def shorten_list(text: str) -> str:
    """Returns a value as --set takes it, a long list of equal items as '21 times 60'."""
    items = text.split(",")
    if len(items) > 3 and len(set(items)) == 1:
        return f"{len(items)} times {items[0]}"
    return text
