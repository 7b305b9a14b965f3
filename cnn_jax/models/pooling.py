"""Pooling, LeNet-5's trainable subsampling and sizes that round up among it, and the arithmetic of sizes."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Window = tuple[int, int, int]  # kernel, stride, padding of both ends together
Padding = str | Sequence[tuple[int, int]]


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
        return nn.max_pool(x, (self.window, self.window), (self.stride, self.stride), self.padding)


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
    return nn.max_pool(x, (window, window), (stride, stride), over)


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
