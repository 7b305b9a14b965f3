"""What flax lacks of the pixel grid: rules of its size, convolutions the other way and in two passes, max-unpooling.

Dilated convolution is not here: it is `layers.Conv(..., kernel_dilation=d)`, sized as `effective_size` says.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.cpu.convolution import convolution
from cnn_jax.errors import UserError
from cnn_jax.layers.conv import Conv, he_normal


def effective_size(kernel: int, dilation: int) -> int:
    """Pixels that a dilated kernel spans, k + (k - 1)(d - 1): d - 1 zeros lie between its own.

    Source: Dumoulin, Visin 2016 (arXiv:1603.07285), Sec. 5.1.
    """
    return kernel + (kernel - 1) * (dilation - 1)


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Pixels a convolution or pooling leaves of `size`: (n - k + 2p) / s + 1, rounded down, k being the effective size.

    padding: on each side. Raises UserError when none is left.
    """
    span = effective_size(kernel, dilation)
    if size + 2 * padding < span:
        raise UserError(
            f"{size} pixels, padded by {padding} on each side, are too few for a kernel that spans {span}; the fewest"
            f" are {max(1, span - 2 * padding)}"
        )
    return (size - span + 2 * padding) // stride + 1


def convolution_matrix(kernel: jax.Array, shape: tuple[int, int], stride: int = 1, padding: int = 0) -> jax.Array:
    """C, [H' * W' * O, H * W * C], whose product with a flattened image is its convolution with [h, w, C, O].

    shape: the image's (H, W). For small ones only: the matrix is as large as both ends multiplied.
    """
    pixels = shape[0] * shape[1] * kernel.shape[2]
    units = jnp.eye(pixels, dtype=kernel.dtype).reshape(pixels, *shape, kernel.shape[2])
    pads = ((padding, padding),) * 2
    columns = convolution(units, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return columns.reshape(pixels, -1).T


def transposed_convolution(
    z: jax.Array, kernel: jax.Array, shape: tuple[int, int], stride: int = 1, padding: int = 0
) -> jax.Array:
    """C^T z: [B, H', W', O] to [B, *shape, C], C being `convolution_matrix` of the same kernel [h, w, C, O].

    It is that convolution's gradient with respect to its input, computed as a convolution: stride - 1 zeros between
    z's pixels, then the kernel turned by 180 degrees, its two channel axes swapped. `shape` is asked for, as several
    sizes of the input give the same output when the stride leaves a remainder; raises UserError when it gives another.
    Source: Dumoulin, Visin 2016 (arXiv:1603.07285), Sec. 4.
    """
    pads = []
    for size, k, side in zip(z.shape[1:3], kernel.shape, shape, strict=False):
        expected = output_size(side, k, stride, padding)
        if size != expected:
            raise UserError(f"shape={shape}: a side of {side} gives {expected} pixels, not the {size} there are")
        pads.append((k - 1 - padding, k - 1 - padding + (side + 2 * padding - k) % stride))
    return lax.conv_transpose(z, kernel, (stride, stride), pads, transpose_kernel=True)


class FractionallyStridedConv(nn.Module):
    """A convolution that enlarges: stride - 1 zeros are inserted between the pixels, then it steps by one.

    flax's ConvTranspose, but that the padding is said of the convolution which this one undoes in size, as papers
    do; flax's explicit padding is k - 1 - p. The kernel lies as flax's, [h, w, C, maps], and is not turned: with that
    of a convolution, turned by 180 degrees and its channel axes swapped, this is `transposed_convolution`
    (flax's `transpose_kernel=True`).

    Attributes:
      maps: of the output.
      kernel: its height and width.
      stride: how many times larger the output is; the convolution's steps are 1 / stride.
      padding: on each side of the larger map.
      kernel_init: of its weights.
    """

    maps: int
    kernel: tuple[int, int]
    stride: int = 2
    padding: int = 0
    kernel_init: Callable[..., jax.Array] = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, (H - 1) * stride + h - 2 * padding, the same of W, maps]; UserError when none is left."""
        for size, k in zip(x.shape[1:3], self.kernel, strict=True):
            if (size - 1) * self.stride + k <= 2 * self.padding:
                raise UserError(f"padding={self.padding} leaves nothing of {size} pixels: take less")
        pads = [(k - 1 - self.padding,) * 2 for k in self.kernel]
        strides = (self.stride, self.stride)
        conv = nn.ConvTranspose(
            self.maps, self.kernel, strides, pads, dtype=x.dtype, kernel_init=self.kernel_init, name="conv"
        )
        return conv(x)


class SeparableConv(nn.Module):
    """A spatially separable convolution: k x 1, then 1 x k, nothing between them and one bias after both.

    Of one map each it is the k x k kernel that is their outer product, 2k weights in place of k^2; ReLU between the
    two, as in Szegedy et al. 2015 (arXiv:1512.00567), Sec. 3.2, makes two layers of them: two `ConvUnit`s.

    Attributes:
      maps: of the output, and between the two.
      kernel: k.
      stride: of the whole.
      padding: SAME or VALID.
      kernel_init: of the weights of both.
    """

    maps: int
    kernel: int
    stride: int = 1
    padding: str = "SAME"
    kernel_init: Callable[..., jax.Array] = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H', W', maps]."""
        k, s, init = self.kernel, self.stride, self.kernel_init
        x = Conv(self.maps, (k, 1), (s, 1), self.padding, use_bias=False, kernel_init=init, name="vertical")(x)
        return Conv(self.maps, (1, k), (1, s), self.padding, kernel_init=init, name="horizontal")(x)


