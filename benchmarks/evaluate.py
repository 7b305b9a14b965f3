"""Images a second of an evaluation, of each view of a test image, against the bare forward pass.

    python -m benchmarks.evaluate --nets=resnet20,resnet50,vgg_d

The evaluation is a run's own: batches drawn, prepared and scored, each image counted once. The bare pass is the net
alone, compiled by itself, on one prepared batch that lies on the device. Both take turns in one process.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks.result import aligned, spread, tell
from cnn_jax import data, models
from cnn_jax import mesh as meshes
from cnn_jax.config import Data, Experiment, choose
from cnn_jax.training import metrics_log
from cnn_jax.training.program import build_program

# The images that a net is timed on, their classes, the batch and how many there are on CPU.
NETS = {
    "resnet20": ((32, 32, 3), 10, 500, 2_000),
    "resnet50": ((224, 224, 3), 1000, 16, 32),
    "vgg_d": ((224, 224, 3), 1000, 16, 32),
}
BATCH, IMAGES = 250, 50_000  # on an accelerator: of ImageNet's test
VIEWS = ("single",)
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Times each net and view, and prints the table and a line of JSON each."""
    if unknown := [*argv[1:], *(net for net in FLAGS.nets if net not in NETS)]:
        sys.exit(f"evaluate.py: {unknown[0]}: choose --nets of {', '.join(NETS)}")
    logging.set_verbosity(logging.WARNING)  # of the libraries, as a launch does
    results = [timed(net, view) for net in FLAGS.nets for view in VIEWS]
    print(
        f"{FLAGS.blocks} evaluations and as many bare passes, in turns; {metrics_log.describe_environment()['hardware']}\n"
    )
    print(table(results))
    for result in results:
        tell(result | metrics_log.describe_environment())


def timed(net: str, view: str) -> dict[str, Any]:
    """What is found of a net: images/s of its evaluation and of the bare forward pass."""
    image, classes, batch, images = NETS[net]
    if jax.default_backend() != "cpu":
        batch, images = BATCH, IMAGES
    batch, images = FLAGS.batch or batch, FLAGS.images or images
    config = Experiment(
        name=net,
        data=Data(
            batch_size=batch,
            eval_batch_size=batch,
            subtract_mean="channel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose(net, dtype=FLAGS.precision),
        schedule=choose("constant"),
    )
    with jax.default_matmul_precision(FLAGS.precision):
        program = build_program(config, noise(image, classes, images), jax.devices()[:1])
        passes = bare(net, config, program.state, image, classes, batch)
        blocks: dict[str, list[float]] = {"evaluation": [], "bare": []}
        for block in range(FLAGS.blocks + 1):
            began = time.perf_counter()
            found = program.evaluate(program.state)
            ended = time.perf_counter()
            if found["images"] != images:
                sys.exit(f"evaluate.py: {net}: {found['images']} images were counted, not {images}")
            speeds = {
                "evaluation": images / (ended - began),
                "bare": passes(max(1, images // batch)),
            }
            if block:  # the first compiles
                for name, speed in speeds.items():
                    blocks[name].append(speed)
    speed, of_bare = spread(blocks["evaluation"]), spread(blocks["bare"])
    return {
        "benchmark": "evaluate", "net": net, "view": view, "image": image, "batch": batch, "images": images,
        "precision": FLAGS.precision, "blocks": FLAGS.blocks, "images_per_s": speed, "bare_images_per_s": of_bare,
        "ratio": speed["median"] / of_bare["median"], "seconds": images / speed["median"],
    }  # fmt: skip


def bare(
    net: str, config: Experiment, state: Any, image: tuple[int, int, int], classes: int, batch: int
) -> Callable[[int], float]:
    """run(passes) -> images/s of so many forward passes of a batch, the logits left where they are."""
    model = models.create(net, classes, **config.model.args)
    forward = jax.jit(
        lambda params, stats, images: model.apply(params, stats, images, train=False)[0]
    )
    images = np.random.default_rng(0).standard_normal((batch, *image), np.float32)
    images = jax.device_put(images, meshes.sharded(meshes.batch_mesh(jax.devices()[:1])))

    def run(passes: int) -> float:
        began = time.perf_counter()
        for _ in range(passes):
            logits = forward(state.params, state.stats, images)
        jax.block_until_ready(logits)
        return passes * batch / (time.perf_counter() - began)

    return run


def noise(image: tuple[int, int, int], classes: int, images: int) -> data.Dataset:
    """So many test images, and one to train on."""
    rng = np.random.default_rng(0)
    split = lambda count: data.Arrays(
        rng.integers(0, 256, (count, *image), np.uint8), rng.integers(0, classes, count, np.int32)
    )
    return data.Dataset(split(1), split(images), classes)


def table(results: list[dict[str, Any]]) -> str:
    """A line a net and view; the seconds of ImageNet's 50,000 only where so many were timed."""
    lines = [
        (
            "net",
            "view",
            "images",
            "batch",
            "images/s",
            "(min - max)",
            "bare pass",
            "evaluation/bare",
            "seconds",
        )
    ]
    for result in results:
        speed = result["images_per_s"]
        lines.append(
            (
                f"{result['net']}, {'x'.join(map(str, result['image'][:2]))}",
                result["view"],
                f"{result['images']:,}",
                str(result["batch"]),
                f"{speed['median']:,.1f}",
                f"({speed['min']:,.1f} - {speed['max']:,.1f})",
                f"{result['bare_images_per_s']['median']:,.1f}",
                f"{result['ratio']:.3f}",
                f"{result['seconds']:.1f}" if result["images"] == IMAGES else "-",
            )
        )
    return aligned(lines)


if __name__ == "__main__":
    flags.DEFINE_list("nets", list(NETS), f"What is evaluated: {', '.join(NETS)}.")
    flags.DEFINE_integer(
        "images", None, "Default: 50,000; on CPU 2,000 of 32x32 or 32 of 224x224.", lower_bound=1
    )
    flags.DEFINE_integer(
        "batch", None, "Images a batch. Default: 250; on CPU 500 or 16.", lower_bound=1
    )
    flags.DEFINE_integer("blocks", 3, "Timed evaluations of each.", lower_bound=1)
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "bfloat16"], "Of the activations and products."
    )
    app.run(main)
