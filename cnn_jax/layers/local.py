"""Locally connected layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers.initializers import Initializer, he_normal


class LocalConv(nn.Module):
    """A convolution without shared weights: each output pixel has its own kernel and bias.

    It has H' * W' times the parameters of a `Conv` with the same arguments, and computes the same
    if all kernels and biases are equal.
    Source: LeCun 1989, "Generalization and Network Design Strategies", net-3; cuda-convnet's
    "local" layers.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width, in pixels.
      strides: Stride on both axes, in pixels.
      padding: SAME, VALID, or one number of pixels for all sides.
      kernel_init: Initializer. It is called for each output pixel, with the shape
        [h * w * C, features].
      bias_init: Initializer of the biases, [H', W', features].
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: str | int = "SAME"
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', features].

        The parameters are a kernel [H', W', h * w * C, features], whose third axis runs over rows,
        columns and channels, and a bias [H', W', features].
        """
        patches = cut_patches(x, self.kernel_size, self.strides, self.padding)
        height, width, inputs = patches.shape[1:]

        def draw(key: jax.Array) -> jax.Array:
            keys = jax.random.split(key, height * width)
            drawn = jax.vmap(lambda key: self.kernel_init(key, (inputs, self.features)))(keys)
            return drawn.reshape(height, width, inputs, self.features)

        kernel = self.param("kernel", draw)
        bias = self.param("bias", self.bias_init, (height, width, self.features))
        # One matrix product per output pixel, with the pixels as the first axis: other orders are
        # several times slower on a CPU.
        rows = jnp.moveaxis(patches.reshape(x.shape[0], height * width, inputs), 0, 1)
        kernels = kernel.astype(x.dtype).reshape(height * width, inputs, self.features)
        y = jnp.moveaxis(rows @ kernels, 1, 0).reshape(x.shape[0], height, width, self.features)
        return y + bias.astype(x.dtype)[None]


def cut_patches(
    x: jax.Array, kernel_size: tuple[int, int], stride: int, padding: str | int = "SAME"
) -> jax.Array:
    """Returns the input patch of each output pixel of a convolution (im2col).

    Args:
      x: Feature maps [B, H, W, C].
      kernel_size: (h, w) in pixels.
      stride: Stride on both axes, in pixels.
      padding: SAME, VALID, or one number of pixels for all sides.

    Returns:
      Patches [B, H', W', h * w * C]. The last axis runs over rows, columns and channels.
    """
    if isinstance(padding, str):
        sides, strides = x.shape[1:3], (stride, stride)
        pads = jax.lax.padtype_to_pads(sides, kernel_size, strides, padding)
    else:
        pads = [(padding, padding)] * 2
    x = jnp.pad(x, ((0, 0), *((int(low), int(high)) for low, high in pads), (0, 0)))
    rows, columns = (
        (side - k) // stride for side, k in zip(x.shape[1:3], kernel_size, strict=True)
    )
    taps = [
        x[:, i : i + rows * stride + 1 : stride, j : j + columns * stride + 1 : stride]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
    return jnp.concatenate(taps, axis=-1)