def max_pool_with_switches(
    x: jax.Array, window: int, stride: int, padding: str = "VALID"
) -> tuple[jax.Array, jax.Array]:
    """Max pooling of [B, H, W, C], and where each maximum was: (pooled, switches), [B, H', W', C] both.

    A switch is the int32 place row * W + column in the map; of equal values the first in reading order, where
    `nn.max_pool`'s gradient goes too. padding: VALID, or CEIL, which rounds sizes up as `pooling.max_pool_ceil` does.
    Raises UserError for a map smaller than the window, another padding, or CEIL with a stride above the window.
    Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1.
    """
    if padding not in ("VALID", "CEIL") or (padding == "CEIL" and stride > window):
        raise UserError(f"padding={padding!r}, stride={stride}: take VALID, or CEIL with at most the window's {window}")
    height, width = x.shape[1:3]
    over = [-(size - window) % stride if padding == "CEIL" else 0 for size in (height, width)]
    rows = stride * jnp.arange(output_size(height + over[0], window, stride), dtype=jnp.int32)
    columns = stride * jnp.arange(output_size(width + over[1], window, stride), dtype=jnp.int32)
    low = x.dtype.type(-jnp.inf)
    padded = lax.pad(x, low, ((0, 0, 0), (0, over[0], 0), (0, over[1], 0), (0, 0, 0)))
    reach = (len(rows) - 1) * stride + 1, (len(columns) - 1) * stride + 1
    taps = [
        padded[:, i : i + reach[0] : stride, j : j + reach[1] : stride] for i in range(window) for j in range(window)
    ]
    winner = lax.argmax(jnp.stack(taps), 0, jnp.int32)
    row = winner // window + rows[None, :, None, None]
    column = winner % window + columns[None, None, :, None]
    switches = row * width + column
    return _at(x, switches), switches


def max_unpool(pooled: jax.Array, switches: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Puts [B, H', W', C] where the switches tell, [B, *shape, C], and zeros elsewhere; shape: (H, W) before pooling.

    A place that won several overlapping windows gets the sum of theirs: so unpooling is the transpose of pooling with
    these switches, and takes a gradient where max pooling's own does. The paper does not tell. Raises UserError when
    pooled and switches are not of one shape. Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1.
    """
    if pooled.shape != switches.shape:
        raise UserError(f"pooled {pooled.shape} and switches {switches.shape} differ: pass those of one pooling")
    before = jax.ShapeDtypeStruct((pooled.shape[0], *shape, pooled.shape[3]), pooled.dtype)
    return jax.linear_transpose(lambda x: _at(x, switches), before)(pooled)[0]


def _at(x: jax.Array, switches: jax.Array) -> jax.Array:
    batch, maps = switches.shape[0], switches.shape[3]
    values = jnp.take_along_axis(x.reshape(batch, -1, maps), switches.reshape(batch, -1, maps), axis=1)
    return values.reshape(switches.shape)
