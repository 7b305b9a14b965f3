"""What a run will cost, told before it starts: parameters, multiply-adds, steps, and a guess at its time here."""

import functools
import time

import jax
import numpy as np

from cnn_jax import data, models
from cnn_jax.config import Data, Experiment, choose, protocol_name
from cnn_jax.cost import summary
from cnn_jax.data import crops
from cnn_jax.evaluation import protocols
from cnn_jax.training.components import make_model
from cnn_jax.training.program import build_program


def describe(experiment: Experiment) -> list[str]:
    """Lines to print: parameters, multiply-adds an image, steps, estimated time; no data set that is known."""
    steps, batch = experiment.train.steps, experiment.data.batch_size
    shape, classes = data.image_shape(experiment.data)
    model = make_model(experiment, classes)
    adds = summary.multiply_adds(model, shape)
    seconds = steps * batch * 3 * adds / training_rate()  # forward, and backward to inputs and to weights
    tests = []
    if experiment.protocols:
        passes = forward_passes(experiment)
        tests = [
            f"then tested by: {' '.join(map(protocol_name, experiment.protocols))}: the work of {passes:,.0f} forward passes of a crop for each"
            f" image, {spell(1000 * passes * adds / training_rate())} for 1,000 images"
        ]
    return [
        f"parameters: {summary.parameters(model, shape):,}",
        f"multiply-adds: {adds:,} an image of {'x'.join(map(str, shape))}",
        f"steps: {steps:,} of {batch} images",
        f"estimated time: {spell(seconds)} on {jax.device_count()} x {jax.devices()[0].device_kind},"
        " at the speed at which ResNet-20 trains here",
        *tests,
    ]


def forward_passes(experiment: Experiment) -> float:
    """What all tests of a run cost for an image of 4:3, in forward passes of one crop; what tests share counts once."""
    crop = experiment.data.image_size
    parsed = (protocols.parse(text if "@" in text else f"{text}@{crops.eval_side(experiment.data)}", crop)
              for text in map(protocol_name, experiment.protocols))  # fmt: skip
    scored = {(kind, side) for kinds, sides in parsed for kind in kinds for side in sides}
    mirrors = 2 if experiment.data.flip else 1
    return sum(_passes(kind, (side, side * 4 // 3), crop, mirrors) for kind, side in scored)


def _passes(kind: str, size: tuple[int, int], crop: int, mirrors: int) -> float:
    if kind == "dense":
        return mirrors * size[0] * size[1] / crop**2
    squares = len(protocols.squares(size)) if kind == "googlenet144" else 0
    return (1 if kind == "single" else mirrors) * (len(protocols.PLACES[kind](size, crop)) + squares)


@functools.cache
def training_rate() -> float:
    """Multiply-adds a second of this machine in training: ResNet-20's on 32x32 images, a median of five steps."""
    batch, shape = 64 * jax.device_count(), (32, 32, 3)
    pixels = data.Arrays(np.zeros((batch, *shape), np.uint8), np.zeros(batch, np.int32))
    run = Experiment(data=Data(batch_size=batch, eval_batch_size=batch), model=choose("resnet20"))
    program = build_program(run, data.Dataset(pixels, pixels, 10))
    batches, state, times = program.batches(0), program.state, []
    for _ in range(6):
        start = time.perf_counter()
        state = jax.block_until_ready(program.step(state, next(batches)))
        times.append(time.perf_counter() - start)
    adds = summary.multiply_adds(models.create("resnet20", 10), shape)
    return batch * 3 * adds / float(np.median(times[1:]))  # the first one compiles


def spell(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"
