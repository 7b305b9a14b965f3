"""Batch normalization. Ioffe, Szegedy 2015 (arXiv:1502.03167), Algorithms 1 and 2."""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.barriers import Term, combine_linearly
from cnn_jax.cpu.reductions import sum_per_channel
from cnn_jax.cpu.switch import are_rewrites_enabled
from cnn_jax.errors import UserError


class BatchNorm(nn.Module):
    """Batch normalization of [B, ..., C], with statistics of each group of images and channel.

    The group size is explicit and does not depend on the number of devices. Without it, jit over a
    mesh would use statistics of the global batch, and pmap those of each device. As in
    Algorithm 2, the running average is of the unbiased variance: m / (m - 1) times the variance of
    m values.

    Attributes:
      group: Number of images in a group; 0: the whole batch. It must divide the batch size.
      axis: Name of the pmapped axis over which the batch is split; None: it is not split.
      momentum: Decay rate of the running averages.
      epsilon: Added to the variance.
    """

    group: int = 0
    axis: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, ..., C] to the same shape.

        In training it uses the batch's statistics and updates the running averages; otherwise it
        uses the running averages.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            # One product and one sum, as in PyTorch, so that its weights give the same values.
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
    """Mean and variance of groups of images, each [groups, C] float32.

    The mean is shift + offset. They are kept apart because their sum must be rounded to float32.
    For a mean of 10^7 standard deviations the rounding error is half a standard deviation.

    Attributes:
      shift: A value within sqrt(H * W) standard deviations of the mean.
      offset: The mean minus the shift.
      variance: The biased variance, as in Algorithm 1.
    """

    shift: jax.Array
    offset: jax.Array
    variance: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The mean, [groups, C] float32."""
        return self.shift + self.offset


class _Groups(NamedTuple):
    """How a batch is divided into groups.

    Attributes:
      here: Number of groups on this device; 1 if the group spans several devices.
      devices: Number of devices that a group spans.
      values: Number of values that a channel has in a group.
    """

    here: int
    devices: int
    values: int


def normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes x by the mean and variance of each group of images.

    No gradient flows through the returned moments. The gradient is Algorithm 1's in closed form:
    x is the only array of its size that is kept for the backward pass. It works in reverse mode
    only. If the switch of `cnn_jax.cpu` is `xla`, plain operations are used, with JAX's gradients.

    Args:
      x: Array [B, ..., C].
      scale: Factor of the normalized values, [C].
      bias: Added to the scaled values, [C].
      group: Number of images in a group; 0: the whole batch.
      axis: Name of the pmapped axis over which the batch is split; None: it is not split.
      epsilon: Added to the variance.

    Returns:
      The normalized x, and each group's mean and variance, [groups, C] float32.

    Raises:
      UserError: If the group size does not divide the batch size.
    """
    run = _normalize if are_rewrites_enabled() else _normalize_plainly
    return run(x, scale, bias, group, axis, epsilon)


def _normalize_plainly(
    x: jax.Array, scale: jax.Array, bias: jax.Array, group: int, axis: str | None, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    moments = compute_moments(x, group, axis)
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
    moments = compute_moments(x, group, axis)
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
    here = jnp.stack(sum_per_channel(dy_rows, dy_rows * x_rows))
    inverse = jax.lax.rsqrt(variance + epsilon)
    dbias, dscale = here[0], (here[1] - offset * here[0]) * inverse
    whole = _gather_devices(here, groups, axis).sum(0)
    # dx = scale / deviation (dy - mean(dy) - x^ mean(dy x^)), where x^ is the normalized x. It is
    # computed as a dy + b (x - shift) + c.
    of_dy = scale[None] * inverse
    of_x = -of_dy * jnp.square(inverse) * (whole[1] - offset * whole[0]) / groups.values
    rest = -of_dy * whole[0] / groups.values - of_x * offset
    dx = combine_linearly((Term(dy, of_dy), Term(x, of_x, shift)), rest)
    return dx, dscale.sum(0), dbias.sum(0)


_normalize.defvjp(_normalize_forward, _normalize_backward)


def compute_moments(x: jax.Array, group: int, axis: str | None = None) -> Moments:
    """Computes the mean and variance of each group of images.

    One pass over the batch sums x - shift and its square. Without the shift, E[x^2] - E[x]^2 has
    no correct digit in float32 if the mean is about 3,000 standard deviations.

    Args:
      x: Array [B, ..., C]. With an axis it is this device's part of the batch. If a group spans
        several devices, each of them returns one row, that of its group.
      group: Number of images in a group; 0: the whole batch.
      axis: Name of the pmapped axis over which the batch is split; None: it is not split.

    Returns:
      The moments, each [groups, C].

    Raises:
      UserError: If the group size does not divide the batch size.
    """
    groups = _divide(x.shape, group, axis)
    shift = _choose_shift(x, groups)
    rows = _as_rows(x, groups) - shift[:, None]
    values = groups.values // groups.devices
    offset, square = (total / values for total in sum_per_channel(rows, jnp.square(rows)))
    variance = jnp.maximum(square - jnp.square(offset), 0.0)
    if groups.devices == 1:
        return Moments(shift, offset, variance)
    # Chan, Golub, LeVeque 1979: the variance of a group is the mean of the devices' variances plus
    # the variance of their means. All means are relative to the first device's shift.
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
    """Reshapes [B, ..., C] to [groups, rows, C] float32."""
    return x.astype(jnp.float32).reshape(groups.here, -1, x.shape[-1])


def _choose_shift(x: jax.Array, groups: _Groups) -> jax.Array:
    """Returns the mean of the central pixels of each group's images, [groups, C] float32."""
    # If this mean differs from the group's mean by d, these pixels, 1 of H * W, contribute at least
    # d^2 / (H * W) to the group's variance. So d is at most sqrt(H * W) standard deviations, and
    # the rounding error of the variance grows by at most a factor of H * W. One pixel of each image
    # is used because images of a batch may be on several devices: no image has to be moved.
    center = x[:, *(size // 2 for size in x.shape[1:-1])]
    shift = center.astype(jnp.float32).reshape(groups.here, -1, x.shape[-1]).mean(1)
    # No gradient is needed, because the moments do not depend on the shift. Without the barrier XLA
    # would compute the shift again for each element.
    return jax.lax.optimization_barrier(jax.lax.stop_gradient(shift))


def _gather_devices(x: jax.Array, groups: _Groups, axis: str | None) -> jax.Array:
    """Stacks the x of all devices that this device's group spans: [devices, ...]."""
    if groups.devices == 1:
        return x[None]
    every = jax.lax.all_gather(x, axis).reshape(-1, groups.devices, *x.shape)
    return every[jax.lax.axis_index(axis) // groups.devices]


def _apply(
    x: jax.Array, moments: Moments, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Computes (x - mean) / sqrt(variance + epsilon) * scale + bias."""
    factor = scale[None] * jax.lax.rsqrt(moments.variance + epsilon)
    offset = bias[None] - moments.offset * factor
    return combine_linearly([Term(x, factor, moments.shift)], offset)
