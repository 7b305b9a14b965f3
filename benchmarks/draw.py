"""Draws what all peers of a comparison start from: weights, a batch of images, and its labels.

`benchmarks.train_step` runs this module as a process, with a `Spec` as JSON. It writes one .npz
file and prints the hardware, the versions and JAX's platform.
"""

import json
import math
import sys

import jax
import numpy as np

from benchmarks.peers import WORKLOADS, Spec
from cnn_jax import models
from cnn_jax.commands import run_command
from cnn_jax.layers import rbf
from cnn_jax.training import environment

# Batch norm's shifts in plain models, so that most units are active: 56 layers without shortcuts,
# of which half the units are at zero, magnify rounding errors until no two frameworks agree.
PLAIN_SHIFT = 2


def draw_arrays(spec: Spec) -> dict[str, np.ndarray]:
    """Draws every array at random, so that no two weights are equal.

    Returns:
      {params/<layer>/<name>, stats/<layer>/<name>, images [B, H, W, C] float32,
      labels [B] int32}; of LeNet-5 also its output's codes [classes, units] float32.
    """
    workload = WORKLOADS[spec.model]
    model = models.create(workload.model, spec.classes, **workload.options)
    params, stats = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *spec.image), np.float32)
    )
    rng, drawn = np.random.default_rng(0), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": params, "stats": stats}):
        *_, name = keys = [key.key for key in path]
        noise = rng.standard_normal(leaf.shape, np.float32)
        if name == "kernel":  # He's variance, which keeps the size of activations.
            noise *= np.float32(math.sqrt(2 / math.prod(leaf.shape[:-1])))
        else:
            noise = noise * np.float32(0.1) + np.float32(name in ("scale", "var", "coefficient"))
        if name == "bias" and "norm" in keys[-2] and workload.model.startswith("plain"):
            noise += np.float32(PLAIN_SHIFT)
        drawn["/".join(keys)] = noise
    if workload.model == "lenet5":
        drawn["codes"] = rbf.draw_bitmaps()[: spec.classes]
    images = rng.standard_normal((spec.batch, *spec.image), np.float32)
    return drawn | {
        "images": images,
        "labels": rng.integers(spec.classes, size=spec.batch, dtype=np.int32),
    }


def main() -> None:
    """Writes the arrays and prints what they were drawn with."""
    given = Spec(**json.loads(sys.argv[1]))
    np.savez(given.weights, **draw_arrays(given))
    print(json.dumps(environment.describe_environment() | {"platform": jax.default_backend()}))


if __name__ == "__main__":
    sys.exit(run_command(main))
