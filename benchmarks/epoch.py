"""Images/s of a whole epoch as a run trains it, and of its bare step.

    python -m benchmarks.epoch --models=resnet20,lenet5_modern

The run is `train.run` with the ResNet paper's CIFAR-10 recipe: it draws and augments batches, sums
metrics, and writes log lines, TensorBoard and a progress bar. The bare step is the same compiled
function in a plain loop over batches that were drawn before. The difference is the cost of
everything around a step. Epochs of the run and of the bare step take turns in one process. The
evaluation and the checkpoint after each epoch of the run are timed separately.
"""

import contextlib
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import flags, logging

from benchmarks.noise import make_noise_dataset
from benchmarks.result import (
    check_names,
    compute_range,
    format_columns,
    run_benchmark,
    write_result,
)
from cnn_jax import data, models
from cnn_jax import mesh as meshes
from cnn_jax.config import Experiment, change, choose
from cnn_jax.cpu import settings
from cnn_jax.training import checkpoint, environment, train
from cnn_jax.training.program import TrainProgram
from experiments import resnet_degradation

IMAGES = 50_000  # CIFAR-10's training images.
TEST_SHARE = 5  # There is one test image for this many training images.
CPU_IMAGES = {"resnet20": 2_560, "lenet5_modern": 12_800}  # All of them would take minutes.
FLAGS = flags.FLAGS


def main() -> None:
    """Times each model, and prints the table and a line of JSON per model."""
    check_names("models", FLAGS.models, models.MODELS)
    settings.configure()  # As a launch does, like the next line.
    logging.set_verbosity(logging.WARNING)
    lines = [
        (
            "model",
            "images",
            "epoch, images/s",
            "(min - max)",
            "bare step",
            "epoch/bare",
            "evaluation s",
            "saving s",
        )
    ]
    results = []
    for model in FLAGS.models:
        images = CPU_IMAGES.get(model, IMAGES) if jax.default_backend() == "cpu" else IMAGES
        results.append(measure_epochs(model, FLAGS.images or images, FLAGS.batch, FLAGS.blocks))
        lines.append(format_row(results[-1]))
    print(
        f"{FLAGS.blocks} epochs of each, taking turns;"
        f" {environment.describe_environment()['hardware']}\n"
    )
    print(format_columns(lines))
    for result in results:
        write_result(result | environment.describe_environment())


