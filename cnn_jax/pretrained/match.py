"""The tensors of a file as the parameters and statistics of a net: each used exactly once, each of its shape."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.pretrained.preprocessing import Preprocessing
from cnn_jax.pretrained.tensor import DAMAGED, Tensor

Shape = tuple[int, ...]
Shapes = dict[str, Shape]  # "params/stage1_block1/conv1/kernel": shape; statistics are "stats/..."


class Place(NamedTuple):
    """Where a parameter or statistic comes from.

    Attributes:
      name: of the tensor in the file; None: it is all ones.
      shape: that the tensor should have there.
      laid_out: from how it lies there to how it lies here.
    """

    name: str | None
    shape: Shape
    laid_out: Callable[[np.ndarray], np.ndarray] = lambda array: array


def shapes(name: str, num_classes: int, options: Mapping[str, Any], images: Preprocessing) -> Shapes:
    """Of all parameters and statistics of a net; nothing is computed. Raises UserError for options it has not."""
    model = models.create(name, num_classes, **options)
    image = jax.ShapeDtypeStruct((1, images.crop, images.crop, len(images.mean)), jnp.float32)
    params, stats = jax.eval_shape(model.init, jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in flat(params, stats).items()}


def flat(params: Any, stats: Any) -> dict[str, Any]:
    """Parameters and statistics by their paths."""
    return traverse_util.flatten_dict({"params": params, "stats": stats}, sep="/")


def filled(net: str, places: Mapping[str, Place], tensors: Mapping[str, Tensor], unused: str) -> tuple[Any, Any]:
    """Parameters and statistics, float32, from the tensors; raises UserError where they do not fit one to one.

    net: its name, for messages. unused: the pattern of names that need not be used.
    """
    wanted = [place.name for place in places.values() if place.name is not None]
    assert len(set(wanted)) == len(wanted), f"{net}: a tensor for two places"
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in sorted(tensors.keys() - set(wanted)) if not re.search(unused, name)]
    if missing or extra:
        parts = ["has no tensor " + _first(missing)] if missing else []
        parts += [f"has the tensor {_first(extra)}, which {net} has not"] if extra else []
        raise UserError(f"{', but '.join(parts)}; is this a file of {net}?")
    for place in places.values():
        if place.name is not None and tensors[place.name].shape != place.shape:
            has = tensors[place.name].shape
            raise UserError(f"tensor {place.name!r} has shape {has}; in {net} it is {place.shape}")
    values = {path: _value(place, tensors) for path, place in places.items()}
    tree = traverse_util.unflatten_dict(values, sep="/")
    return tree["params"], tree.get("stats", {})


def _value(place: Place, tensors: Mapping[str, Tensor]) -> jax.Array:
    if place.name is None:
        return jnp.ones(place.shape, jnp.float32)
    try:
        read = tensors[place.name].read()
    except DAMAGED as error:
        raise UserError(f"tensor {place.name!r} cannot be read, it may be damaged: {error}") from error
    # A copy of its own (jnp.asarray need not make one): what was read may be the file's memory.
    return jnp.array(place.laid_out(read), jnp.float32)


def _first(names: list[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def from_torch(name: str, ours: Shape, ndim: int, map_channels: int) -> Place:
    """torch's kernels are [out, in, height, width] and [out, in], ours [height, width, in, out] and [in, out].

    ndim: of the tensor; 4 where a dense layer is timm's convolution over the whole map. map_channels: of the map
    [channels, height, width] that torch flattens before a dense layer, and we as [height, width, channels]; 0: none.
    """
    if len(ours) == 4:
        height, width, inputs, outputs = ours
        return Place(name, (outputs, inputs, height, width), lambda array: array.transpose(2, 3, 1, 0))
    if len(ours) == 2:
        inputs, outputs = ours
        channels = map_channels or inputs
        side = math.isqrt(inputs // channels)
        as_map = (outputs, channels, side, side)
        laid_out = lambda array: array.reshape(as_map).transpose(2, 3, 1, 0).reshape(inputs, outputs)
        return Place(name, as_map if ndim == 4 else (outputs, inputs), laid_out)
    return Place(name, ours)
