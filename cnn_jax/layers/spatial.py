"""Transposed and separable convolutions, and unpooling: what flax lacks, or has otherwise.

A dilated convolution is `conv.Conv(..., kernel_dilation=d)`; `sizes.effective_size` is its size.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.cpu.convolution import convolution
from cnn_jax.errors import UserError
from cnn_jax.layers.conv import NHWC, Conv
from cnn_jax.layers.initializers import Initializer, he_normal
from cnn_jax.layers.sizes import output_size


def convolution_matrix(
    kernel: jax.Array, shape: tuple[int, int], stride: int = 1, padding: int = 0
) -> jax.Array:
    """The matrix whose product with a flattened image is the image's convolution.

    For small images only: the matrix has as many elements as input and output multiplied.

    Args:
      kernel: [h, w, C, O].
      shape: (H, W) of the image.
      stride: Of the convolution, on both axes.
      padding: Pixels of zeros on each side.

    Returns:
      [H' * W' * O, H * W * C].

    Example:
      >>> kernel = jnp.ones((2, 2, 1, 1))
      >>> convolution_matrix(kernel, (3, 3)).shape  # 2x2 outputs, 3x3 inputs
      (4, 9)
    """
    pixels = shape[0] * shape[1] * kernel.shape[2]
    units = jnp.eye(pixels, dtype=kernel.dtype).reshape(pixels, *shape, kernel.shape[2])
    pads = ((padding, padding),) * 2
    columns = convolution(units, kernel, (stride, stride), pads, dimension_numbers=NHWC)
    return columns.reshape(pixels, -1).T


def transposed_convolution(
    z: jax.Array, kernel: jax.Array, shape: tuple[int, int], stride: int = 1, padding: int = 0
) -> jax.Array:
    """Multiplies z by the transpose of `convolution_matrix` of the same kernel.

    This is the gradient of that convolution with respect to its input, computed as a convolution:
    stride - 1 zeros between z's pixels, then the kernel turned by 180 degrees, its two channel
    axes swapped. Source: Dumoulin, Visin 2016 (arXiv:1603.07285), Sec. 4.

    Args:
      z: [B, H', W', O].
      kernel: [h, w, C, O].
      shape: (H, W) of the result: several sizes of the input give the same output when the stride
        leaves a remainder.
      stride: Of the convolution, on both axes.
      padding: Of the convolution, in pixels on each side.

    Returns:
      [B, H, W, C].

    Raises:
      UserError: if the convolution of an image of this shape is not of z's size.
    """
    pads = []
    for size, k, side in zip(z.shape[1:3], kernel.shape, shape, strict=False):
        expected = output_size(side, k, stride, padding)
        if size != expected:
            raise UserError(
                f"shape={shape}: a side of {side} gives {expected} pixels, not the {size} there are"
            )
        pads.append((k - 1 - padding, k - 1 - padding + (side + 2 * padding - k) % stride))
    return lax.conv_transpose(z, kernel, (stride, stride), pads, transpose_kernel=True)


class FractionallyStridedConv(nn.Module):
    """A convolution that enlarges: stride - 1 zeros between the pixels, then steps of one.

    It is flax's ConvTranspose, except that the padding is that of the convolution whose size this
    one undoes, as papers state it; flax's explicit padding is k - 1 - p. The kernel has flax's
    layout, [h, w, C, channels], and is not turned: with the kernel of a convolution, turned by 180
    degrees and its channel axes swapped, this is `transposed_convolution` (flax's
    `transpose_kernel=True`).

    Attributes:
      channels: Of the output.
      kernel: Its height and width, in pixels.
      stride: How many times larger the output is.
      padding: Pixels on each side of the larger feature map.
      kernel_init: Initializer of the kernel.
    """

    channels: int
    kernel: tuple[int, int]
    stride: int = 2
    padding: int = 0
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, (H - 1) * stride + h - 2 * padding, the same of W, channels].

        Raises:
          UserError: if the padding leaves no pixel.
        """
        for size, k in zip(x.shape[1:3], self.kernel, strict=True):
            if (size - 1) * self.stride + k <= 2 * self.padding:
                raise UserError(f"padding={self.padding} leaves nothing of {size} pixels: use less")
        pads = [(k - 1 - self.padding,) * 2 for k in self.kernel]
        strides = (self.stride, self.stride)
        conv = nn.ConvTranspose(
            self.channels,
            self.kernel,
            strides,
            pads,
            dtype=x.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )
        return conv(x)


