"""Layers that flax lacks, or that every net here must have in one form."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.convolution import convolution
from cnn_jax.cpu.reductions import add_bias, channel_sums
from cnn_jax.errors import UserError


def fan_in_normal(gain: float) -> Callable[..., jax.Array]:
    """An initialiser (key, shape, dtype) -> N(0, gain / inputs of a unit); kernels are [..., in, out]."""
    return lambda key, shape, dtype=jnp.float32: _normal(key, shape, dtype, math.sqrt(gain / math.prod(shape[:-1])))


def normal(deviation: float) -> Callable[..., jax.Array]:
    """An initialiser (key, shape, dtype) -> N(0, deviation^2)."""
    return lambda key, shape, dtype=jnp.float32: _normal(key, shape, dtype, deviation)


def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Any, deviation: float) -> jax.Array:
    # Flat, as XLA's CPU compiler takes 16 times longer over random bits of four dimensions; and small ones by powers
    # of two, so that a net of many shapes does not compile a generator for each.
    size = math.prod(shape)
    drawn = _flat_normal(key, size if size > 2**20 else 1 << (size - 1).bit_length(), dtype)
    return _shaped(drawn, jnp.asarray(deviation, dtype), shape)


_flat_normal = jax.jit(lambda key, size, dtype: jax.random.normal(key, (size,), dtype), static_argnums=(1, 2))
_shaped = jax.jit(lambda x, scale, shape: (x[: math.prod(shape)] * scale).reshape(shape), static_argnums=2)


he_normal = fan_in_normal(2.0)  # He et al. 2015 (arXiv:1502.01852), Sec. 2.2
xavier_normal = fan_in_normal(1.0)  # Glorot, Bengio 2010, in the form of Caffe: inputs only


def _as_inputs(inputs: jax.Array, *weights: jax.Array | None, **_: Any) -> list[jax.Array | None]:
    return [inputs, *(w if w is None else w.astype(inputs.dtype) for w in weights)]


# flax's, but that it computes in the dtype of what it is given: the images' dtype decides for the whole net.
Dense = functools.partial(nn.Dense, promote_dtype=_as_inputs)


class Conv(nn.Module):
    """flax's `nn.Conv` of images, with its arguments, but for routes on a CPU, and the dtype: that of the images.

    Attributes:
      features: maps of the output.
      kernel_size: height and width.
      strides: of both axes, or of each.
      padding: SAME, VALID, or the pixels: on all sides, or (before, after) of each axis.
      kernel_dilation: of both axes.
      feature_group_count: towers that do not see one another's maps.
      use_bias: whether there is one.
      kernel_init: of the kernel, [h, w, maps of a tower, features].
      bias_init: of the bias.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: str | int | Sequence[tuple[int, int]] = "SAME"
    kernel_dilation: int = 1
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros

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
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.feature_group_count,
        )
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init, (self.features,)).astype(x.dtype))


