"""Batch normalization. Ioffe, Szegedy 2015 (arXiv:1502.03167), Algorithms 1 and 2."""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.barriers import Term, combine_linearly
from cnn_jax.cpu.reductions import channel_sums
from cnn_jax.cpu.switch import rewrites_enabled
from cnn_jax.errors import UserError


class BatchNorm(nn.Module):
    """Batch normalization of [B, ..., C] over all but the channels, by groups of images.

    Algorithms 1 and 2. The group size is explicit and does not depend on the device count: under
    jit over a mesh a batch would have global statistics, under pmap each device its own, and
    `group` makes both the same. Running averages are taken of the groups' mean, and of the
    variance as Algorithm 2 has it: times m / (m - 1), for a variance over m values.

    Attributes:
      group: Images per statistics group; 0: the whole batch. It must divide the batch.
      axis: The pmapped axis over which the batch is split, if it is.
      momentum: Of the running averages.
      epsilon: Added to the variance.
    """

    group: int = 0
    axis: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalizes with the batch's statistics (train), or with the running averages (test).

        In training it also moves the running averages.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            # Not as a shift: PyTorch, whose weights must give the same values, has one product too.
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            return combine_linearly([Term(x, factor[None])], (bias - mean.value * factor)[None])
        y, group_mean, group_var = normalize(x, scale, bias, self.group, self.axis, self.epsilon)
        if not self.is_initializing():
            devices = jax.lax.axis_size(self.axis) if self.axis else 1
            values = (self.group or len(x) * devices) * math.prod(x.shape[1:-1])
            unbiased = group_var * (values / max(1, values - 1))
            for average, batch in ((mean, group_mean), (var, unbiased)):
                moved = self.momentum * average.value + (1 - self.momentum) * batch.mean(0)
                average.value = moved
        return y


class Moments(NamedTuple):
    """Mean and variance of groups of images, [groups, C] float32 each.

    The mean is shift + offset. It is kept in two parts because their sum, rounded to float32, is
    as wrong as half a standard deviation once the mean is 10^7 standard deviations.

    Attributes:
      shift: A value near the mean: within sqrt(H * W) standard deviations of it.
      offset: What the mean is more.
      variance: Biased, as Algorithm 1 has it.
    """

    shift: jax.Array
    offset: jax.Array
    variance: jax.Array

    @property
    def mean(self) -> jax.Array:
        """[groups, C] float32."""
        return self.shift + self.offset


class _Groups(NamedTuple):
    """How a batch is divided into statistics groups.

    Attributes:
      here: Groups on this device, or the one that it has a part of.
      devices: Devices that a group spans.
      values: Values of a channel in a group.
    """

    here: int
    devices: int
    values: int


def normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes x by its groups' own moments.

    No gradient flows through the moments that it returns. It is differentiable in reverse mode
    only: the gradient is Algorithm 1's in closed form, which keeps nothing of x's size but x.
    With the switch of `cnn_jax.cpu` set to `xla` it is plain operations instead.

    Args:
      x: [B, ..., C].
      scale: What the normalized values are multiplied by, [C].
      bias: What is added then, [C].
      group: Images per group; 0: the whole batch.
      axis: The pmapped axis over which the batch is split, if it is.
      epsilon: Added to the variance.

    Returns:
      The normalized x, and the groups' mean and variance, [groups, C] float32 each.

    Raises:
      UserError: if the group does not divide the batch.
    """
    run = _normalize if rewrites_enabled() else _normalize_plainly
    return run(x, scale, bias, group, axis, epsilon)


def _normalize_plainly(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    moments = group_moments(x, group, axis)
    y = _apply(x, moments, scale, bias, epsilon)
    return y, jax.lax.stop_gradient(moments.mean), jax.lax.stop_gradient(moments.variance)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _normalize_forward(x, scale, bias, group, axis, epsilon)[0]


def _normalize_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, Moments]]:
    moments = group_moments(x, group, axis)
    y = _apply(x, moments, scale, bias, epsilon)
    return (y, moments.mean, moments.variance), (x, scale, moments)


def _normalize_backward(
    group: int,
    axis: str | None,
    epsilon: float,
    saved: tuple[jax.Array, jax.Array, Moments],
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, (shift, offset, variance) = saved
    dy, *_ = cotangents
    groups = _divide(x.shape, group, axis)
    dy_rows, x_rows = _as_rows(dy, groups), _as_rows(x, groups) - shift[:, None]
    here = jnp.stack(channel_sums(dy_rows, dy_rows * x_rows))
    inverse = jax.lax.rsqrt(variance + epsilon)
    dbias, dscale = here[0], (here[1] - offset * here[0]) * inverse
    whole = _gather_devices(here, groups, axis).sum(0)
    # dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), where x^ is the normalized x, as
    # a dy + b (x - shift) + c.
    of_dy = scale[None] * inverse
    of_x = -of_dy * jnp.square(inverse) * (whole[1] - offset * whole[0]) / groups.values
    rest = -of_dy * whole[0] / groups.values - of_x * offset
    dx = combine_linearly((Term(dy, of_dy), Term(x, of_x, shift)), rest)
    return dx, dscale.sum(0), dbias.sum(0)


_normalize.defvjp(_normalize_forward, _normalize_backward)


def group_moments(x: jax.Array, group: int, axis: str | None = None) -> Moments:
    """Computes mean and variance of a batch by groups of images.

    It takes one pass over the batch, for the sums of x - shift and of its square. Without the
    shift, E[x^2] - E[x]^2 has no correct digit in float32 once the mean is about 3,000 standard
    deviations.

    Args:
      x: [B, ..., C]. With an axis it is one device's part of the batch, and a group may span
        several devices; each of them then has one row, its own group's.
      group: Images per group; 0: the whole batch.
      axis: The pmapped axis over which the batch is split, if it is.

    Returns:
      The moments, [groups, C] each.

    Raises:
      UserError: if the group does not divide the batch.
    """
    groups = _divide(x.shape, group, axis)
    shift = _choose_shift(x, groups)
    rows = _as_rows(x, groups) - shift[:, None]
    values = groups.values // groups.devices
    offset, square = (total / values for total in channel_sums(rows, jnp.square(rows)))
    variance = jnp.maximum(square - jnp.square(offset), 0.0)
    if groups.devices == 1:
        return Moments(shift, offset, variance)
    # Chan, Golub, LeVeque 1979: the variance of the whole is the mean of the parts' variances and
    # the variance of their means; all relative to the first part's shift.
    shifts, offsets, variances = jnp.moveaxis(
        _gather_devices(jnp.stack((shift, offset, variance)), groups, axis), 1, 0
    )
    shift, means = shifts[0], shifts - shifts[:1] + offsets
    offset = means.mean(0)
    return Moments(shift, offset, variances.mean(0) + jnp.square(means - offset[None]).mean(0))


def _divide(shape: tuple[int, ...], group: int, axis: str | None) -> _Groups:
    local, devices = shape[0], jax.lax.axis_size(axis) if axis else 1
    batch = local * devices
    size = group or batch
    if size > batch or (local % size and size % local) or batch % size:
        raise UserError(
            f"bn_group={group} does not divide a batch of {batch} over {devices} devices"
        )
    return _Groups(max(1, local // size), max(1, size // local), size * math.prod(shape[1:-1]))


def _as_rows(x: jax.Array, groups: _Groups) -> jax.Array:
    """[B, ..., C] as [groups, rows, C] float32."""
    return x.astype(jnp.float32).reshape(groups.here, -1, x.shape[-1])


def _choose_shift(x: jax.Array, groups: _Groups) -> jax.Array:
    """The mean of each group's central pixels, [groups, C] float32."""
    # One of H * W pixels: if their mean differs from the group's mean by d, these pixels alone
    # give the group a variance of d^2 / (H * W). So d is at most sqrt(H * W) standard deviations,
    # which costs at most a factor of H * W in the variance's rounding error. The pixel is taken
    # of each image, so that a batch that lies on several devices is not sent around between them.
    center = x[:, *(size // 2 for size in x.shape[1:-1])]
    shift = center.astype(jnp.float32).reshape(groups.here, -1, x.shape[-1]).mean(1)
    # Of no gradient: the moments do not depend on it. Behind a barrier, so that it is not
    # computed again for each element.
    return jax.lax.optimization_barrier(jax.lax.stop_gradient(shift))


def _gather_devices(x: jax.Array, groups: _Groups, axis: str | None) -> jax.Array:
    """Stacks x of the devices that this device's group spans: [devices, ...]."""
    if groups.devices == 1:
        return x[None]
    every = jax.lax.all_gather(x, axis).reshape(-1, groups.devices, *x.shape)
    return every[jax.lax.axis_index(axis) // groups.devices]


def _apply(
    x: jax.Array, moments: Moments, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias."""
    factor = scale[None] * jax.lax.rsqrt(moments.variance + epsilon)
    offset = bias[None] - moments.offset * factor
    return combine_linearly([Term(x, factor, moments.shift)], offset)
