"""Layers that flax lacks, or that every net here must have in one form."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.config import UserError
from cnn_jax.models.conv import convolution


def fan_in_normal(gain: float) -> Callable[..., jax.Array]:
    """An initialiser (key, shape, dtype) -> N(0, gain / inputs of a unit); kernels are [..., in, out]."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return _flat_normal(key, math.prod(shape), dtype).reshape(shape) * math.sqrt(gain / math.prod(shape[:-1]))

    return init


# Flat, as XLA's CPU compiler takes 16 times longer over random bits of four dimensions; compiled once a size.
_flat_normal = jax.jit(lambda key, size, dtype: jax.random.normal(key, (size,), dtype), static_argnums=(1, 2))

he_normal = fan_in_normal(2.0)  # He et al. 2015 (arXiv:1502.01852), Sec. 2.2
xavier_normal = fan_in_normal(1.0)  # Glorot, Bengio 2010, in the form of Caffe: inputs only

Conv = functools.partial(nn.Conv, conv_general_dilated=convolution)


def max_pool_ceil(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Max pooling of [B, H, W, C] that rounds up: a last window may hang over the right and bottom edges.

    A side of n pixels becomes ceil((n - window) / stride) + 1, as in Caffe, where the rounding comes from.
    """
    over = [(window - n) % stride for n in x.shape[1:3]]
    return nn.max_pool(x, (window, window), (stride, stride), padding=[(0, pixels) for pixels in over])


def avg_pool(
    x: jax.Array, window: int, stride: int = 1, padding: str = "VALID", count_padding: bool = False
) -> jax.Array:
    """Average pooling of [B, H, W, C]; count_padding: zeros outside the map count as pixels of it."""
    shape, strides = (window, window), (stride, stride)
    if count_padding:  # not flax's, which divides by an integer: strict dtype promotion forbids it
        return nn.pool(x, 0.0, jax.lax.add, shape, strides, padding) / float(window * window)
    return nn.avg_pool(x, shape, strides, padding, count_include_pad=False)


class Window(NamedTuple):
    """A convolution or pooling as it changes the side of its input; up: it rounds up."""

    size: int
    stride: int = 1
    pad: int = 0
    up: bool = False


def check_size(name: str, images: jax.Array, windows: Sequence[Window], side: int = 1) -> None:
    """Raises UserError, naming the smallest that work, for images too small to leave `side` pixels after `windows`."""
    for window in reversed(windows):
        side = (side - 1) * window.stride + window.size - 2 * window.pad + (1 - window.stride) * window.up
    height, width = images.shape[1:3]
    if min(height, width) < side:
        raise UserError(f"{name}: images of {height}x{width}; the smallest are {side}x{side}")


class ConvUnit(nn.Module):
    """A convolution, batch norm if there is a norm (a bias if not), and ReLU.

    Attributes:
      maps: of the output.
      kernel: its height and width.
      norm: of its output, without arguments; None: none.
      stride: of the convolution.
      padding: as in flax's Conv.
    """

    maps: int
    kernel: tuple[int, int]
    norm: Callable[..., nn.Module] | None = None
    stride: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H', W', maps]."""
        conv = functools.partial(Conv, use_bias=self.norm is None, kernel_init=he_normal, name="conv")
        x = conv(self.maps, self.kernel, self.stride, self.padding)(x)
        return nn.relu(self.norm(name="norm")(x, train) if self.norm else x)


class BatchNorm(nn.Module):
    """Batch normalisation of [B, H, W, C] over (B, H, W), its statistics taken over groups of images.

    Source: Ioffe, Szegedy 2015, Algorithms 1 and 2. The group is said, not inherited from the hardware:
    under jit over a mesh a batch has global statistics, under pmap each device its own; `group` makes both
    the same. Running averages are those of the groups' mean.

    Attributes:
      group: images per statistics group; 0: the whole batch. It must divide the batch.
      axis: the pmapped axis over which the batch is split, if it is.
      momentum: of the running averages.
      epsilon: added to the variance.
    """

    group: int = 0
    axis: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises with the batch's statistics, which also move the running averages, or (test) with those."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            return _scaled(x, mean.value[None], var.value[None], scale, bias, self.epsilon)
        group_mean, group_var = group_moments(x, self.group, self.axis)
        if not self.is_initializing():
            for average, batch in ((mean, group_mean), (var, group_var)):
                average.value = self.momentum * average.value + (1 - self.momentum) * batch.mean(0)
        return _scaled(x, group_mean, group_var, scale, bias, self.epsilon)


def group_moments(x: jax.Array, group: int, axis: str | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance, [groups, C] float32 each, of [B, H, W, C] by groups of `group` images (0: all).

    With an axis name, x is one device's part of the batch, and a group may span several devices; a device
    then has one row, its own group's. Raises UserError if the group does not divide the batch.
    """
    local, (height, width, channels) = x.shape[0], x.shape[1:]
    devices = jax.lax.axis_size(axis) if axis else 1
    size = group or local * devices
    if size > local * devices or (local % size and size % local) or local * devices % size:
        raise UserError(f"bn_group={group} does not divide a batch of {local * devices} over {devices} devices")
    groups, spanned = max(1, local // size), max(1, size // local)
    values = x.astype(jnp.float32).reshape(groups, -1, channels)
    sums = jnp.stack([values.sum(1), jnp.square(values).sum(1)])
    if spanned > 1:
        every = jax.lax.all_gather(sums, axis).reshape(-1, spanned, *sums.shape).sum(1)
        sums = every[jax.lax.axis_index(axis) // spanned]
    mean, square = sums / (size * height * width)
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _scaled(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with a row of mean and var for each group of x."""
    factor = scale[None] * jax.lax.rsqrt(var + epsilon)
    offset = bias[None] - mean * factor
    grouped = x.reshape(len(mean), -1, x.shape[-1])
    return (grouped * factor[:, None].astype(x.dtype) + offset[:, None].astype(x.dtype)).reshape(x.shape)


def widened(x: jax.Array, channels: int, stride: int) -> jax.Array:
    """Every stride-th pixel of [B, H, W, C], with zero maps added up to `channels` (He et al. 2015, option A)."""
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