class DenseAsConv(nn.Module):
    """A trained dense layer on maps, as a convolution over whatever is larger than what it was trained on.

    Its parameters are those of a `Dense` of its name, whose inputs were square maps flattened [h, w, C].
    Source: Simonyan, Zisserman 2014, Sec. 3.2.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H - side + 1, W - side + 1, units]."""
        kernel, bias = self.get_variable("params", "kernel"), self.get_variable("params", "bias")
        side = math.isqrt(kernel.shape[0] // x.shape[-1])
        kernel = kernel.reshape(side, side, x.shape[-1], -1).astype(x.dtype)
        y = convolution(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return add_bias(y, bias.astype(x.dtype))


class ConvUnit(nn.Module):
    """A convolution, batch norm if there is a norm (a bias if not), and ReLU.

    Attributes:
      maps: of the output.
      kernel: its height and width.
      norm: of its output, without arguments; None: none.
      stride: of the convolution.
      padding: as in flax's Conv.
      kernel_init: of its weights.
    """

    maps: int
    kernel: tuple[int, int]
    norm: Callable[..., nn.Module] | None = None
    stride: int = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    kernel_init: Callable[..., jax.Array] = he_normal

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] to [B, H', W', maps]."""
        conv = functools.partial(Conv, use_bias=self.norm is None, kernel_init=self.kernel_init, name="conv")
        x = conv(self.maps, self.kernel, self.stride, self.padding)(x)
        return nn.relu(self.norm(name="norm")(x, train) if self.norm else x)


class BatchNorm(nn.Module):
    """Batch normalisation of [B, ..., C] over all but the channels, its statistics taken over groups of images.

    Source: Ioffe, Szegedy 2015, Algorithms 1 and 2. The group is said, not inherited from the hardware:
    under jit over a mesh a batch has global statistics, under pmap each device its own; `group` makes both
    the same. Running averages are of the groups' mean, of the variance as Algorithm 2 has it: times m / (m - 1), m
    being the values it is taken over.

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
        y, group_mean, group_var = normalise(x, scale, bias, self.group, self.axis, self.epsilon)
        if not self.is_initializing():
            images = self.group or len(x) * (jax.lax.axis_size(self.axis) if self.axis else 1)
            values = images * math.prod(x.shape[1:-1])
            for average, batch in ((mean, group_mean), (var, group_var * (values / max(1, values - 1)))):
                average.value = self.momentum * average.value + (1 - self.momentum) * batch.mean(0)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [B, ..., C] normalised by its groups' own moments, and these: mean and variance [groups, C] float32.

    Through the moments that it returns no gradient flows; it differentiates once, in reverse mode only: the gradient
    is Algorithm 1's in closed form, which keeps nothing of x's size but x. Arguments and errors are `group_moments`'.
    """
    return _normalise(x, scale, bias, group, axis, epsilon)[0]


def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[tuple, tuple]:
    mean, var = group_moments(x, group, axis)
    return (_scaled(x, mean, var, scale, bias, epsilon), mean, var), (x, scale, mean, var)


def _normalise_back(group: int, axis: str | None, epsilon: float, saved: tuple, cotangents: tuple) -> tuple:
    x, scale, mean, var = saved
    dy, *_ = cotangents
    here, whole, values = _sums(dy, x, group, axis)
    inverse = jax.lax.rsqrt(var + epsilon)
    dbias, dscale = here[0], (here[1] - mean * here[0]) * inverse
    # dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), x^ being the normalised x, as a dy + b x + c
    of_dy = scale[None] * inverse
    of_x = -of_dy * jnp.square(inverse) * (whole[1] - mean * whole[0]) / values
    rest = -of_dy * whole[0] / values - of_x * mean
    return _linear((dy, of_dy), (x, of_x), offset=rest), dscale.sum(0), dbias.sum(0)


normalise.defvjp(_normalise, _normalise_back)


def group_moments(x: jax.Array, group: int, axis: str | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance, [groups, C] float32 each, of [B, ..., C] by groups of `group` images (0: all).

    With an axis name, x is one device's part of the batch, and a group may span several devices; a device
    then has one row, its own group's. Raises UserError if the group does not divide the batch.
    """
    _, sums, values = _sums(x, x, group, axis)
    mean, square = sums / values
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _sums(a: jax.Array, b: jax.Array, group: int, axis: str | None) -> tuple[jax.Array, jax.Array, int]:
    """Of a and of a * b [B, ..., C]: their sums by groups [2, groups, C] on this device and on all, and of how many."""
    local, places = a.shape[0], math.prod(a.shape[1:-1])
    devices = jax.lax.axis_size(axis) if axis else 1
    size = group or local * devices
    if size > local * devices or (local % size and size % local) or local * devices % size:
        raise UserError(f"bn_group={group} does not divide a batch of {local * devices} over {devices} devices")
    groups, spanned = max(1, local // size), max(1, size // local)
    a, b = (x.astype(jnp.float32).reshape(groups, -1, x.shape[-1]) for x in (a, b))
    sums = whole = jnp.stack(channel_sums(a, a * b))
    if spanned > 1:
        every = jax.lax.all_gather(sums, axis).reshape(-1, spanned, *sums.shape).sum(1)
        whole = every[jax.lax.axis_index(axis) // spanned]
    return sums, whole, size * places


def _scaled(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with a row of mean and var for each group of x."""
    factor = scale[None] * jax.lax.rsqrt(var + epsilon)
    return _linear((x, factor), offset=bias[None] - mean * factor)


def _linear(*terms: tuple[jax.Array, jax.Array], offset: jax.Array) -> jax.Array:
    """The sum of each x [B, ..., C] times its factor [groups, C], and the offset [groups, C]; of the x's dtype."""
    # Without the fence XLA computes the factors anew for each element.
    factors, offset = jax.lax.optimization_barrier(([factor for _, factor in terms], offset))
    x = terms[0][0]
    spread = lambda row: row.reshape(len(row), *[1] * (x.ndim - 1), -1)
    total = spread(offset)
    for (each, _), factor in zip(terms, factors, strict=True):
        total += _by_groups(each, len(offset)) * spread(factor)
    return total.reshape(x.shape).astype(x.dtype)


def _by_groups(x: jax.Array, groups: int) -> jax.Array:
    """[B, ..., C] as [groups, B / groups, ..., C] float32."""
    # Places stay apart: where dimensions are joined, XLA's CPU loops divide for each element's index.
    return x.reshape(groups, -1, *x.shape[1:]).astype(jnp.float32)


class TableConv(nn.Module):
    """A convolution, "VALID", each of whose maps sees only the input maps that a table gives it.

    Source: LeCun, Bottou, Bengio, Haffner 1998, Table I. Trained are the table's kernels, [h, w, connections] in its
    order, and a bias a map; the convolution itself runs dense, with zeros for what is not connected.

    Attributes:
      table: the input maps of each output map.
      kernel: height and width.
      kernel_init: called a map at a time, with its own number of inputs.
    """

    table: tuple[tuple[int, ...], ...]
    kernel: tuple[int, int]
    kernel_init: Callable[..., jax.Array] = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H - h + 1, W - w + 1, len(table)]."""

        def drawn(key: jax.Array) -> jax.Array:
            keys = jax.random.split(key, len(self.table))
            maps = [self.kernel_init(k, (*self.kernel, len(row), 1)) for k, row in zip(keys, self.table, strict=True)]
            return jnp.concatenate(maps, axis=2)[..., 0]

        kernels = self.param("kernel", drawn)
        bias = self.param("bias", nn.initializers.zeros, (len(self.table),))
        inputs = [source for row in self.table for source in row]
        outputs = [number for number, row in enumerate(self.table) for _ in row]
        dense = jnp.zeros((*self.kernel, x.shape[-1], len(self.table)), x.dtype)
        dense = dense.at[:, :, jnp.array(inputs), jnp.array(outputs)].set(kernels.astype(x.dtype))
        y = convolution(x, dense, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return add_bias(y, bias.astype(x.dtype))


def widened(x: jax.Array, channels: int, stride: int) -> jax.Array:
    """Every stride-th pixel of [B, H, W, C], with zero maps added up to `channels` (He et al. 2015, option A)."""
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
