"""Pooling, LeNet-5's trainable subsampling and sizes that round up among it, and the arithmetic of sizes."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu import switch

Window = tuple[int, int, int]  # kernel, stride, padding of both ends together
Padding = str | Sequence[tuple[int, int]]
Pads = tuple[tuple[int, int], tuple[int, int]]


class MaxPool(nn.Module):
    """Max pooling as a layer; padding: as flax's, or CEIL: the size is rounded up (`max_pool_ceil`)."""

    window: int
    stride: int
    padding: Padding = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H', W', C]."""
        if self.padding == "CEIL":
            return max_pool_ceil(x, self.window, self.stride)
        return max_pool(x, self.window, self.stride, self.padding)


class AvgPool(nn.Module):
    """`avg_pool` as a layer."""

    window: int
    stride: int = 1
    padding: str = "VALID"
    count_padding: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H', W', C]."""
        return avg_pool(x, self.window, self.stride, self.padding, self.count_padding)


class GlobalAvgPool(nn.Module):
    """The mean over all places, as a layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, C]."""
        return x.mean((1, 2))


class Subsampling(nn.Module):
    """The sum of each 2x2 square, times a trained coefficient, plus a trained bias: two numbers a map.

    Source: LeCun, Bottou, Bengio, Haffner 1998, Sec. II-B, layers S2 and S4; the squashing is left to the caller.
    """

    coefficient_init: nn.initializers.Initializer = nn.initializers.constant(0.25)
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H // 2, W // 2, C]; an odd last row or column is left out."""
        batch, height, width, maps = x.shape
        coefficient = self.param("coefficient", self.coefficient_init, (maps,))
        bias = self.param("bias", self.bias_init, (maps,))
        even = x[:, : height // 2 * 2, : width // 2 * 2]
        sums = even.reshape(batch, height // 2, 2, width // 2, 2, maps).sum((2, 4))
        return sums * coefficient.astype(x.dtype)[None, None, None] + bias.astype(x.dtype)[None, None, None]


def max_pool_ceil(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Max pooling of [B, H, W, C] to ceil((H - window) / stride) + 1: the last windows may reach over the edge.

    So Krizhevsky's and Caffe's layers round; XLA's VALID rounds down. window >= stride.
    """
    over = [(0, -(size - window) % stride) for size in x.shape[1:3]]
    return max_pool(x, window, stride, over)


def max_pool(x: jax.Array, window: int, stride: int, padding: Padding = "VALID") -> jax.Array:
    """flax's max pooling of [B, H, W, C]; on CPU by other routes, which differentiate in reverse mode only."""
    if not switch.cpu(x):
        return nn.max_pool(x, (window, window), (stride, stride), padding)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], (window, window), (stride, stride), padding)
    return _max_pool(x, window, stride, tuple((int(before), int(after)) for before, after in padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: int, stride: int, padding: Pads) -> jax.Array:
    return functools.reduce(jnp.maximum, _taps(x, window, stride, padding, -jnp.inf))


def _max_pool_forward(x: jax.Array, window: int, stride: int, padding: Pads) -> tuple[jax.Array, tuple]:
    y = _max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_back(window: int, stride: int, padding: Pads, saved: tuple, dy: jax.Array) -> tuple[jax.Array]:
    # XLA's own looks for the maxima again with their places at its side, five arrays in all, and then scatters.
    x, y = saved
    taps = _taps(x, window, stride, padding, -jnp.inf)
    first = jnp.full(y.shape, len(taps), jnp.int16)  # the tap that has the maximum; as in XLA's, the first of equals
    for place in reversed(range(len(taps))):
        first = jnp.where(taps[place] == y, jnp.int16(place), first)
    first = jax.lax.optimization_barrier(first)
    # At least float32, as several windows' are summed into one place.
    dy = dy.astype(jnp.float32 if dy.dtype.itemsize < 4 else dy.dtype)
    parts = [jnp.where(first == place, dy, jnp.zeros((), dy.dtype)) for place in range(len(taps))]
    places = lambda x: _taps(x, window, stride, padding, 0.0)
    (dx,) = jax.linear_transpose(places, jax.ShapeDtypeStruct(x.shape, dy.dtype))(parts)
    # Fenced, or each of its readers would sum the windows anew.
    return (jax.lax.optimization_barrier(dx.astype(x.dtype)),)


_max_pool.defvjp(_max_pool_forward, _max_pool_back)


def _taps(x: jax.Array, window: int, stride: int, padding: Pads, outside: float) -> list[jax.Array]:
    """What each place of the window sees of x, padded with `outside`: window^2 arrays [B, H', W', C], row by row."""
    x = jax.lax.pad(x, jnp.asarray(outside, x.dtype), ((0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)))
    rows, columns = x.shape[1] - window + 1, x.shape[2] - window + 1
    return [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(window) for j in range(window)]


def avg_pool(
    x: jax.Array, window: int, stride: int = 1, padding: str = "VALID", count_padding: bool = False
) -> jax.Array:
    """Average pooling of [B, H, W, C]; count_padding: zeros outside the map count as pixels of it."""
    # Not flax's, which divides by an integer: strict dtype promotion forbids it. Sums are float32 at least.
    shape, strides = (window, window), (stride, stride)
    wide = x.astype(jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
    sums = nn.pool(wide, 0.0, jax.lax.add, shape, strides, padding)
    if count_padding or padding == "VALID":
        return (sums / float(window * window)).astype(x.dtype)
    pixels = nn.pool(jnp.ones((1, *x.shape[1:3], 1), wide.dtype), 0.0, jax.lax.add, shape, strides, padding)
    return (sums / pixels).astype(x.dtype)


def smallest_side(windows: Sequence[Window], side: int = 1) -> int:
    """The smallest input side from which a chain of convolutions and poolings still gives `side` pixels.

    A pooling that rounds up counts as padded by stride - 1.
    """
    for kernel, stride, padding in reversed(windows):
        side = max(1, (side - 1) * stride + kernel - padding)
    return side