def measure_epochs(model: str, images: int, batch: int, blocks: int) -> dict[str, Any]:
    """Trains a model for `blocks` + 1 epochs and times all but the first, which compiles.

    Returns:
      The line of JSON: images/s of epochs and of the bare step, seconds of an evaluation and of a
      checkpoint.
    """
    steps = -(-images // batch)
    seconds: dict[str, list[float]] = {
        "epoch": [],
        "bare": [],
        "evaluation": [],
        "saving": [],
        "saved": [],
    }
    experiment = make_experiment(model, batch, steps, epochs=blocks + 1)
    dataset = make_noise_dataset((32, 32, 3), 10, images, max(1, images // TEST_SHARE))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(data.DATASETS, {experiment.data.name: lambda data_dir: dataset}),
        mock.patch.object(
            train, "build_program", instrument_build(train.build_program, steps, seconds)
        ),
        mock.patch.object(checkpoint, "save", instrument_save(checkpoint.save, seconds)),
        contextlib.redirect_stderr(FakeTerminal()),
    ):
        data.open_dataset.cache_clear()
        train.run(experiment, folder)
    # The first epoch compiles.
    epoch, bare, evaluation, saving, saved = (values[1:] for values in seconds.values())
    return {
        "benchmark": "epoch",
        "model": model,
        "batch": batch,
        "images": images,
        "steps": steps,
        "blocks": blocks,
        "images_per_s": compute_range([steps * batch / s for s in epoch]),
        "bare_images_per_s": compute_range([steps * batch / s for s in bare]),
        "ratio": statistics.median(b / e for b, e in zip(bare, epoch, strict=True)),
        "evaluation_s": statistics.median(evaluation),
        "evaluation_images": images // TEST_SHARE,
        "saving_s": statistics.median(saving),
        "saved_s": statistics.median(saved),
    }


def make_experiment(model: str, batch: int, steps: int, epochs: int) -> Experiment:
    """Returns the ResNet paper's recipe for CIFAR-10 with another model.

    It evaluates and saves after each epoch of `steps` steps.
    """
    paper = resnet_degradation.study("paper").runs["resnet-20"]
    return replace(
        paper,
        name=model,
        data=replace(paper.data, dataset=choose("noise"), batch_size=batch),
        model=paper.model if model == paper.model.name else choose(model),
        # A small rate, because a loss on noise can overflow.
        schedule=change(paper.schedule, base=1e-3),
        train=replace(
            paper.train,
            steps=epochs * steps,
            eval_every=steps,
            save_every=steps,
            steps_per_call=FLAGS.steps_per_call,
        ),
    )


class FakeTerminal(io.StringIO):
    """A stream on which progress bars are drawn as on a terminal."""

    def isatty(self) -> bool:
        """Returns True."""
        return True


def instrument_build(build: Callable, steps: int, seconds: dict[str, list[float]]) -> Callable:
    """Wraps `build_program` so that its program times epochs.

    An epoch begins when its first batch is asked for and ends when its evaluation is. Between the
    two the program runs an epoch of the bare step and times it.

    Args:
      build: The function to wrap.
      steps: Steps per epoch.
      seconds: Lists to which the program appends: "epoch", "bare" and "evaluation".
    """

    def build_instrumented(*arguments: Any, **options: Any) -> TrainProgram:
        program = build(*arguments, **options)
        bare_items = place_batches(program.batches(0), steps)
        start = 0.0

        def batches(first: int) -> Iterator[Any]:
            nonlocal start
            drawn = program.batches(first)
            for k in itertools.count(first):
                if k % steps == 0:
                    start = time.perf_counter()
                yield next(drawn)

        def evaluate(state: Any) -> dict[str, float]:
            # The run has waited for the last step and has logged it.
            seconds["epoch"].append(time.perf_counter() - start)
            seconds["bare"].append(time_bare_steps(program, state, bare_items))
            # instrument_save adds the end: the run saves as soon as the evaluation is written.
            seconds["evaluation"].append(-time.perf_counter())
            return program.evaluate(state)

        return program._replace(batches=batches, evaluate=evaluate)

    return build_instrumented


def instrument_save(save: Callable, seconds: dict[str, list[float]]) -> Callable:
    """Wraps `checkpoint.save` so that it times itself and waits until the files are written.

    Args:
      save: The function to wrap.
      seconds: Lists to which it appends: "saving", how long a save blocks the run, and "saved",
        how long until the files are written.
    """

    def save_and_wait(checkpoints: Any, *rest: Any) -> None:
        start = time.perf_counter()
        seconds["evaluation"][-1] += start
        save(checkpoints, *rest)
        seconds["saving"].append(time.perf_counter() - start)
        checkpoints.wait_until_finished()  # A save in the background would slow the next epoch.
        seconds["saved"].append(time.perf_counter() - start)

    return save_and_wait


def place_batches(batches: Iterator[Any], steps: int) -> list[Any]:
    """Copies the next batches to the devices, placed as a step takes them."""
    return jax.device_put(
        list(itertools.islice(batches, steps)), meshes.make_batch_sharding(meshes.make_batch_mesh())
    )


def time_bare_steps(program: TrainProgram, state: Any, batches: list[Any]) -> float:
    """Returns the seconds of a plain loop of steps over the batches, from a copy of the state."""
    state = jax.block_until_ready(jax.tree.map(jnp.copy, state))  # A step donates its state.
    start = time.perf_counter()
    for batch in batches:
        state = program.step(state, batch)
    jax.block_until_ready(state)
    return time.perf_counter() - start


def format_row(result: dict[str, Any]) -> tuple[str, ...]:
    """Returns a model's row of the table."""
    speed = result["images_per_s"]
    return (
        result["model"],
        f"{result['images']:,}",
        f"{speed['median']:,.1f}",
        f"({speed['min']:,.1f} - {speed['max']:,.1f})",
        f"{result['bare_images_per_s']['median']:,.1f}",
        f"{result['ratio']:.3f}",
        f"{result['evaluation_s']:.2f}",
        f"{result['saving_s']:.2f} ({result['saved_s']:.2f})",
    )


if __name__ == "__main__":
    flags.DEFINE_list(
        "models", ["resnet20", "lenet5_modern"], "The models to train, one after another."
    )
    flags.DEFINE_integer(
        "images", None, "Images per epoch. Default: 50,000, and fewer on CPU.", lower_bound=1
    )
    flags.DEFINE_integer("batch", 128, "Images per step.", lower_bound=1)
    flags.DEFINE_integer("blocks", 4, "Timed epochs of each model.", lower_bound=1)
    flags.DEFINE_integer(
        "steps_per_call",
        0,
        "train.steps_per_call of the run; the bare step makes one. By itself a run of so few epochs"
        " chooses one.",
        lower_bound=0,
    )
    run_benchmark(main)
