"""A whole epoch of CIFAR-10's size as a run trains it, against its bare step.

The difference is what all that is around a step costs.

    python -m benchmarks.epoch --nets=resnet20,lenet5_modern

The run is `train.run` on the ResNet paper's CIFAR-10 recipe: batches drawn and augmented, metrics,
log lines, TensorBoard, a progress bar. The bare step is the same compiled function in a plain loop
over batches drawn beforehand. An epoch of the run and one of the bare step take turns, in one
process; the evaluation and the checkpoint after each epoch of the run are timed apart.
"""

import contextlib
import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks.result import aligned, spread, tell
from cnn_jax import data, models
from cnn_jax import mesh as meshes
from cnn_jax.config import Experiment, change, choose
from cnn_jax.training import checkpoint, metrics_log, train
from cnn_jax.training.program import TrainProgram
from experiments import resnet_degradation

IMAGES = 50_000  # CIFAR-10's; a fifth as many are tested on
ON_CPU = {"resnet20": 2_560, "lenet5_modern": 12_800}  # where whole epochs would take minutes
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Times each net, and prints the table and a line of JSON each."""
    if unknown := [*argv[1:], *(net for net in FLAGS.nets if net not in models.MODELS)]:
        sys.exit(f"epoch.py: {unknown[0]}: no such net")
    logging.set_verbosity(logging.WARNING)  # of the libraries, as a launch does
    lines = [
        (
            "net",
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
    for net in FLAGS.nets:
        shortened = ON_CPU.get(net, IMAGES) if jax.default_backend() == "cpu" else IMAGES
        results.append(timed(net, FLAGS.images or shortened, FLAGS.batch, FLAGS.blocks))
        lines.append(cells(results[-1]))
    print(
        f"{FLAGS.blocks} epochs of each, in turns;"
        f" {metrics_log.describe_environment()['hardware']}\n"
    )
    print(aligned(lines))
    for result in results:
        tell(result | metrics_log.describe_environment())


def timed(net: str, images: int, batch: int, blocks: int) -> dict[str, Any]:
    """What is found of a net.

    Images/s of epochs and of the bare step, seconds of an evaluation and of saving.
    """
    steps = -(-images // batch)
    found: dict[str, list[float]] = {
        "epoch": [],
        "bare": [],
        "evaluation": [],
        "saving": [],
        "saved": [],
    }
    told = experiment(net, batch, steps, epochs=blocks + 1)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(data.DATASETS, {told.data.name: lambda data_dir: noise(images)}),
        mock.patch.object(train, "build_program", watched(train.build_program, steps, found)),
        mock.patch.object(checkpoint, "save", watched_save(checkpoint.save, found)),
        contextlib.redirect_stderr(Terminal()),
    ):
        data.open_dataset.cache_clear()
        train.run(told, folder)
    # The first epoch compiles.
    epoch, bare, evaluation, saving, saved = (values[1:] for values in found.values())
    return {
        "benchmark": "epoch",
        "net": net,
        "batch": batch,
        "images": images,
        "steps": steps,
        "blocks": blocks,
        "images_per_s": spread([steps * batch / seconds for seconds in epoch]),
        "bare_images_per_s": spread([steps * batch / seconds for seconds in bare]),
        "ratio": statistics.median(b / e for b, e in zip(bare, epoch, strict=True)),
        "evaluation_s": statistics.median(evaluation),
        "evaluation_images": images // 5,
        "saving_s": statistics.median(saving),
        "saved_s": statistics.median(saved),
    }


def experiment(net: str, batch: int, steps: int, epochs: int) -> Experiment:
    """The paper's recipe for CIFAR-10, with another net; it evaluates and saves each epoch."""
    paper = resnet_degradation.cifar("paper").runs["resnet-20"]
    return replace(
        paper,
        name=net,
        data=replace(paper.data, dataset=choose("noise"), batch_size=batch),
        model=paper.model if net == paper.model.name else choose(net),
        # Noise cannot be learnt, but a loss can overflow.
        schedule=change(paper.schedule, base=1e-3),
        train=replace(paper.train, steps=epochs * steps, eval_every=steps, save_every=steps),
    )


