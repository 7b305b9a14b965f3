"""Grad-CAM: which positions of a layer's maps raise a class's score, and guided Grad-CAM.

Source: Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra 2017 (arXiv:1610.02391).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.models import Model
from cnn_jax.visualize.gradients import compute_guided_backprop
from cnn_jax.visualize.layers import choose_layer, list_layers, shift_layer
from cnn_jax.visualize.scores import ScoreName, score_outputs


class GradCam(NamedTuple):
    """Class activation maps.

    Attributes:
      maps: Bilinearly enlarged to the images, [B, H, W], at least 0.
      coarse: On the layer's own grid, [B, h, w], at least 0.
      layer: The layer whose maps they are.
    """

    maps: jax.Array
    coarse: jax.Array
    layer: str


def compute_grad_cam(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    layer: str | None = None,
    score: ScoreName = "logit",
) -> GradCam:
    """Returns Grad-CAM: ReLU of a layer's maps, weighted by their mean gradients (eq. 1 and 2).

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: [B] int.
      layer: None: the last one with a spatial map.
      score: logit (the paper's, before the softmax) | log_probability | probability.

    Raises:
      UserError: If there is no such layer, or it has no spatial map.
    """
    layers = list_layers(model, params, stats, images.shape[1:])
    layer = choose_layer(str(model.module.name), layers, layer)
    coarse = _weigh_maps(model, params, stats, images, labels, layer, score)
    return GradCam(jax.image.resize(coarse, images.shape[:3], "linear"), coarse, layer)


@functools.partial(jax.jit, static_argnames=("model", "layer", "score"))
def _weigh_maps(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    layer: str,
    score: ScoreName,
) -> jax.Array:
    maps = model.features(params, stats, images)[layer].astype(jnp.float32)

    def sum_scores(offset: jax.Array) -> jax.Array:
        with shift_layer(layer, offset):
            outputs, _ = model.apply(params, stats, images)
        return score_outputs(model, outputs, images, labels, score).sum()

    gradients = jax.grad(sum_scores)(jnp.zeros_like(maps))
    weights = gradients.mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * maps).sum(-1))


def compute_guided_grad_cam(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    layer: str | None = None,
    score: ScoreName = "logit",
) -> jax.Array:
    """Returns guided Grad-CAM: guided backpropagation times Grad-CAM (Sec. 3.2), [B, H, W, C].

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: [B] int.
      layer: None: the last one with a spatial map.
      score: As in `compute_grad_cam`.

    Raises:
      UserError: If there is no such layer, or the model has no ReLU.
    """
    cam = compute_grad_cam(model, params, stats, images, labels, layer, score)
    guided = compute_guided_backprop(model, params, stats, images, labels, score)
    return cam.maps[..., None] * guided
