"""Any model of the registry at its smallest: narrow, on the smallest images that it takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models
from cnn_jax.errors import UserError

CLASSES = 4
SIDES = (8, 28, 32, 47, 63, 67, 79, 107)  # One of them is enough for each model.


def _draw(shapes):
    """He's kernels, scales and variances of 1, small biases; NumPy's, which compiles nothing."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            values = rng.standard_normal(leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        elif path[-1].key in ("scale", "var", "coefficient"):
            values = np.ones(leaf.shape)
        else:
            values = 0.1 * rng.standard_normal(leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def create_smallest(name, batch=1):
    """(model, params, stats, images); weights are He's, no dropout, equal blocks in a scan."""
    known = models.list_options(name)
    # With fewer channels too many would be dead in an autoencoder and in a model without shortcuts.
    width = 1.0 if name.startswith("autoencoder_") else 1 / 4 if name == "plain20" else 1 / 16
    wanted = {"width": width, "initializer": "he", "dropout": 0.0, "aux_heads": False}
    wanted["scan_min_blocks"] = 2  # Compiles one block of a stage.
    model = models.create(name, CLASSES, **{k: v for k, v in wanted.items() if k in known})
    channels = models.get_paper_input(name)[0][2]
    for side in SIDES:
        images = jax.random.uniform(jax.random.key(1), (batch, side, side, channels), jnp.float32)
        try:
            shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        except UserError:
            continue
        return model, *_draw(shapes), images
    raise AssertionError(f"{name}: no side of {SIDES} is enough")
