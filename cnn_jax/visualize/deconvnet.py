"""ZFNet's deconvolutional network: the activation of a unit, projected back to pixels.

Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1. Layer by layer, from the top: unpool with
the switches of the forward pass, ReLU, then the transposed filters. That is the backward pass of
the model with the deconvnet's rule in each ReLU: max pooling sends a signal to where its maximum
was, and the transpose of a convolution is its gradient. Batch norm, a multiplication in test mode,
counts as a part of its filters. Local response normalization passes signals on as they are: the
paper does not undo its contrast normalization either.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers.lrn import LocalResponseNorm
from cnn_jax.models import Model
from cnn_jax.visualize.relu import apply_relu_rule


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def deconvolve(
    model: Model, params: Any, stats: Any, images: jax.Array, layer: str, signals: jax.Array
) -> jax.Array:
    """Projects signals at a layer back to the images' pixels.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C]; they set the switches.
      layer: A layer of `list_layers`.
      signals: Array of the layer's shape: its activations, or those of `keep_strongest`.

    Returns:
      [B, H, W, C].
    """

    def compute(images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_pass_normalization):
            return model.features(params, stats, images)[layer]

    maps, pull = jax.vjp(apply_relu_rule(compute, "deconvnet"), images)
    return pull(signals.astype(maps.dtype))[0]


def _pass_normalization(
    call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Lets signals through local response normalization as they are."""
    y = call(*args, **kwargs)
    if isinstance(context.module, LocalResponseNorm) and context.method_name == "__call__":
        return args[0] + jax.lax.stop_gradient(y - args[0])
    return y


def keep_strongest(maps: jax.Array, channels: jax.Array) -> jax.Array:
    """Returns the maps with all but one activation set to zero, as the paper does.

    Args:
      maps: [B, h, w, C].
      channels: [B] int: of which channel the strongest activation of each image is kept.

    Returns:
      [B, h, w, C].
    """
    batch, height, width, count = maps.shape
    own = jnp.take_along_axis(maps, channels[:, None, None, None], axis=3).reshape(batch, -1)
    place = jax.nn.one_hot(own.argmax(1), height * width, dtype=maps.dtype)
    channel = jax.nn.one_hot(channels, count, dtype=maps.dtype)
    kept = place.reshape(batch, height, width, 1) * channel[:, None, None]
    return maps * kept


def find_strongest_channels(maps: jax.Array, count: int) -> jax.Array:
    """Returns the channels of each image with the largest activations, strongest first.

    Args:
      maps: [B, h, w, C].
      count: How many, at most C.

    Returns:
      [B, count] int.
    """
    return jax.lax.top_k(maps.max((1, 2)), count)[1]
