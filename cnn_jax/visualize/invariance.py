"""How far a model's features move when an image is shifted, scaled or rotated.

Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 4.1 and Figure 5.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from cnn_jax.models import Model

# The paper shifts images of 224 pixels by up to 60 and scales them by up to 1.8.
MAX_SHIFT, MAX_SCALE = 60 / 224, 1.8


@jax.jit
def transform(
    images: jax.Array, shift: jax.Array, scale: jax.Array, degrees: jax.Array
) -> jax.Array:
    """Shifts, scales and rotates images about their center, bilinearly; zeros come in from outside.

    Args:
      images: [B, H, W, C].
      shift: Downwards, in pixels.
      scale: More than 1 enlarges.
      degrees: Counterclockwise.
    """
    height, width = images.shape[1:3]
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)[:, None, None]
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    offset = jnp.zeros((2, 1, 1)).at[0].set(shift)
    y, x = (grid.astype(jnp.float32) - middle - offset) / scale
    angle = jnp.deg2rad(degrees)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    # Where each pixel comes from; rows grow downwards.
    source = jnp.stack([cosine * y + sine * x, cosine * x - sine * y]) + middle

    def sample(plane: jax.Array) -> jax.Array:
        return map_coordinates(plane, list(source), order=1, mode="constant")

    planes = jnp.moveaxis(images, -1, 1).reshape(-1, height, width)
    moved = jax.vmap(sample)(planes).reshape(len(images), -1, height, width)
    return jnp.moveaxis(moved, 1, -1)


class Invariance(NamedTuple):
    """One of the three rows of Figure 5.

    Attributes:
      name: shift (pixels) | scale | rotation (degrees).
      values: How far the images were changed, [n].
      distances: {layer: Euclidean distance of the features from those of the unchanged image,
        [B, n]}.
      probability: Probability of the given class, [B, n].
    """

    name: str
    values: np.ndarray
    distances: dict[str, np.ndarray]
    probability: np.ndarray


def measure_invariance(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    layers: tuple[str, ...],
    count: int = 13,
) -> list[Invariance]:
    """Measures how features change under vertical shifts, scaling and rotation.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: The class of each, [B] int.
      layers: Which features; the paper's are layer 1 and layer 7.
      count: Changes of each kind.
    """
    most = MAX_SHIFT * images.shape[1]
    kinds = {
        "shift (pixels)": (np.linspace(-most, most, count), 0),
        "scale": (np.linspace(1, MAX_SCALE, count), 1),
        "rotation (degrees)": (np.linspace(0, 360, count), 2),
    }
    found = []
    still, _ = _measure(model, params, stats, images, layers)
    for name, (values, place) in kinds.items():
        distances: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
        probabilities = []
        for value in values:
            change = [0.0, 1.0, 0.0]
            change[place] = float(value)
            moved = transform(images, *change)
            features, shares = _measure(model, params, stats, moved, layers)
            for layer in layers:
                differences = np.asarray(features[layer] - still[layer])
                distances[layer].append(np.linalg.norm(differences, axis=1))
            probabilities.append(np.asarray(shares)[np.arange(len(images)), np.asarray(labels)])
        stacked = {layer: np.stack(each, 1) for layer, each in distances.items()}
        found.append(Invariance(name, values, stacked, np.stack(probabilities, 1)))
    return found


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _measure(
    model: Model, params: Any, stats: Any, images: jax.Array, layers: tuple[str, ...]
) -> tuple[dict[str, jax.Array], jax.Array]:
    features = model.features(params, stats, images)
    flat = {name: features[name].reshape(len(images), -1).astype(jnp.float32) for name in layers}
    return flat, jax.nn.softmax(model.apply(params, stats, images)[0])
