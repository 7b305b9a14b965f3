"""What a study's folder holds, as values: the study, its runs, what was logged and measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_jax.config import Experiment
from cnn_jax.report.claims import Claim
from cnn_jax.report.rows import Row, Setting
from cnn_jax.tuning import Tuning


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
      loss: In nats; None: not known.
    """

    errors: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    wrong: str
    loss: float | None = None


@dataclass(frozen=True)
class Spread:
    """How the values of a layer, or their gradients, are spread on a batch.

    Attributes:
      mean: Over images and units; None: not finite.
      std: Their standard deviation; None: not finite.
      low: The left edge of the histogram, the least value.
      high: The right edge of the histogram, the largest value.
      counts: Values in each of the histogram's bins, which are equally wide.
    """

    mean: float | None
    std: float | None
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer in a line of layers.jsonl.

    Attributes:
      name: Its path in the model, such as Dense_0 or stage1_block1/conv1.
      kind: Dense, Conv, BatchNorm, ..., or the name of an activation function.
      values: What comes out of it.
      gradients: Of each image's loss with respect to its values.
      units: The 15th, 50th and 85th percentile of each of its first units' values.
      saturated: The share of values where an activation function is flat; None: it is none.
      dead: The share of units that are saturated for every image; None: it is no such function.
      kernel: Its weights; None: it has none, or was measured before they were.
      zeros: The share of its weights that are 0, or nearly; None: as of kernel.
    """

    name: str
    kind: str
    values: Spread
    gradients: Spread
    units: tuple[tuple[float, float, float], ...]
    saturated: float | None = None
    dead: float | None = None
    kernel: Spread | None = None
    zeros: float | None = None


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
      layers: The statistics of its layers, in the order of the forward pass, by step.
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
    layers: dict[int, tuple[Layer, ...]] = field(default_factory=dict)

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
        return _find_line(self.evaluations, self.best_step).error if self.finished else None

    @property
    def final_training_error(self) -> float | None:
        """The error of training that a finished run logged last, or at its best step.

        It is a mean over the log interval before.
        """
        if not self.finished or not self.train:
            return None
        return _find_line(self.train, self.best_step).error


def _find_line(lines: Mapping[int, Logged], step: int | None) -> Logged:
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
      tuning: How the study's runs were tuned; None: they were not.
      trials: The seeds of each trial of the tuning, by the trial's name.
    """

    folder: Path
    study: StudyFile
    runs: dict[str, tuple[Run, ...]]
    problems: tuple[str, ...] = ()
    compact: bool = False
    rows: tuple[Row, ...] = ()
    claims: tuple[Claim, ...] = ()
    tuning: Tuning | None = None
    trials: dict[str, tuple[Run, ...]] = field(default_factory=dict)

    @property
    def every_run(self) -> list[Run]:
        """Every seed of every run."""
        return [run for seeds in self.runs.values() for run in seeds]

    @property
    def comparable(self) -> bool:
        """Whether the data are those of the paper's figures."""
        return self.study.data == (self.study.paper_data or self.study.data)
