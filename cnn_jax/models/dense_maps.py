"""Nets on whole images of any size: class maps, exact for images that lie in a larger array with zeros around them.

A convolution pads its input with zeros. Where an image of height h lies in a larger array, what its layers see beyond
their own h-th row must be zero too, not what the layers before made of the zeros there. So before each convolution and
pooling the places that an image alone would not have are set to zero; how far it reaches at each layer is found by
tracing the net, without computing, on an image of that size. Pooling follows ReLU in these nets, so that zero is never
a maximum that the image alone would not have.
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

SPATIAL = (Conv, MaxPool)
PERIOD = 32  # the product of all strides of a net divides it


def maps(net: nn.Module, params: Any, stats: Any, images: jax.Array, reach: jax.Array) -> jax.Array:
    """Logits [B, h, w, classes] of every place of the net's last maps, float32.

    images: [B, H, W, C], of which image b is its upper left part; reach: [layers, B, 2] of `reaches`.
    """
    layer = iter(range(len(reach)))

    def masked(x: jax.Array) -> jax.Array:
        return x * inside(reach[next(layer)], x.shape[1:3])[..., None].astype(x.dtype)

    with nn.intercept_methods(_interceptor(masked)):
        return _as_maps(net).apply({"params": params, "batch_stats": stats}, images, train=False).astype(jnp.float32)


def inside(size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """[B, H, W] bool: whether a place is one of the first size[b] rows and columns."""
    rows, columns = (jnp.arange(n)[None] < size[:, axis, None] for axis, n in enumerate(shape))
    return rows[:, :, None] & columns[:, None, :]


def reaches(
    net: nn.Module, params: Any, stats: Any, sizes: np.ndarray, channels: int, least: int | None = None
) -> np.ndarray:
    """[layers + 1, B, 2] int32: how far images of sizes [B, 2] reach in each layer's input, and in the last maps.

    least: the smallest side that there is; said once for many calls, all of them trace the same few sizes. Raises
    UserError for a net that has no class maps, or images too small for it.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, stats))
    leaves, structure = jax.tree.flatten(shapes)
    traced = functools.partial(_traced, net, tuple((x.shape, str(x.dtype)) for x in leaves), structure, channels)
    least = int(sizes.min()) if least is None else least
    found = [[_reach(traced, int(side), least) for side in size] for size in sizes]
    return np.array(found, np.int32).transpose(2, 0, 1)


def _reach(traced: Callable[[int], tuple[int, ...]], side: int, least: int) -> tuple[int, ...]:
    """How many rows an image of so many has in each layer, by tracing at most 2 PERIOD sizes of all there are.

    Every PERIOD rows more are as many more in a layer as its stride leaves of them.
    """
    periods = (side - least) // PERIOD
    if not periods:
        return traced(side)
    first = side - periods * PERIOD
    pairs = zip(traced(first), traced(first + PERIOD), strict=True)
    return tuple(below + periods * (above - below) for below, above in pairs)


@functools.lru_cache(maxsize=4096)
def _traced(net: nn.Module, leaves: tuple, structure: Any, channels: int, side: int) -> tuple[int, ...]:
    params, stats = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves])
    seen: list[int] = []

    def noted(x: jax.Array) -> jax.Array:
        seen.append(x.shape[1])
        return x

    def run(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_interceptor(noted)):
            return _as_maps(net).apply({"params": params, "batch_stats": stats}, images, train=False)

    found = jax.eval_shape(run, params, stats, jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32))
    if len(found.shape) != 4:
        raise UserError(f"{net.name}: has no class maps, so no dense views: choose single, ten_crop or grid")
    return (*seen, found.shape[1])


def _as_maps(net: nn.Module) -> nn.Module:
    return net.clone(as_maps=True)


def _interceptor(change: Callable[[jax.Array], jax.Array]) -> Callable:
    """Has `change` see what goes into each spatial layer, in the order of the calls; drops the global pooling."""

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(context.module, GlobalAvgPool):
            return args[0]
        if isinstance(context.module, AvgPool):
            raise UserError("nets that pool averages have no dense views here: choose single, ten_crop or grid")
        if isinstance(context.module, SPATIAL):
            args = (change(args[0]), *args[1:])
        return call(*args, **kwargs)

    return intercept
