"""Convolutions: with a bias, with batch norm and ReLU, of a dense layer, and of a connection table.

Spatially separable, dilated and transposed convolutions: `spatial.py`.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.convolution import convolution
from cnn_jax.cpu.reductions import add_bias
from cnn_jax.layers.activations import relu
from cnn_jax.layers.initializers import Initializer, he_normal

NHWC = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """A convolution of images: flax's `nn.Conv`, with its arguments.

    It differs in two ways: it runs `cnn_jax.cpu`'s kernels on a CPU, and it computes in the dtype
    of its input.

    Attributes:
      features: Channels of the output.
      kernel_size: Height and width, in pixels.
      strides: Of both axes, or of each.
      padding: SAME, VALID, or pixels: on all sides, or (before, after) of each axis.
      kernel_dilation: Of both axes.
      feature_group_count: Groups of channels that do not see one another (AlexNet's towers).
      use_bias: Whether there is a bias.
      kernel_init: Initializer of the kernel, [h, w, channels of a group, features].
      bias_init: Initializer of the bias.
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
        """[B, H, W, C] to [B, H', W', features]."""
        shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = convolution(
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
    """A convolution, batch norm if there is any (else a bias), and ReLU.

    Attributes:
      channels: Of the output.
      kernel: Its height and width, in pixels.
      norm: Makes the norm layer, given its name; None: no norm.
      stride: Of the convolution.
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
        """[B, H, W, C] to [B, H', W', channels]."""
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
    """A trained dense layer as a convolution over feature maps larger than it was trained on.

    Its parameters are those of a `Dense` of its name whose inputs were square feature maps,
    flattened [h, w, C]. Source: Simonyan, Zisserman 2014 (arXiv:1409.1556), Sec. 3.2.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H - side + 1, W - side + 1, units]."""
        kernel: jax.Array = self.get_variable("params", "kernel")
        bias: jax.Array = self.get_variable("params", "bias")
        side = math.isqrt(kernel.shape[0] // x.shape[-1])
        kernel = kernel.reshape(side, side, x.shape[-1], -1).astype(x.dtype)
        y = convolution(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC)
        return add_bias(y, bias.astype(x.dtype))


class TableConv(nn.Module):
    """A VALID convolution each of whose channels sees only the input channels of its table row.

    The parameters are the table's kernels, [h, w, connections] in its order, and a bias for each
    output channel. The convolution itself is dense, with zeros for what is not connected.
    Source: LeCun, Bottou, Bengio, Haffner 1998, Table I.

    Attributes:
      table: The input channels of each output channel.
      kernel: Its height and width, in pixels.
      kernel_init: Initializer, called for one output channel at a time, with its own fan-in.
    """

    table: tuple[tuple[int, ...], ...]
    kernel: tuple[int, int]
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H - h + 1, W - w + 1, len(table)]."""
        kernels = self.param("kernel", self._draw)
        bias = self.param("bias", nn.initializers.zeros, (len(self.table),))
        inputs = [source for row in self.table for source in row]
        outputs = [number for number, row in enumerate(self.table) for _ in row]
        dense = jnp.zeros((*self.kernel, x.shape[-1], len(self.table)), x.dtype)
        at_connections = dense.at[:, :, jnp.array(inputs), jnp.array(outputs)]
        dense = at_connections.set(kernels.astype(x.dtype))
        y = convolution(x, dense, (1, 1), "VALID", dimension_numbers=NHWC)
        return add_bias(y, bias.astype(x.dtype))

    def _draw(self, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(self.table))
        kernels = [
            self.kernel_init(k, (*self.kernel, len(row), 1))
            for k, row in zip(keys, self.table, strict=True)
        ]
        return jnp.concatenate(kernels, axis=2)[..., 0]
