"""Images/s of a run's evaluation, and of the bare forward pass.

    python -m benchmarks.evaluate --models=resnet20,resnet50,vgg_d

The evaluation is a run's own, by the protocol `single`: batches are read, preprocessed and scored,
and each image counts once. The bare forward pass is the model alone, on one preprocessed batch in
the device's memory. Both take turns in one process.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from benchmarks.noise import make_noise_dataset
from benchmarks.result import (
    check_names,
    compute_range,
    format_columns,
    run_benchmark,
    write_result,
)
from cnn_jax import mesh as meshes
from cnn_jax import models
from cnn_jax.config import Data, Experiment, choose
from cnn_jax.cpu import settings
from cnn_jax.training import environment
from cnn_jax.training.compiled_functions import choose_compiler_options
from cnn_jax.training.program import build_program

# {model: ([H, W, C] of its images, number of classes, batch on CPU, test images on CPU)}
MODELS = {
    "resnet20": ((32, 32, 3), 10, 500, 2_000),
    "resnet50": ((224, 224, 3), 1000, 16, 32),
    "vgg_d": ((224, 224, 3), 1000, 16, 32),
}
BATCH, IMAGES = 250, 50_000  # On an accelerator: the size of ImageNet's validation set.
FLAGS = flags.FLAGS


def main() -> None:
    """Times each model, and prints the table and a line of JSON per model."""
    check_names("models", FLAGS.models, MODELS)
    settings.configure()  # As a launch does, like the next line.
    logging.set_verbosity(logging.WARNING)
    results = [measure_evaluation(name) for name in FLAGS.models]
    print(
        f"{FLAGS.blocks} evaluations and as many bare passes, taking turns;"
        f" {environment.describe_environment()['hardware']}\n"
    )
    print(format_table(results))
    for result in results:
        write_result(result | environment.describe_environment())


def measure_evaluation(model: str) -> dict[str, Any]:
    """Times a model's evaluation and its bare forward pass.

    Returns:
      The line of JSON: images/s of both, their ratio, and the seconds of the evaluation.
    """
    image, classes, batch, images = MODELS[model]
    if jax.default_backend() != "cpu":
        batch, images = BATCH, IMAGES
    batch, images = FLAGS.batch or batch, FLAGS.images or images
    config = Experiment(
        name=model,
        data=Data(
            batch_size=batch,
            eval_batch_size=batch,
            subtract_mean="channel",
            pad_and_crop=0,
            flip=False,
        ),
        model=choose(model, dtype=FLAGS.precision),
        schedule=choose("constant"),
    )
    with jax.default_matmul_precision(FLAGS.precision):
        dataset = make_noise_dataset(image, classes, train_images=1, test_images=images)
        program = build_program(config, dataset, jax.devices()[:1])
        time_passes = make_bare_pass(config, program.state, image, classes, batch)
        blocks: dict[str, list[float]] = {"evaluation": [], "bare": []}
        for block in range(FLAGS.blocks + 1):
            start = time.perf_counter()
            metrics = program.evaluate(program.state)
            end = time.perf_counter()
            if metrics["images"] != images:
                sys.exit(
                    f"evaluate.py: {model}: {metrics['images']} images were counted, not {images}"
                )
            speeds = {
                "evaluation": images / (end - start),
                "bare": time_passes(max(1, images // batch)),
            }
            if block:  # The first block compiles.
                for name, speed in speeds.items():
                    blocks[name].append(speed)
    speed, bare = compute_range(blocks["evaluation"]), compute_range(blocks["bare"])
    return {
        "benchmark": "evaluate",
        "model": model,
        "view": "single",
        "image": image,
        "batch": batch,
        "images": images,
        "precision": FLAGS.precision,
        "blocks": FLAGS.blocks,
        "images_per_s": speed,
        "bare_images_per_s": bare,
        "ratio": speed["median"] / bare["median"],
        "seconds": images / speed["median"],
    }


def make_bare_pass(
    config: Experiment, state: Any, image: tuple[int, int, int], classes: int, batch: int
) -> Callable[[int], float]:
    """Returns time_passes(passes) -> images/s of forward passes, whose logits stay on the device.

    Args:
      config: Names the model and its options.
      state: The trained state, whose parameters and running averages are used.
      image: [H, W, C] of an image.
      classes: Number of classes.
      batch: Images per forward pass.
    """
    model = models.create(config.model.name, classes, **config.model.args)
    mesh = meshes.make_batch_mesh(jax.devices()[:1])
    images = np.random.default_rng(0).standard_normal((batch, *image), np.float32)
    forward = jax.jit(
        lambda params, stats, images: model.apply(params, stats, images, train=False)[0],
        compiler_options=choose_compiler_options(
            config.train.steps, images.size, mesh
        ),  # As the run's.
    )
    images = jax.device_put(images, meshes.make_batch_sharding(mesh))

    def time_passes(passes: int) -> float:
        start = time.perf_counter()
        for _ in range(passes):
            logits = forward(state.params, state.stats, images)
        jax.block_until_ready(logits)
        return passes * batch / (time.perf_counter() - start)

    return time_passes


def format_table(results: list[dict[str, Any]]) -> str:
    """Returns a line per model, with seconds only where 50,000 images were evaluated."""
    lines = [
        (
            "model",
            "protocol",
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
                f"{result['model']}, {'x'.join(map(str, result['image'][:2]))}",
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
    return format_columns(lines)


if __name__ == "__main__":
    flags.DEFINE_list("models", list(MODELS), f"The models to evaluate: {', '.join(MODELS)}.")
    flags.DEFINE_integer(
        "images",
        None,
        "Test images. Default: 50,000; on CPU 2,000 of 32x32 or 32 of 224x224.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "batch", None, "Images per batch. Default: 250; on CPU 500 or 16.", lower_bound=1
    )
    flags.DEFINE_integer("blocks", 3, "Timed evaluations of each model.", lower_bound=1)
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "bfloat16"], "Precision of activations and products."
    )
    run_benchmark(main)
