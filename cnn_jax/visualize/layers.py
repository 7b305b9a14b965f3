"""A model's layers by name: their shapes, the last one with a spatial map, and what shifts them.

A layer here is what `Model.features` returns under a name.
"""

from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax

from cnn_jax.errors import UserError, suggest_names
from cnn_jax.models import Model

Shape = tuple[int, ...]


def list_layers(model: Model, params: Any, stats: Any, image_shape: Shape) -> dict[str, Shape]:
    """Returns {layer: shape of its activations for one image}, in the order of the forward pass.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      image_shape: (H, W, C) of the images; nothing is computed.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    order: dict[str, None] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name == "capture":
            order[args[0]] = None
        return call(*args, **kwargs)

    def trace(params: Any, stats: Any, images: jax.Array) -> dict[str, jax.Array]:
        return model.features(params, stats, images)  # A new function, which JAX has not cached.

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(trace, params, stats, images)  # Sorted by name.
    return {name: shapes[name].shape[1:] for name in order}


def find_spatial_layers(layers: dict[str, Shape]) -> list[str]:
    """Returns the layers whose maps have more than one position."""
    return [name for name, s in layers.items() if len(s) == 3 and s[0] * s[1] > 1]


def choose_layer(name: str, layers: dict[str, Shape], layer: str | None = None) -> str:
    """Returns the requested layer, or the last one with a spatial map.

    Args:
      name: Name of the model, for messages.
      layers: The result of `list_layers`.
      layer: The layer that is asked for, if one is.

    Raises:
      UserError: If there is no such layer, it has no spatial map, or no layer has one.
    """
    spatial = find_spatial_layers(layers)
    if layer is None:
        if not spatial:
            raise UserError(f"{name}: no layer has a spatial map, as a model without convolutions")
        return spatial[-1]
    if layer not in layers:
        raise UserError(f"layer={layer}: {name} has no such layer; {suggest_names(layer, layers)}")
    if layer not in spatial:
        have = f"those with one: {', '.join(spatial)}" if spatial else "no layer has one"
        raise UserError(f"layer={layer}: it has no spatial map in {name}; {have}")
    return layer


def shift_layer(layer: str, offset: jax.Array) -> AbstractContextManager:
    """Returns a context in which a model's apply adds an offset to the activations of a layer.

    The gradient with respect to an offset of zeros is that with respect to the activations.

    Args:
      layer: Its name.
      offset: Array of the activations' shape.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name == "capture" and args[0] == layer:
            return call(args[0], args[1] + offset.astype(args[1].dtype))
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)
