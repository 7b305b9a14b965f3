"""A model's first filters, and the images that activate each of its channels most."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.layers.conv import Conv
from cnn_jax.models import Model


class Filters(NamedTuple):
    """The kernels of a model's first convolution.

    Attributes:
      layer: Its path in the parameters.
      kernels: [h, w, C, number].
    """

    layer: str
    kernels: np.ndarray


def find_first_filters(
    model: Model, params: Any, stats: Any, image_shape: tuple[int, ...]
) -> Filters:
    """Returns the kernels that see the image itself.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      image_shape: (H, W, C) of the images.

    Raises:
      UserError: If the model has no convolution.
    """
    paths: list[tuple[str, ...]] = []

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, Conv) and context.method_name == "__call__":
            paths.append(context.module.path)
        return call(*args, **kwargs)

    def trace(params: Any, stats: Any, images: jax.Array) -> dict[str, jax.Array]:
        return model.features(params, stats, images)  # A new function, which JAX has not cached.

    with nn.intercept_methods(note):
        images = jax.ShapeDtypeStruct((1, *image_shape), "float32")
        jax.eval_shape(trace, params, stats, images)
    if not paths:
        raise UserError(f"{model.module.name} has no convolution, and so no filters to show")
    own = functools.reduce(lambda tree, name: tree[name], paths[0], params)
    return Filters("/".join(paths[0]), np.asarray(own["kernel"]))


class TopImages(NamedTuple):
    """The images that excite each channel of a layer most, strongest first.

    Attributes:
      images: Their numbers, [channels, count].
      places: Row and column of the strongest unit, [channels, count, 2].
      values: Its activation, [channels, count].
    """

    images: np.ndarray
    places: np.ndarray
    values: np.ndarray


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def _find_maxima(
    model: Model, params: Any, stats: Any, images: jax.Array, layer: str
) -> tuple[jax.Array, jax.Array]:
    maps = model.features(params, stats, images)[layer].astype(jnp.float32)
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return flat.max(1), flat.argmax(1)


def find_top_images(
    model: Model,
    params: Any,
    stats: Any,
    batches: Iterable[jax.Array],
    layer: str,
    count: int = 9,
) -> TopImages:
    """Finds, for each channel, the images with the largest activation.

    Each image counts once for a channel, however many of its units are strong. Source: Zeiler,
    Fergus 2013 (arXiv:1311.2901), Sec. 4 and Figure 2, which shows the top nine.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      batches: Images, [B, H, W, C] each; images are numbered through all batches.
      layer: A layer with maps [B, h, w, C].
      count: How many images of each channel; fewer if there are fewer images.
    """
    values, places = [], []
    width = 1
    for images in batches:
        found = jax.eval_shape(model.features, params, stats, images)[layer].shape
        width = found[2]
        strongest, at = _find_maxima(model, params, stats, images, layer)
        values.append(np.asarray(strongest))
        places.append(np.asarray(at))
    value, place = np.concatenate(values), np.concatenate(places)  # [images, channels]
    order = np.argsort(-value, axis=0, kind="stable")[:count]
    rows, columns = np.divmod(np.take_along_axis(place, order, 0), width)
    return TopImages(
        order.T, np.stack([rows, columns], -1).swapaxes(0, 1), np.take_along_axis(value, order, 0).T
    )
