"""Any model of the registry at its smallest: narrow, on the smallest images that it takes."""

import functools

import jax
import jax.numpy as jnp

from cnn_jax import models
from cnn_jax.errors import UserError

CLASSES = 4
SIDES = (8, 28, 32, 47, 63, 67, 79, 107)  # One of them is enough for each model.


@functools.cache
def create_smallest(name, batch=1):
    """(model, params, stats, images); weights are He's, no dropout, equal blocks in a scan."""
    known = models.known_options(name)
    wanted = {"width": 1 / 16, "initializer": "he", "dropout": 0.0, "aux_heads": False}
    wanted["scan_min_blocks"] = 2  # Compiles one block of a stage.
    model = models.create(name, CLASSES, **{k: v for k, v in wanted.items() if k in known})
    channels = models.paper_input(name)[0][2]
    for side in SIDES:
        images = jax.random.uniform(jax.random.key(1), (batch, side, side, channels), jnp.float32)
        try:
            jax.eval_shape(model.init, jax.random.key(0), images)
        except UserError:
            continue
        return model, *model.init(jax.random.key(0), images), images
    raise AssertionError(f"{name}: no side of {SIDES} is enough")
