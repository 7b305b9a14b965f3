"""Max pooling, average pooling, and LeNet-5's trainable subsampling."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu import max_pooling, switch

Padding = str | Sequence[tuple[int, int]]


class MaxPool(nn.Module):
    """Max pooling as a layer.

    Attributes:
      window: Side of the square window, in pixels.
      stride: Distance between windows, in pixels.
      padding: SAME, VALID or pixels (before, after) of each axis, as in flax; or CEIL, which
        rounds the output's size up (`max_pool_ceil`).
    """

    window: int
    stride: int
    padding: Padding = "VALID"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C]."""
        if self.padding == "CEIL":
            return max_pool_ceil(x, self.window, self.stride)
        return max_pool(x, self.window, self.stride, self.padding)


class AvgPool(nn.Module):
    """`avg_pool` as a layer, with its arguments."""

    window: int
    stride: int = 1
    padding: str = "VALID"
    count_padding: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C]."""
        return avg_pool(x, self.window, self.stride, self.padding, self.count_padding)


class GlobalAvgPool(nn.Module):
    """The mean over all pixels, as a layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, C]."""
        return x.mean((1, 2))


class Subsampling(nn.Module):
    """The sum of each 2x2 square, times a trained coefficient, plus a trained bias.

    Each channel has one coefficient and one bias. The nonlinearity is not included.
    Source: LeCun, Bottou, Bengio, Haffner 1998, Sec. II-B, layers S2 and S4.

    Attributes:
      coefficient_init: Initializer of the coefficients.
      bias_init: Initializer of the biases.
    """

    coefficient_init: nn.initializers.Initializer = nn.initializers.constant(0.25)
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H // 2, W // 2, C]; an odd last row or column is dropped."""
        batch, height, width, channels = x.shape
        coefficient = self.param("coefficient", self.coefficient_init, (channels,))
        bias = self.param("bias", self.bias_init, (channels,))
        even = x[:, : height // 2 * 2, : width // 2 * 2]
        sums = even.reshape(batch, height // 2, 2, width // 2, 2, channels).sum((2, 4))
        coefficient, bias = (p.astype(x.dtype)[None, None, None] for p in (coefficient, bias))
        return sums * coefficient + bias


def max_pool_ceil(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Applies max pooling whose output sizes are rounded up, as in cuda-convnet and Caffe.

    The last windows may extend over the edge. XLA's VALID rounds sizes down instead.

    Args:
      x: Feature maps [B, H, W, C].
      window: Side of the square window, in pixels; at least the stride.
      stride: Distance between windows, in pixels.

    Returns:
      Feature maps [B, H', W', C], where H' = ceil((H - window) / stride) + 1.
    """
    over = [(0, -(size - window) % stride) for size in x.shape[1:3]]
    return max_pool(x, window, stride, over)


def max_pool(x: jax.Array, window: int, stride: int, padding: Padding = "VALID") -> jax.Array:
    """Applies max pooling, as flax does. On a CPU it is differentiable in reverse mode only.

    Args:
      x: Feature maps [B, H, W, C].
      window: Side of the square window, in pixels.
      stride: Distance between windows, in pixels.
      padding: SAME, VALID, or pixels (before, after) of each axis.

    Returns:
      Feature maps [B, H', W', C].

    Example:
      >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> max_pool(x, 2, 2)[0, ..., 0].tolist()
      [[5.0, 7.0], [13.0, 15.0]]
    """
    if not switch.are_kernels_enabled(x):
        return nn.max_pool(x, (window, window), (stride, stride), padding)
    if isinstance(padding, str):
        sides, windows, strides = x.shape[1:3], (window, window), (stride, stride)
        padding = jax.lax.padtype_to_pads(sides, windows, strides, padding)
    (top, bottom), (left, right) = padding
    pads = ((int(top), int(bottom)), (int(left), int(right)))
    return max_pooling.max_pool(x, window, stride, pads)


def avg_pool(
    x: jax.Array,
    window: int,
    stride: int = 1,
    padding: str = "VALID",
    count_padding: bool = False,
) -> jax.Array:
    """Applies average pooling. Sums are computed in float32 at least.

    Args:
      x: Feature maps [B, H, W, C].
      window: Side of the square window, in pixels.
      stride: Distance between windows, in pixels.
      padding: SAME or VALID.
      count_padding: Whether averages include the zeros of the padding.

    Returns:
      Feature maps [B, H', W', C].

    Example:
      >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> avg_pool(x, 2, 2)[0, ..., 0].tolist()
      [[2.5, 4.5], [10.5, 12.5]]
    """
    # flax's avg_pool divides by an integer, which strict dtype promotion forbids.
    shape, strides = (window, window), (stride, stride)
    wide = x.astype(jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
    sums = nn.pool(wide, 0.0, jax.lax.add, shape, strides, padding)
    if count_padding or padding == "VALID":
        return (sums / float(window * window)).astype(x.dtype)
    ones = jnp.ones((1, *x.shape[1:3], 1), wide.dtype)
    pixels = nn.pool(ones, 0.0, jax.lax.add, shape, strides, padding)
    return (sums / pixels).astype(x.dtype)
