"""Dense evaluation: logits at every position of whole images of any size.

The model's dense layers run as convolutions (Simonyan, Zisserman 2014, Sec. 3.2). Values are exact
for images that lie in a larger array with zeros around them.

A convolution pads its input with zeros. If an image of height h is part of a larger array, the
inputs of every layer beyond the image's own rows must be zero too, but earlier layers have changed
them. Therefore the positions that the image alone would not have are set to zero before each
convolution and pooling. The size of the image at each layer is found by tracing the model, without
computing, on an image of that size. Pooling follows ReLU in these models, so zero is never a
maximum that the image alone would not have.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from cnn_jax.models.base import BaseModel

SPATIAL = (Conv, MaxPool)
PERIOD = 32  # the product of all strides of a model divides it


def compute_logits(
    module: BaseModel, params: Any, stats: Any, images: jax.Array, valid_sizes: jax.Array
) -> jax.Array:
    """Computes the logits at every position of the model's last feature maps.

    Args:
      module: The model's flax module.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C], of which image b is the upper left part.
      valid_sizes: [layers + 1, B, 2] int32, the result of `compute_valid_sizes`.

    Returns:
      [B, h, w, classes] float32.
    """
    layer = iter(range(len(valid_sizes)))

    def mask(x: jax.Array) -> jax.Array:
        return x * mask_valid(valid_sizes[next(layer)], x.shape[1:3])[..., None].astype(x.dtype)

    with nn.intercept_methods(_make_interceptor(mask)):
        variables = {"params": params, "batch_stats": stats}
        logits: Any = _make_fully_convolutional(module).apply(variables, images, train=False)
    return logits.astype(jnp.float32)


def mask_valid(size: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns which positions belong to an image, [B, H, W] bool.

    Args:
      size: [B, 2] int32, height and width of each image, which lies in the upper left corner.
      shape: (H, W) of the array.
    """
    rows, columns = (jnp.arange(n)[None] < size[:, axis, None] for axis, n in enumerate(shape))
    return rows[:, :, None] & columns[:, None, :]


def compute_valid_sizes(
    module: BaseModel,
    params: Any,
    stats: Any,
    sizes: np.ndarray,
    channels: int,
    smallest: int | None = None,
) -> np.ndarray:
    """Computes how large images are in each layer's input, and in the last feature maps.

    Args:
      module: The model's flax module.
      params: Its parameters.
      stats: Its statistics.
      sizes: [B, 2] int, height and width of each image.
      channels: Number of channels of the images.
      smallest: The smallest side of all images; None: the smallest of `sizes`. Calls that give the
        same number trace the same few sizes.

    Returns:
      [layers + 1, B, 2] int32.

    Raises:
      UserError: If the model cannot be evaluated densely, or images are too small for it.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, stats))
    leaves, structure = jax.tree.flatten(shapes)
    dtypes = tuple((x.shape, str(x.dtype)) for x in leaves)
    trace = functools.partial(_trace, module, dtypes, structure, channels)
    smallest = int(sizes.min()) if smallest is None else smallest
    found = [[_count_valid_rows(trace, int(side), smallest) for side in size] for size in sizes]
    return np.array(found, np.int32).transpose(2, 0, 1)


def _count_valid_rows(
    trace: Callable[[int], tuple[int, ...]], side: int, smallest: int
) -> tuple[int, ...]:
    """Returns how many rows an image of `side` rows has in each layer.

    At most 2 PERIOD sizes are traced. PERIOD is a multiple of every layer's stride, so PERIOD more
    rows of the image always add the same number of rows to a layer.
    """
    periods = (side - smallest) // PERIOD
    if not periods:
        return trace(side)
    first = side - periods * PERIOD
    pairs = zip(trace(first), trace(first + PERIOD), strict=True)
    return tuple(below + periods * (above - below) for below, above in pairs)


@functools.lru_cache(maxsize=4096)
def _trace(
    module: BaseModel, leaves: tuple, structure: Any, channels: int, side: int
) -> tuple[int, ...]:
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves]
    params, stats = jax.tree.unflatten(structure, shapes)
    rows: list[int] = []

    def record(x: jax.Array) -> jax.Array:
        rows.append(x.shape[1])
        return x

    def run(params: Any, stats: Any, images: jax.Array) -> Any:
        with nn.intercept_methods(_make_interceptor(record)):
            variables = {"params": params, "batch_stats": stats}
            return _make_fully_convolutional(module).apply(variables, images, train=False)

    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    logits = jax.eval_shape(run, params, stats, images)
    if len(logits.shape) != 4:
        raise UserError(
            f"{module.name}: has no class maps, so no dense views: choose single, ten_crop or grid"
        )
    return (*rows, logits.shape[1])


def _make_fully_convolutional(module: BaseModel) -> BaseModel:
    return module.clone(fully_convolutional=True)


def _make_interceptor(change: Callable[[jax.Array], jax.Array]) -> Callable:
    """Returns a Flax interceptor that applies `change` to the input of each spatial layer.

    It skips the global pooling, so that the model returns logits at every position.
    """

    def intercept(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(context.module, GlobalAvgPool):
            return args[0]
        if isinstance(context.module, AvgPool):
            raise UserError(
                "models with average pooling have no dense views here: choose single, ten_crop or"
                " grid"
            )
        if isinstance(context.module, SPATIAL):
            args = (change(args[0]), *args[1:])
        return call(*args, **kwargs)

    return intercept
