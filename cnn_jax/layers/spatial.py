"""Transposed and separable convolutions, and unpooling.

For a dilated convolution use `conv.Conv(..., kernel_dilation=d)`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.cpu.convolution import conv_general_dilated
from cnn_jax.errors import UserError
from cnn_jax.layers.conv import NHWC, Conv
from cnn_jax.layers.initializers import Initializer, he_normal
from cnn_jax.layers.sizes import compute_output_size


def make_convolution_matrix(
    kernel: jax.Array, shape: tuple[int, int], stride: int = 1, padding: int = 0
) -> jax.Array:
    """Makes the matrix whose product with a flattened image is the image's convolution.

    Use it for small images: the matrix has input size times output size elements.

    Args:
      kernel: Kernel [h, w, C, O].
      shape: (H, W) of the image, in pixels.
      stride: Stride on both axes, in pixels.
      padding: Pixels of zeros on each side.

    Returns:
      Matrix [H' * W' * O, H * W * C].

    Example:
      >>> kernel = jnp.ones((2, 2, 1, 1))
      >>> make_convolution_matrix(kernel, (3, 3)).shape  # 2x2 outputs, 3x3 inputs
      (4, 9)
    """
    pixels = shape[0] * shape[1] * kernel.shape[2]
    units = jnp.eye(pixels, dtype=kernel.dtype).reshape(pixels, *shape, kernel.shape[2])
    pads = ((padding, padding),) * 2
    columns = conv_general_dilated(units, kernel, (stride, stride), pads, dimension_numbers=NHWC)
    return columns.reshape(pixels, -1).T


def apply_transposed_convolution(
    z: jax.Array, kernel: jax.Array, shape: tuple[int, int], stride: int = 1, padding: int = 0
) -> jax.Array:
    """Multiplies z by the transpose of `make_convolution_matrix` of the same kernel.

    This is the gradient of the convolution with respect to its input. It is computed as another
    convolution: insert stride - 1 zeros between the pixels of z, then convolve with the kernel
    rotated by 180 degrees, its channel axes swapped.
    Source: Dumoulin, Visin 2016 (arXiv:1603.07285), Sec. 4.

    Args:
      z: Array of the convolution's output shape, [B, H', W', O].
      kernel: Kernel of the convolution, [h, w, C, O].
      shape: (H, W) of the convolution's input, in pixels. It is needed because with a stride,
        inputs of several sizes have outputs of the same size.
      stride: Stride of the convolution on both axes, in pixels.
      padding: Padding of the convolution on each side, in pixels.

    Returns:
      Array of the convolution's input shape, [B, H, W, C].

    Raises:
      UserError: If the convolution of an image of this shape does not have the size of z.
    """
    pads = []
    for size, k, side in zip(z.shape[1:3], kernel.shape, shape, strict=False):
        expected = compute_output_size(side, k, stride, padding)
        if size != expected:
            raise UserError(
                f"shape={shape}: a side of {side} gives {expected} pixels, but z has {size}"
            )
        pads.append((k - 1 - padding, k - 1 - padding + (side + 2 * padding - k) % stride))
    return lax.conv_transpose(z, kernel, (stride, stride), pads, transpose_kernel=True)


class FractionallyStridedConv(nn.Module):
    """A convolution of stride 1 over the input with stride - 1 zeros between its pixels.

    It is flax's ConvTranspose with another meaning of padding: as in papers, it is the padding p of
    the convolution from the larger feature map to the smaller. In flax, padding is k - 1 - p.
    As in flax, the kernel [h, w, C, channels] is not rotated. With a convolution's kernel, rotated
    by 180 degrees and with swapped channel axes, the result is that of
    `apply_transposed_convolution` (flax's `transpose_kernel=True`).

    Attributes:
      channels: Number of output channels.
      kernel: Height and width, in pixels.
      stride: Factor by which the output is larger.
      padding: Padding p of each side of the larger feature map, in pixels.
      kernel_init: Initializer of the kernel.
    """

    channels: int
    kernel: tuple[int, int]
    stride: int = 2
    padding: int = 0
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', channels], H' = (H - 1) * stride + h - 2 * padding.

        Raises:
          UserError: If no pixel is left.
        """
        for size, k in zip(x.shape[1:3], self.kernel, strict=True):
            if (size - 1) * self.stride + k <= 2 * self.padding:
                raise UserError(f"padding={self.padding} leaves none of {size} pixels: use less")
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
    """A spatially separable convolution: k x 1, then 1 x k, then a bias.

    With one input and one output channel it is a convolution with the outer product of the two
    kernels, and has 2k weights instead of k^2. For a ReLU between the two, as in Szegedy et al.
    2015 (arXiv:1512.00567), Sec. 3.2, use two `ConvUnit`s.

    Attributes:
      channels: Number of output channels of both convolutions.
      kernel: Size k, in pixels.
      stride: Stride on both axes, in pixels.
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
        """Maps [B, H, W, C] to [B, H', W', channels]."""
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
    """Applies max pooling and also returns the position of each maximum.

    Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1.

    Args:
      x: Feature maps [B, H, W, C].
      window: Side of the square window, in pixels.
      stride: Distance between windows, in pixels.
      padding: VALID; or CEIL, which rounds sizes up as `pooling.max_pool_ceil` does.

    Returns:
      (pooled, switches), both [B, H', W', C]. A switch is the int32 position row * W + column of
      the maximum in its feature map. Of equal maxima it is the first in row-major order, the one
      that gets the gradient of `nn.max_pool`.

    Raises:
      UserError: If the feature map is smaller than the window, the padding is unknown, or CEIL is
        used with a stride larger than the window.
    """
    if padding not in ("VALID", "CEIL") or (padding == "CEIL" and stride > window):
        raise UserError(
            f"padding={padding!r}, stride={stride}: use VALID, or CEIL with a stride of at most"
            f" {window}, the window"
        )
    height, width = x.shape[1:3]
    over = [-(size - window) % stride if padding == "CEIL" else 0 for size in (height, width)]
    rows = stride * jnp.arange(
        compute_output_size(height + over[0], window, stride), dtype=jnp.int32
    )
    columns = stride * jnp.arange(
        compute_output_size(width + over[1], window, stride), dtype=jnp.int32
    )
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
    """Puts pooled values at the positions of the switches, and zeros elsewhere.

    A pixel that was the maximum of several overlapping windows gets the sum of their values, a case
    that the paper does not describe. Unpooling is thus the transpose of pooling with these
    switches: applied to a gradient, it is the backward pass of max pooling.
    Source: Zeiler, Fergus 2013 (arXiv:1311.2901), Sec. 2.1.

    Args:
      pooled: Pooled values [B, H', W', C].
      switches: Positions [B, H', W', C] from `max_pool_with_switches`.
      shape: (H, W) before pooling, in pixels.

    Returns:
      Feature maps [B, H, W, C].

    Raises:
      UserError: If pooled and switches have different shapes.
    """
    if pooled.shape != switches.shape:
        raise UserError(
            f"pooled {pooled.shape} and switches {switches.shape} must have the same shape"
        )
    before = jax.ShapeDtypeStruct((pooled.shape[0], *shape, pooled.shape[3]), pooled.dtype)
    return jax.linear_transpose(lambda x: _take(x, switches), before)(pooled)[0]


def _take(x: jax.Array, switches: jax.Array) -> jax.Array:
    batch, channels = switches.shape[0], switches.shape[3]
    flat, positions = (a.reshape(batch, -1, channels) for a in (x, switches))
    values = jnp.take_along_axis(flat, positions, axis=1)
    return values.reshape(switches.shape)
