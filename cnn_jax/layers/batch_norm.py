"""Batch normalization. Ioffe, Szegedy 2015 (arXiv:1502.03167), Algorithms 1 and 2."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.cpu.barriers import Term, combine_linearly
from cnn_jax.cpu.reductions import channel_sums
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
            return _scaled(x, mean.value[None], var.value[None], scale, bias, self.epsilon)
        y, group_mean, group_var = normalize(
            x, scale, bias, self.group, self.axis, self.epsilon
        )
        if not self.is_initializing():
            devices = jax.lax.axis_size(self.axis) if self.axis else 1
            values = (self.group or len(x) * devices) * math.prod(x.shape[1:-1])
            unbiased = group_var * (values / max(1, values - 1))
            for average, batch in ((mean, group_mean), (var, unbiased)):
                moved = self.momentum * average.value + (1 - self.momentum) * batch.mean(0)
                average.value = moved
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize(
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
    return combine_linearly((Term(dy, of_dy), Term(x, of_x)), rest), dscale.sum(0), dbias.sum(0)


normalize.defvjp(_normalise, _normalise_back)


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
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with a row of mean and var for each group."""
    factor = scale[None] * jax.lax.rsqrt(var + epsilon)
    return combine_linearly([Term(x, factor)], bias[None] - mean * factor)
