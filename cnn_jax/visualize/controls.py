"""Controls: does a map depend on the weights, and do its pixels matter to the model?

A map that looks the same for random weights explains the image, not the model (Adebayo et al. 2018,
arXiv:1810.03292). Deletion and insertion curves measure whether the pixels that a map marks carry
the class's probability (Petsiuk, Das, Saenko 2018, arXiv:1806.07421, Sec. 4.1).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats as scipy_stats

from cnn_jax.models import Model

# A mean rank correlation from which on a map is said hardly to depend on the weights. The paper
# gives no threshold: this one is ours.
INDEPENDENT = 0.5


def randomize(model: Model, key: jax.Array, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Returns parameters and statistics of the model before any training.

    Args:
      model: The model.
      key: Draws them.
      image_shape: (H, W, C) of the images.
    """
    return model.init(key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))


def correlate_ranks(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns Spearman's rank correlation of the absolute values of two maps of each image.

    Args:
      first: Maps [B, H, W]; their signs are left out.
      second: Maps [B, H, W].

    Returns:
      [B] float64 from -1 to 1; NaN where a map has one value everywhere.
    """
    found = []
    for one, other in zip(np.abs(first), np.abs(second), strict=True):
        ranks = [scipy_stats.rankdata(x.ravel()) for x in (one, other)]
        constant = any(np.ptp(rank) == 0 for rank in ranks)
        found.append(np.nan if constant else np.corrcoef(*ranks)[0, 1])
    return np.array(found)


@functools.partial(jax.jit, static_argnames="model")
def compute_probabilities(model: Model, params: Any, stats: Any, images: jax.Array) -> jax.Array:
    """Returns the softmax of the logits, [B, classes].

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
    """
    return jax.nn.softmax(model.apply(params, stats, images)[0])


class Curves(NamedTuple):
    """The class's probability while pixels are deleted, or inserted, in a map's order.

    Attributes:
      shares: Shares of the pixels that are deleted or inserted, [steps + 1], from 0 to 1.
      deletion: Probabilities [B, steps + 1]. A good map makes it fall early.
      insertion: Probabilities [B, steps + 1]. A good map makes it rise early.
      deletion_area: The area under each, [B], from 0 to 1.
      insertion_area: Likewise.
    """

    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    deletion_area: np.ndarray
    insertion_area: np.ndarray


def measure_curves(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    maps: np.ndarray,
    steps: int = 16,
    blank: jax.Array | float = 0.0,
) -> Curves:
    """Measures deletion and insertion.

    Differs: inserted pixels appear on the blank image, where the paper blurs the image.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: The class of each, [B] int.
      maps: [B, H, W]; the largest sizes go first.
      steps: Equal parts of the pixels.
      blank: What takes the place of a pixel; broadcasts to the images.
    """
    sizes = np.abs(np.asarray(maps)).reshape(len(maps), -1)
    ranks = np.argsort(np.argsort(-sizes, axis=1, kind="stable"), axis=1).reshape(maps.shape)
    shares = np.linspace(0, 1, steps + 1)
    chosen: list[list[np.ndarray]] = [[], []]
    empty = jnp.broadcast_to(jnp.asarray(blank, images.dtype), images.shape)
    for share in shares:
        first = jnp.asarray(ranks < round(share * sizes.shape[1]))[..., None]
        for kind, x in enumerate(
            (jnp.where(first, empty, images), jnp.where(first, images, empty))
        ):
            probabilities = compute_probabilities(model, params, stats, x)
            chosen[kind].append(np.asarray(probabilities[jnp.arange(len(labels)), labels]))
    deletion, insertion = (np.stack(each, 1) for each in chosen)
    areas = [np.trapezoid(each, shares, axis=1) for each in (deletion, insertion)]
    return Curves(shares, deletion, insertion, *areas)
