"""Types for the content of a study's folder: the study, its runs, their logs and evaluations."""

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
    """The content of study.json, which describes the study that wrote the folder.

    Attributes:
      name: Name of the study.
      title: Title of its report.
      paper: The paper: authors, year, section.
      paper_data: The paper's data set; empty: the same as `data`.
      preset: Name of the study's preset.
      file: Path of the Python file of a user's study; empty: the study is registered.
      data: The data set in words.
      command: The command that runs the whole study; the report shows it.
      seeds: Number of seeds of each run.
      runs: Names of the runs, in the order of training.
      notes: Notes for the reader of the report.
      swept: Fields that a sweep varied.
      swept_from: {run of a sweep: the study's run that it varies}.
      paper_runs: {run: its setting in the paper}.
      commit: Commit that made `measured`.
      measured: Rows of `Study.measure` or `Study.measure_runs`.
      tuning: What `cnn_jax.tuning.describe_tuning` returned; empty: nothing was tuned; None: an
        older version did not record it.
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
    tuning: dict[str, Any] | None


@dataclass(frozen=True)
class Start:
    """A line of starts.jsonl: a launch of a run.

    Attributes:
      time: When it began, in UTC, in ISO format; empty: not recorded.
      commit: Commit of the code, with "+changes" if files had been edited, or "unknown".
      hardware: The devices and their number in words; empty: not recorded.
      versions: {package: version}.
    """

    time: str
    commit: str
    hardware: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Logged:
    """A line of metrics.jsonl.

    Attributes:
      step: The training step.
      error: The error that the run's `error_name` names; None: not finite.
      loss: The loss, in nats; None: not finite.
      images: Number of evaluated images; None: the line is of training.
      epoch: Passes over the training images so far; None: not logged.
    """

    step: int
    error: float | None
    loss: float | None
    images: int | None
    epoch: float | None = None


@dataclass(frozen=True)
class EvaluationFile:
    """The content of evaluations/<protocol>.json: an evaluation of a finished run.

    Attributes:
      errors: {metric, such as top1_error: error from 0 to 1}.
      intervals: {metric: its 95% interval over the test images}.
      wrong: One character for each test image, 1 if the answer is wrong, else 0; empty: unknown.
      loss: The loss, in nats; None: unknown.
    """

    errors: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    wrong: str
    loss: float | None = None


@dataclass(frozen=True)
class Spread:
    """The distribution of a layer's values, or of their gradients, on a batch.

    Attributes:
      mean: Mean over images and units; None: not finite.
      std: Standard deviation over images and units; None: not finite.
      low: Left edge of the histogram, the smallest value.
      high: Right edge of the histogram, the largest value.
      counts: Number of values in each bin of the histogram. Bins are equally wide.
    """

    mean: float | None
    std: float | None
    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """The statistics of a layer, from a line of layers.jsonl.

    Attributes:
      name: Path in the model, such as Dense_0 or stage1_block1/conv1.
      kind: Dense, Conv, BatchNorm, ..., or the name of an activation function.
      values: Distribution of the layer's outputs.
      gradients: Distribution of the gradients of each image's loss with respect to its outputs.
      units: The 15th, 50th and 85th percentile of the outputs of each of the layer's first units.
      saturated: Share of outputs where the activation function is saturated; None: the layer is no
        activation function.
      dead: Share of units that are saturated for every image; None: as for `saturated`.
      kernel: Distribution of the layer's weights; None: the layer has none, or an earlier version
        of the code did not record them.
      zeros: Share of the layer's weights that are 0 or almost 0; None: as for `kernel`.
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
      folder: Its folder, relative to the study's folder.
      config: The text of config.json; empty: there is none.
      experiment: The settings; None: not started, or config.json is unreadable.
      starts: Its launches.
      error_name: Name of the model's error: top1_error or reconstruction_error.
      train: {step: means of training since the previous line}.
      evaluations: {step: evaluation during training}.
      protocols: {protocol: evaluation after training}.
      reached: The last logged step.
      state: finished, finished early at step k, diverged at step k, cut off at step k of n, stopped
        by NaN at step k, not started, damaged or unreadable.
      best_step: The step whose state a run with train.stop_after keeps; None: the last step.
      diverged: The step at which the loss was not finite, if the run records that; None: no step.
      failed_at: The step at which a loss that was not finite has ended the run, whether it records
        that or fails; None: no step.
      layers: {step: statistics of the layers, in the order of the forward pass}.
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
    protocols: dict[str, EvaluationFile]
    reached: int
    state: str
    best_step: int | None = None
    diverged: int | None = None
    failed_at: int | None = None
    layers: dict[int, tuple[Layer, ...]] = field(default_factory=dict)

    @property
    def steps(self) -> int | None:
        """The configured number of steps; None: the settings are unknown."""
        return self.experiment.train.steps if self.experiment else None

    @property
    def finished(self) -> bool:
        """Whether the run reached its last step or was stopped early."""
        return self.state.startswith("finished")

    @property
    def ended(self) -> bool:
        """Whether it is finished, or a loss that was not finite has ended it."""
        return self.finished or self.failed_at is not None

    @property
    def final_error(self) -> float | None:
        """The error of a finished run at its last or best step, from 0 to 1."""
        return _find_line(self.evaluations, self.best_step).error if self.finished else None

    @property
    def final_training_error(self) -> float | None:
        """The training error of a finished run at its last or best step, from 0 to 1.

        It is the mean over the log interval that ends at this step.
        """
        if not self.finished or not self.train:
            return None
        return _find_line(self.train, self.best_step).error


def _find_line(lines: Mapping[int, Logged], step: int | None) -> Logged:
    """Returns the line of a step; the last line if there is none for this step."""
    return lines[max(lines) if step is None or step not in lines else step]


@dataclass(frozen=True)
class Results:
    """The content of a study's folder.

    Attributes:
      folder: Path of the folder.
      study: The content of study.json.
      runs: {name of the run: seeds of the run}, in the order of training.
      problems: One message for each damaged file, with the remedy.
      compact: Whether the runs were read from runs.json.
      rows: The study's rows.
      claims: The study's claims.
      tuning: How the study's runs were tuned; None: they were not tuned.
      trials: {name of a trial of the tuning: seeds of the trial}.
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
        """Whether the data set is the paper's."""
        return self.study.data == (self.study.paper_data or self.study.data)
