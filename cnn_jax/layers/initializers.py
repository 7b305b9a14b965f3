"""Initializers of weights: functions (key, shape, dtype) -> array.

Kernels have the shape [..., in, out]. The fan-in is the product of all dimensions except the last,
and the fan-out the product of all except the second last.
"""

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from cnn_jax.cpu.rewrites import draw_normal


class Initializer(Protocol):
    """Draws an array of initial values."""

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = ...) -> jax.Array:
        """Draws values of the shape and dtype from the key."""
        ...


def compute_fan_in(shape: tuple[int, ...]) -> int:
    """Returns the number of inputs of a unit, for a kernel of shape [..., in, out]."""
    return math.prod(shape[:-1])


def compute_fan_out(shape: tuple[int, ...]) -> int:
    """Returns the number of units that an input goes to, for a kernel of shape [..., in, out]."""
    return math.prod(shape[:-2]) * shape[-1]


def compute_fan_average(shape: tuple[int, ...]) -> float:
    """Returns the mean of fan-in and fan-out, for a kernel of shape [..., in, out]."""
    return (compute_fan_in(shape) + compute_fan_out(shape)) / 2


def normal(std: float) -> Initializer:
    """Makes an initializer that draws N(0, std^2)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return draw_normal(key, shape, dtype, std)

    return init


def fan_in_normal(gain: float) -> Initializer:
    """Makes an initializer that draws N(0, gain / fan-in)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return draw_normal(key, shape, dtype, math.sqrt(gain / compute_fan_in(shape)))

    return init


def fan_in_uniform(gain: float) -> Initializer:
    """Makes an initializer that draws uniformly, with mean 0 and variance gain / fan-in."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return _draw_uniform(key, shape, dtype, gain / compute_fan_in(shape))

    return init


def _draw_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any, variance: float) -> jax.Array:
    limit = math.sqrt(3 * variance)
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def xavier_average_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """Draws N(0, 1 / m) for the mean m of fan-in and fan-out: Glorot, Bengio 2010, eq. 12.

    Args:
      key: A random key.
      shape: Shape [..., in, out] of the kernel.
      dtype: Dtype of the kernel.
    """
    return draw_normal(key, shape, dtype, math.sqrt(1 / compute_fan_average(shape)))


def xavier_average_uniform(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """Draws uniformly within +-sqrt(6 / (fan-in + fan-out)): Glorot, Bengio 2010, eq. 16.

    Args:
      key: A random key.
      shape: Shape [..., in, out] of the kernel.
      dtype: Dtype of the kernel.
    """
    return _draw_uniform(key, shape, dtype, 1 / compute_fan_average(shape))


# The baseline of Glorot, Bengio 2010, eq. 1: uniform within +-1 / sqrt(fan-in), a third of LeCun's
# variance.
standard_uniform = fan_in_uniform(1 / 3)
he_normal = fan_in_normal(2.0)  # He et al. 2015 (arXiv:1502.01852), Sec. 2.2, eq. 10
he_uniform = fan_in_uniform(2.0)  # the same variance
# LeCun, Bottou, Orr, Mueller 1998, "Efficient BackProp", Sec. 4.6, eq. 16: any distribution with
# mean 0 and standard deviation fan-in^(-1/2).
lecun_normal = fan_in_normal(1.0)
lecun_uniform = fan_in_uniform(1.0)
# Caffe's "xavier", with which VGG and GoogLeNet were reproduced, uses only the fan-in: it is
# LeCun's. Caffe draws from a uniform distribution, most other libraries from a normal one.
xavier_normal = lecun_normal
xavier_uniform = lecun_uniform

INITIALIZERS: dict[str, Initializer] = {
    "xavier": xavier_normal,
    "xavier_uniform": xavier_uniform,
    "xavier_average": xavier_average_normal,
    "xavier_average_uniform": xavier_average_uniform,
    "standard_uniform": standard_uniform,
    "he": he_normal,
    "he_uniform": he_uniform,
    "lecun": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "normal_0.001": normal(0.001),
    "normal_0.01": normal(0.01),
    "normal_0.1": normal(0.1),
    "normal_1": normal(1.0),
}