class SeparableConv(nn.Module):
    """A spatially separable convolution: k x 1, then 1 x k, and one bias after both.

    With one channel each it is the k x k kernel that is their outer product: 2k weights instead of
    k^2. With a ReLU between the two, as in Szegedy et al. 2015 (arXiv:1512.00567), Sec. 3.2, they
    are two layers: two `ConvUnit`s.

    Attributes:
      channels: Of the output, and between the two.
      kernel: k, in pixels.
      stride: Of the whole.
      padding: SAME or VALID.
      kernel_init: Initializer of both kernels.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: str = "SAME"
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H', W', channels]."""
        k, s = self.kernel, self.stride
        x = Conv(
            self.channels,
            (k, 1),
            (s, 1),
            self.padding,
            use_bias=False,
            kernel_init=self.kernel_init,
            name="vertical",
        )(x)
        return Conv(
            self.channels,
            (1, k),
            (1, s),
            self.padding,
            kernel_init=self.kernel_init,
            name="horizontal",
        )(x)


def max_pool_with_switches(
    x: jax.Array, window: int, stride: int, padding: str = "VALID"
) -> tuple[jax.Array, jax.Array]:
    """Max pooling that also returns where each maximum was.

    Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1.

    Args:
      x: [B, H, W, C].
      window: The side of the square window, in pixels.
      stride: The step between windows, in pixels.
      padding: VALID; or CEIL, which rounds sizes up as `pooling.max_pool_ceil` does.

    Returns:
      (pooled, switches), [B, H', W', C] both. A switch is the int32 position row * W + column in
      the feature map; of equal maxima the first in reading order, where `nn.max_pool`'s gradient
      goes too.

    Raises:
      UserError: for a feature map smaller than the window, another padding, or CEIL with a stride
        above the window.
    """
    if padding not in ("VALID", "CEIL") or (padding == "CEIL" and stride > window):
        raise UserError(
            f"padding={padding!r}, stride={stride}: use VALID, or CEIL with a stride of at most"
            f" {window}, the window"
        )
    height, width = x.shape[1:3]
    over = [-(size - window) % stride if padding == "CEIL" else 0 for size in (height, width)]
    rows = stride * jnp.arange(output_size(height + over[0], window, stride), dtype=jnp.int32)
    columns = stride * jnp.arange(output_size(width + over[1], window, stride), dtype=jnp.int32)
    low = x.dtype.type(-jnp.inf)
    padded = lax.pad(x, low, ((0, 0, 0), (0, over[0], 0), (0, over[1], 0), (0, 0, 0)))
    height_, width_ = (len(rows) - 1) * stride + 1, (len(columns) - 1) * stride + 1
    taps = [
        padded[:, i : i + height_ : stride, j : j + width_ : stride]
        for i in range(window)
        for j in range(window)
    ]
    winner = lax.argmax(jnp.stack(taps), 0, jnp.int32)
    row = winner // window + rows[None, :, None, None]
    column = winner % window + columns[None, None, :, None]
    switches = row * width + column
    return _take(x, switches), switches


def max_unpool(pooled: jax.Array, switches: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Puts pooled values where the switches say, and zeros elsewhere.

    A pixel that was the maximum of several overlapping windows gets the sum of their values. So
    unpooling is the transpose of pooling with these switches, and sends a gradient where max
    pooling's own goes. The paper does not say what happens there.
    Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1.

    Args:
      pooled: [B, H', W', C].
      switches: [B, H', W', C], of `max_pool_with_switches`.
      shape: (H, W) before pooling.

    Returns:
      [B, H, W, C].

    Raises:
      UserError: if pooled and switches are not of one shape.
    """
    if pooled.shape != switches.shape:
        raise UserError(
            f"pooled {pooled.shape} and switches {switches.shape} differ: pass those of one pooling"
        )
    before = jax.ShapeDtypeStruct((pooled.shape[0], *shape, pooled.shape[3]), pooled.dtype)
    return jax.linear_transpose(lambda x: _take(x, switches), before)(pooled)[0]


def _take(x: jax.Array, switches: jax.Array) -> jax.Array:
    batch, channels = switches.shape[0], switches.shape[3]
    flat, positions = (a.reshape(batch, -1, channels) for a in (x, switches))
    values = jnp.take_along_axis(flat, positions, axis=1)
    return values.reshape(switches.shape)
