"""ZFNet's occlusion maps: a model's outputs while a gray square covers a part of the image.

Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 4.2 and Figure 7.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.models import Model

BATCH = 64  # Covered images that are evaluated at once.


class Occlusion(NamedTuple):
    """Measurements with the square at each position, [B, rows, columns] each.

    Attributes:
      activity: The sum of the layer's map that is strongest in the whole image (Figure 7b).
      probability: Probability of the given class (Figure 7d).
      likeliest: The likeliest class, int (Figure 7e).
      channels: Which map it is for each image, [B].
      tops: Upper edges of the square in pixels, [rows].
      lefts: Left edges, [columns].
      side: Side of the square, in pixels.
    """

    activity: np.ndarray
    probability: np.ndarray
    likeliest: np.ndarray
    channels: np.ndarray
    tops: np.ndarray
    lefts: np.ndarray
    side: int


def occlude(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    layer: str,
    side: int | None = None,
    stride: int | None = None,
    gray: jax.Array | float = 0.0,
) -> Occlusion:
    """Covers every part of each image by a gray square and evaluates the model.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: The class of each, [B] int.
      layer: A layer with a spatial map: the paper's is layer 5.
      side: Side of the square in pixels; None: a quarter of the image's shorter side.
      stride: Pixels from one place to the next; None: half the square's side.
      gray: The color of the square; broadcasts to the images.
    """
    height, width = images.shape[1:3]
    side = side or max(1, min(height, width) // 4)
    stride = stride or max(1, side // 2)
    tops, lefts = _spread(height, side, stride), _spread(width, side, stride)
    empty = jnp.broadcast_to(jnp.asarray(gray, images.dtype), images.shape[1:])
    places = [(top, left) for top in tops for left in lefts]
    cover = np.zeros((len(places), height, width, 1), bool)
    for number, (top, left) in enumerate(places):
        cover[number, top : top + side, left : left + side] = True
    activities, probabilities, channels = [], [], []
    for image in images:
        whole, _ = _measure(model, params, stats, image[None], layer)
        channels.append(int(np.asarray(whole)[0].argmax()))
        found = []
        for start in range(0, len(places), BATCH):
            part = cover[start : start + BATCH]
            covered = jnp.where(jnp.asarray(part), empty[None], image[None])
            found.append(_measure(model, params, stats, covered, layer))
        sums, shares = (np.concatenate(each) for each in zip(*found, strict=True))
        activities.append(sums[:, channels[-1]])
        probabilities.append(shares)
    shape = (len(images), len(tops), len(lefts))
    stacked = np.stack(probabilities)  # [B, places, classes]
    own = stacked[np.arange(len(images)), :, np.asarray(labels)]
    return Occlusion(
        np.stack(activities).reshape(shape),
        own.reshape(shape),
        stacked.argmax(-1).reshape(shape),
        np.array(channels),
        tops,
        lefts,
        side,
    )


def _spread(length: int, side: int, stride: int) -> np.ndarray:
    """Returns where the square begins: every `stride` pixels, and at the far edge."""
    return np.unique([*range(0, length - side + 1, stride), length - side])


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def _measure(
    model: Model, params: Any, stats: Any, images: jax.Array, layer: str
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of each map of the layer, [B, C], and the probabilities [B, classes]."""
    maps = model.features(params, stats, images)[layer].astype(jnp.float32)
    return maps.sum((1, 2)), jax.nn.softmax(model.apply(params, stats, images)[0])
