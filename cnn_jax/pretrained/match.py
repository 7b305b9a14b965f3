"""Fills a model's parameters and statistics from the tensors of a file.

Each tensor is used exactly once, and each has exactly the shape that the model needs.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.pretrained.names import FileLayout
from cnn_jax.pretrained.preprocessing import Preprocessing
from cnn_jax.pretrained.tensor import READ_ERRORS, Tensor

Shape = tuple[int, ...]
# {"params/stage1_block1/conv1/kernel": shape}; statistics are "stats/...".
Shapes = dict[str, Shape]


class TensorSource(NamedTuple):
    """Where a parameter or statistic comes from.

    Attributes:
      name: The tensor in the file; None: there is none, and the values are ones.
      shape: The shape that the tensor must have there.
      convert: From the file's layout to ours; None: they are equal.
      revert: From our layout to the file's; None: they are equal.
    """

    name: str | None
    shape: Shape
    convert: Callable[[np.ndarray], np.ndarray] | None = None
    revert: Callable[[np.ndarray], np.ndarray] | None = None


def list_shapes(
    name: str, num_classes: int, options: Mapping[str, Any], images: Preprocessing
) -> Shapes:
    """Returns the shapes of a model's parameters and statistics; nothing is computed.

    Args:
      name: The model.
      num_classes: Logits.
      options: Options of the model.
      images: Tells the size of its images.

    Raises:
      UserError: If the model has no such option.
    """
    model = models.create(name, num_classes, **options)
    image = jax.ShapeDtypeStruct((1, images.crop, images.crop, len(images.mean)), jnp.float32)
    params, stats = jax.eval_shape(model.init, jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in flatten(params, stats).items()}


def flatten(params: Any, stats: Any) -> dict[str, Any]:
    """Returns parameters and statistics by their paths."""
    return traverse_util.flatten_dict({"params": params, "stats": stats}, sep="/")


def fill(
    model: str, sources: Mapping[str, TensorSource], tensors: Mapping[str, Tensor], unused: str
) -> tuple[Any, Any]:
    """Returns a model's parameters and statistics, float32.

    Args:
      model: Its name, for messages.
      sources: Where each comes from, by path.
      tensors: The file's, by name.
      unused: A pattern of names that need not be used.

    Raises:
      UserError: If sources and tensors do not fit one to one.
    """
    needed = [source.name for source in sources.values() if source.name is not None]
    assert len(set(needed)) == len(needed), f"{model}: a tensor is used twice"
    missing = [name for name in needed if name not in tensors]
    extra = [n for n in sorted(tensors.keys() - set(needed)) if not re.search(unused, n)]
    if missing or extra:
        parts = [f"has no tensor {_list_first(missing)}"] if missing else []
        parts += [f"has the tensor {_list_first(extra)}, which {model} has not"] if extra else []
        raise UserError(f"{', but '.join(parts)}; is this a file of {model}?")
    for source in sources.values():
        if source.name is not None and tensors[source.name].shape != source.shape:
            shape = tensors[source.name].shape
            raise UserError(
                f"tensor {source.name!r} has shape {shape}; in {model} it is {source.shape}"
            )
    values = {path: read_parameter(source, tensors) for path, source in sources.items()}
    tree = traverse_util.unflatten_dict(values, sep="/")
    return tree["params"], tree.get("stats", {})


def read_parameter(source: TensorSource, tensors: Mapping[str, Tensor]) -> jax.Array:
    """Returns a parameter or statistic, float32, in our layout.

    Raises:
      UserError: If its tensor is damaged.
    """
    if source.name is None:
        return jnp.ones(source.shape, jnp.float32)
    try:
        values = tensors[source.name].read()
    except READ_ERRORS as error:
        raise UserError(
            f"tensor {source.name!r} cannot be read, it may be damaged: {error}"
        ) from error
    values = source.convert(values) if source.convert else values
    # A copy of its own: what was read may be the file's memory, which jnp.asarray might keep.
    return jnp.array(values, jnp.float32)


def _list_first(names: Sequence[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def find_torch_source(
    name: str, shape: Shape, ndim: int, flattened_channels: int = 0
) -> TensorSource:
    """Returns where a parameter comes from in a file of torch.

    Kernels of torch are [out, in, height, width] and [out, in], ours [height, width, in, out] and
    [in, out].

    Args:
      name: The tensor.
      shape: Ours.
      ndim: The tensor's; 4 where a dense layer is timm's convolution over the whole feature map.
      flattened_channels: Channels of the feature map [channels, height, width] that torch flattens
        before a dense layer, and we as [height, width, channels]; 0: there is none.
    """
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        theirs = (outputs, inputs, height, width)
        return TensorSource(name, theirs, _move_outputs_last, _move_outputs_first)
    if len(shape) == 2:
        inputs, outputs = shape
        channels = flattened_channels or inputs
        side = math.isqrt(inputs // channels)
        feature_map = (outputs, channels, side, side)

        def convert(array: np.ndarray) -> np.ndarray:
            return _move_outputs_last(array.reshape(feature_map)).reshape(inputs, outputs)

        theirs = feature_map if ndim == 4 else (outputs, inputs)

        def revert(array: np.ndarray) -> np.ndarray:
            kernel = array.reshape(side, side, channels, outputs)
            return _move_outputs_first(kernel).reshape(theirs)

        return TensorSource(name, theirs, convert, revert)
    return TensorSource(name, shape)


def _move_outputs_last(kernel: np.ndarray) -> np.ndarray:
    """Returns [out, in, height, width] as [height, width, in, out]."""
    return kernel.transpose(2, 3, 1, 0)


def _move_outputs_first(kernel: np.ndarray) -> np.ndarray:
    """Returns [height, width, in, out] as [out, in, height, width]."""
    return kernel.transpose(3, 2, 0, 1)


def count_flattened_channels(layout: FileLayout, path: str) -> int:
    """Returns the channels of the map that torch flattens before this kernel; 0: before no other.

    Args:
      layout: Layout of the file.
      path: Path of our parameter.
    """
    return layout.flattened_channels if re.search(r"/(fc6|aux../dense)/kernel$", path) else 0