def noise(images: int) -> data.Dataset:
    """CIFAR-10's shapes, and a fifth as many test images."""
    rng = np.random.default_rng(0)

    def split(count: int) -> data.Arrays:
        return data.Arrays(
            rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count, np.int32)
        )

    return data.Dataset(split(images), split(max(1, images // 5)), 10)


class Terminal(io.StringIO):
    """Makes a progress bar be drawn as on a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def watched(build: Callable, steps: int, found: dict[str, list[float]]) -> Callable:
    """build_program whose program notes when an epoch begins and ends.

    Between an epoch and its evaluation it runs the bare step.
    """

    def build_watched(*arguments: Any, **options: Any) -> TrainProgram:
        program = build(*arguments, **options)
        bare_items = prepared(program.batches(0), steps)
        began = 0.0

        def batches(start: int) -> Iterator[Any]:
            nonlocal began
            drawn = program.batches(start)
            for k in itertools.count(start):
                if k % steps == 0:
                    began = time.perf_counter()
                yield next(drawn)

        def evaluate(state: Any) -> dict[str, float]:
            # The run has waited for the step, and has logged it.
            found["epoch"].append(time.perf_counter() - began)
            found["bare"].append(bare(program, state, bare_items))
            # Until it is written, when the run begins to save.
            found["evaluation"].append(-time.perf_counter())
            return program.evaluate(state)

        return program._replace(batches=batches, evaluate=evaluate)

    return build_watched


def watched_save(save: Callable, found: dict[str, list[float]]) -> Callable:
    """checkpoint.save that notes how long it keeps the run waiting and how long it writes.

    It ends with that.
    """

    def saved(checkpoints: Any, *rest: Any) -> None:
        began = time.perf_counter()
        found["evaluation"][-1] += began
        save(checkpoints, *rest)
        found["saving"].append(time.perf_counter() - began)
        checkpoints.wait_until_finished()  # so that no epoch is slowed by it
        found["saved"].append(time.perf_counter() - began)

    return saved


def prepared(items: Iterator[Any], steps: int) -> list[Any]:
    """The items of so many steps, lying on the devices as a step takes them."""
    return jax.device_put(list(itertools.islice(items, steps)), meshes.sharded(meshes.batch_mesh()))


def bare(program: TrainProgram, state: Any, items: list[Any]) -> float:
    """Seconds of the compiled step in a loop over all items, from a copy of the state."""
    state = jax.block_until_ready(jax.tree.map(jnp.copy, state))  # a step consumes what it is given
    began = time.perf_counter()
    for item in items:
        state = program.step(state, item)
    jax.block_until_ready(state)
    return time.perf_counter() - began


def cells(result: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    speed = result["images_per_s"]
    return (
        result["net"],
        f"{result['images']:,}",
        f"{speed['median']:,.1f}",
        f"({speed['min']:,.1f} - {speed['max']:,.1f})",
        f"{result['bare_images_per_s']['median']:,.1f}",
        f"{result['ratio']:.3f}",
        f"{result['evaluation_s']:.2f}",
        f"{result['saving_s']:.2f} ({result['saved_s']:.2f})",
    )


if __name__ == "__main__":
    flags.DEFINE_list("nets", ["resnet20", "lenet5_modern"], "What is trained, one after another.")
    flags.DEFINE_integer(
        "images", None, "Of an epoch. Default: 50,000; on CPU fewer.", lower_bound=1
    )
    flags.DEFINE_integer("batch", 128, "Images a step.", lower_bound=1)
    flags.DEFINE_integer("blocks", 4, "Timed epochs of each.", lower_bound=1)
    app.run(main)
