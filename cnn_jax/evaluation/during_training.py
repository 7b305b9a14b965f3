"""The protocol `single` during training: the single view of each test image, each counted once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnn_jax import mesh as meshes
from cnn_jax.cpu import memory
from cnn_jax.data import Loader
from cnn_jax.evaluation.losses import compute_loss_and_error
from cnn_jax.models import Model

EvaluationStep = Callable[[Any, Any, Any, Any], dict[str, jax.Array]]


def make_evaluation_step(model: Model, loader: Loader) -> EvaluationStep:
    """Returns the evaluation step of a batch, not yet compiled.

    Args:
      model: The model.
      loader: The loader of the test images, which fetches and preprocesses a batch in the step.

    Returns:
      step(params, stats, arrays, item) -> {loss: [B] in nats, error: [B], valid: [B] bool}.
    """

    def step(params: Any, stats: Any, arrays: Any, item: Any) -> dict[str, jax.Array]:
        batch = loader.fetch(arrays, item)
        images = loader.preprocess(arrays, batch["image"])
        outputs, _ = model.apply(params, stats, images, train=False)
        loss, error = compute_loss_and_error(model, outputs, images, batch["label"])
        return {"loss": loss, "error": error, "valid": batch["valid"]}

    return step


def compile_evaluation(
    step: EvaluationStep, mesh: Mesh, options: dict[str, Any] | None = None
) -> EvaluationStep:
    """Returns the evaluation step compiled over the mesh's devices.

    Args:
      step: The result of `make_evaluation_step`.
      mesh: The devices.
      options: XLA's compiler options.
    """
    whole, split = meshes.make_replicated_sharding(mesh), meshes.make_batch_sharding(mesh)
    jitted = jax.jit(
        step,
        in_shardings=(whole, whole, whole, split),
        out_shardings=whole,
        compiler_options=options,
    )
    return memory.trim_after_compiling(jitted)


def evaluate_single(
    step: EvaluationStep, model: Model, params: Any, stats: Any, loader: Loader, arrays: Any
) -> dict[str, float]:
    """Returns the means over all images of the loader, each counted once.

    Args:
      step: The result of `make_evaluation_step`, compiled.
      model: The model, which names its error.
      params: The model's parameters.
      stats: Batch norm's running averages.
      loader: Batches of the test images.
      arrays: The loader's arrays, on the devices.

    Returns:
      {loss (nats), top1_error or what the model calls its error (0 to 1), images}.
    """
    rows = [step(params, stats, arrays, item) for item in loader.batches(0)]
    columns = {k: np.concatenate([np.asarray(row[k]) for row in rows]) for k in rows[0]}
    valid = columns["valid"]
    loss, error = (float(np.mean(columns[k][valid], dtype=np.float64)) for k in ("loss", "error"))
    return {"loss": loss, model.error_name: error, "images": int(valid.sum())}
