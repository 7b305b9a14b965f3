"""Convolution layers.

Transposed and spatially separable convolutions are in `spatial.py`.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.convolution import conv_general_dilated
from cnn_jax.cpu.reductions import add_bias
from cnn_jax.layers.activations import relu
from cnn_jax.layers.initializers import Initializer, he_normal

NHWC = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """A convolution of images, with the arguments of flax's `nn.Conv`.

    Unlike `nn.Conv` it runs `cnn_jax.cpu`'s kernels on a CPU, and it computes in the dtype of its
    input.

    Attributes:
      features: Number of output channels.
      kernel_size: Height and width, in pixels.
      strides: One number for both axes, or one for each, in pixels.
      padding: SAME, VALID, one number of pixels for all sides, or (before, after) for each axis.
      kernel_dilation: Distance between neighboring kernel elements, in pixels, on both axes.
      feature_group_count: Number of groups of channels that are not connected with each other
        (AlexNet's towers).
      use_bias: Whether a bias is added.
      kernel_init: Initializer of the kernel, [h, w, C / groups, features].
      bias_init: Initializer of the bias, [features].
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: str | int | Sequence[tuple[int, int]] = "SAME"
    kernel_dilation: int = 1
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', features]."""
        shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (self.strides,) * 2 if isinstance(self.strides, int) else self.strides,
            ((self.padding,) * 2,) * 2 if isinstance(self.padding, int) else self.padding,
            rhs_dilation=(self.kernel_dilation,) * 2,
            dimension_numbers=NHWC,
            feature_group_count=self.feature_group_count,
        )
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init, (self.features,)).astype(x.dtype))


class ConvUnit(nn.Module):
    """A convolution, a norm layer or else a bias, and ReLU.

    Attributes:
      channels: Number of output channels.
      kernel: Height and width, in pixels.
      norm: Makes the norm layer when called with name=...; None: a bias instead.
      stride: Stride on both axes, in pixels.
      padding: As in `Conv`.
      kernel_init: Initializer of the kernel.
    """

    channels: int
    kernel: tuple[int, int]
    norm: Callable[..., nn.Module] | None = None
    stride: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', channels]."""
        x = Conv(
            self.channels,
            self.kernel,
            self.stride,
            self.padding,
            use_bias=self.norm is None,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        return relu(self.norm(name="norm")(x, train) if self.norm else x)


class DenseAsConv(nn.Module):
    """Applies a trained dense layer as a convolution, to feature maps larger than in training.

    It uses the parameters of the `Dense` layer that had the same name in training, where the inputs
    were square feature maps [h, w, C], flattened.
    Source: Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 3.2.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H - h + 1, W - h + 1, units]."""
        kernel: jax.Array = self.get_variable("params", "kernel")
        bias: jax.Array = self.get_variable("params", "bias")
        side = math.isqrt(kernel.shape[0] // x.shape[-1])
        kernel = kernel.reshape(side, side, x.shape[-1], -1).astype(x.dtype)
        y = conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC)
        return add_bias(y, bias.astype(x.dtype))


class TableConv(nn.Module):
    """A VALID convolution in which a table says which input channels each output channel sees.

    The parameters are a kernel [h, w, connections] in the table's order, and a bias [channels]. The
    computation is a full convolution with zeros for missing connections.
    Source: LeCun, Bottou, Bengio, Haffner 1998, Table I.

    Attributes:
      table: For each output channel, the numbers of the input channels that it sees.
      kernel: Height and width, in pixels.
      kernel_init: Initializer. It is called for each output channel separately, so that the fan-in
        is that channel's.
    """

    table: tuple[tuple[int, ...], ...]
    kernel: tuple[int, int]
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H - h + 1, W - w + 1, len(table)]."""
        kernels = self.param("kernel", self._draw)
        bias = self.param("bias", nn.initializers.zeros, (len(self.table),))
        inputs = [source for row in self.table for source in row]
        outputs = [number for number, row in enumerate(self.table) for _ in row]
        dense = jnp.zeros((*self.kernel, x.shape[-1], len(self.table)), x.dtype)
        at_connections = dense.at[:, :, jnp.array(inputs), jnp.array(outputs)]
        dense = at_connections.set(kernels.astype(x.dtype))
        y = conv_general_dilated(x, dense, (1, 1), "VALID", dimension_numbers=NHWC)
        return add_bias(y, bias.astype(x.dtype))

    def _draw(self, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(self.table))
        kernels = [
            self.kernel_init(k, (*self.kernel, len(row), 1))
            for k, row in zip(keys, self.table, strict=True)
        ]
        return jnp.concatenate(kernels, axis=2)[..., 0]
