"""The state of a run, which holds everything that a training step changes."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from cnn_jax.models import Model

# (state, inputs, batch) -> the state after the update
Step = Callable[[Any, Any, Any], Any]


class State(flax.struct.PyTreeNode):
    """The state of a run between two steps.

    Attributes:
      step: [] int32, updates done.
      params: The model's trainable parameters.
      stats: Batch norm's running averages.
      opt: The optimizer's state, with that of the schedule and of early stopping.
      sums: Sums since the last log line: loss and error [] float32; steps, bad_images and skipped
        [] int32.
      nan_step: [] int32, the first step whose loss was not finite; -1: none. If such updates are
        skipped, it is the first step of the latest series of skipped steps.
    """

    step: jax.Array
    params: Any
    stats: Any
    opt: Any
    sums: dict[str, jax.Array]
    nan_step: jax.Array


def make_zero_sums() -> dict[str, jax.Array]:
    """Returns the sums at the start of a log interval."""
    floats = {name: jnp.zeros((), jnp.float32) for name in ("loss", "error")}
    return floats | {n: jnp.zeros((), jnp.int32) for n in ("steps", "bad_images", "skipped")}


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images: jax.Array | jax.ShapeDtypeStruct,
) -> State:
    """Returns the state before the first step.

    Args:
      model: The model.
      optimizer: The optimizer.
      key: The random key from which the initial parameters are drawn.
      images: [1, H, W, C]; only the shape and dtype matter.
    """
    params, stats = model.init(key, images)
    opt = optimizer.init(params)
    return State(jnp.int32(0), params, stats, opt, make_zero_sums(), jnp.int32(-1))
