"""Estimates what a run will cost, before it starts and without compiling it."""

import functools
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax import data
from cnn_jax.config import Experiment, name_protocol
from cnn_jax.cost.summary import Shape, count_model
from cnn_jax.data import crops
from cnn_jax.evaluation.protocols import count_forward_passes, make_protocol
from cnn_jax.terminal_tables import format_table

# A training step does three times the multiply-adds of a forward pass: forward, and backward to
# inputs and to weights.
TRAINING_PASSES = 3
# Multiply-adds per second of training, relative to those of a matrix product. Measured: ResNet-20
# on 2 cores of an AMD EPYC, 0.45 to 0.6; other models and devices differ by several times.
TRAINING_SHARE = 0.5
EVALUATION_IMAGES = 1_000  # The time of evaluation is estimated for this many images.


class Estimate(NamedTuple):
    """What a run costs.

    Attributes:
      name: The run.
      seed: Its seed.
      model: Its model.
      parameters: Trained numbers.
      image: (H, W, C) of the model's images.
      multiply_adds: Multiply-adds of one image's forward pass.
      steps: Training steps.
      batch_size: Images of a step.
      seconds: Estimated training time on this machine, in seconds.
      protocols: The evaluation protocols of the finished run.
      evaluation_passes: Their cost per image, in forward passes of a crop.
      evaluation_seconds: Estimated time here for 1,000 images, in seconds.
      speed: Multiply-adds per second in training that the estimates assume.
    """

    name: str
    seed: int
    model: str
    parameters: int
    image: Shape
    multiply_adds: int
    steps: int
    batch_size: int
    seconds: float
    protocols: tuple[str, ...]
    evaluation_passes: float
    evaluation_seconds: float
    speed: float


def estimate_run(experiment: Experiment, speed: float | None = None) -> Estimate:
    """Estimates what a run costs. Known data sets are not loaded.

    Args:
      experiment: The run.
      speed: Multiply-adds per second of training here; None: `estimate_speed()`.

    Raises:
      UserError: If the configuration has a mistake, or an unknown data set is not prepared.
    """
    speed = estimate_speed() if speed is None else speed
    shape, classes = data.find_image_shape(experiment.data)
    model, train = experiment.model, experiment.train
    counts = count_model(model.name, classes, shape, **model.args)
    passes = count_evaluation_passes(experiment) if experiment.protocols else 0.0
    trained = train.steps * experiment.data.batch_size * TRAINING_PASSES * counts.multiply_adds
    return Estimate(
        name=experiment.name,
        seed=experiment.seed,
        model=model.name,
        parameters=counts.parameters,
        image=shape,
        multiply_adds=counts.multiply_adds,
        steps=train.steps,
        batch_size=experiment.data.batch_size,
        seconds=trained / speed,
        protocols=tuple(map(name_protocol, experiment.protocols)),
        evaluation_passes=passes,
        evaluation_seconds=EVALUATION_IMAGES * passes * counts.multiply_adds / speed,
        speed=speed,
    )


def count_evaluation_passes(experiment: Experiment) -> float:
    """Counts what a run's protocols cost an image of 4:3, in forward passes of one crop.

    Views that several protocols share are scored, and count, once.
    """
    (height, *_), _ = data.find_image_shape(experiment.data)
    streamed = data.is_streamed(experiment.data)
    scale = crops.choose_eval_side(experiment.data) if streamed else height
    chosen = [make_protocol(choice, height, scale) for choice in experiment.protocols]
    scored = {(views, side) for one in chosen for views in one.views for side in one.scales}
    mirror = experiment.data.flip
    return sum(
        count_forward_passes(views, (side, side * 4 // 3 if streamed else side), height, mirror)
        for views, side in scored
    )


@functools.cache
def estimate_speed() -> float:
    """Estimates multiply-adds per second of training on this machine's devices, in half a second.

    It times a float32 matrix product and assumes a fixed fraction of its speed. Only that product
    is compiled.
    """
    side = 1024
    product = jax.jit(jnp.matmul)
    x = jnp.ones((side, side), jnp.float32)
    jax.block_until_ready(product(x, x))
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.2:
        begin = time.perf_counter()
        jax.block_until_ready(product(x, x))
        times.append(time.perf_counter() - begin)
    # A CPU's devices share its cores.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    return TRAINING_SHARE * devices * side**3 / min(times)


def format_study(runs: Sequence[Experiment], width: int = 0) -> str:
    """Returns a table of what runs cost, with a line per run, and how it is estimated.

    Args:
      runs: At least one. Runs that differ only in their seed share a line.
      width: As in `format_table`.

    Raises:
      UserError: As `estimate_run` does.
    """
    seeds: dict[str, list[Experiment]] = {}
    for run in runs:
        seeds.setdefault(run.name, []).append(run)
    rows, total = [], 0.0
    for name, same in seeds.items():
        one = estimate_run(same[0])
        seconds = len(same) * one.seconds
        total += seconds
        rows.append(
            (
                name,
                one.model,
                one.image,
                one.parameters,
                one.multiply_adds,
                one.steps,
                one.batch_size,
                len(same),
                format_duration(seconds),
                one.evaluation_passes or None,
            )
        )
    header = (
        "run",
        "model",
        "image",
        "parameters",
        "multiply-adds",
        "steps",
        "batch",
        "seeds",
        "time",
        "evaluation passes",
    )
    if not any(run.protocols for run in runs):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return "\n".join(
        (
            format_table(header, rows, width),
            "",
            f"all: {format_duration(total)} on {_describe_devices()}",
        )
    )


def _describe_devices() -> str:
    """Describes the devices for which a time is estimated, and the method."""
    return (
        f"{jax.device_count()} x {jax.devices()[0].device_kind}: a guess,"
        f" {TRAINING_SHARE:.0%} of the speed of a matrix product"
        f" (measured now: {estimate_speed() / TRAINING_SHARE / 1e9:,.3g} billion multiply-adds/s)"
    )


def format_duration(seconds: float) -> str:
    """Returns a duration in a suitable unit."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    if seconds < 1:
        return "under a second"
    return f"{seconds:.0f} second{'s' * (seconds >= 1.5)}"
