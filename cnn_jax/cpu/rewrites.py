"""Operations written in forms that XLA compiles or runs faster on a CPU."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax import mesh
from cnn_jax.cpu import switch

MAX_POWER_OF_TWO_DRAW = 2**20  # sizes up to this are rounded up to a power of two


def draw_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any, std: float) -> jax.Array:
    """Draws values from N(0, std^2). They equal std times those of `jax.random.normal`.

    The values are drawn as a flat array, because XLA's CPU compiler takes 16 times longer for
    random arrays of four dimensions. Small sizes are rounded up to a power of two, so that a model
    with many shapes compiles few generators.

    Args:
      key: A random key.
      shape: Shape of the result.
      dtype: Dtype of the result.
      std: Standard deviation.
    """
    if not switch.are_rewrites_enabled():
        return jax.random.normal(key, shape, dtype) * jnp.asarray(std, dtype)
    size = math.prod(shape)
    drawn = size if size > MAX_POWER_OF_TWO_DRAW else 1 << (size - 1).bit_length()
    return _scale_and_reshape(_draw_flat(key, drawn, dtype), jnp.asarray(std, dtype), shape)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw_flat(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    return jax.random.normal(key, (size,), dtype)


@functools.partial(jax.jit, static_argnums=2)
def _scale_and_reshape(x: jax.Array, scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return (x[: math.prod(shape)] * scale).reshape(shape)


def raise_to_power(x: jax.Array, exponent: float) -> jax.Array:
    """Raises positive values to a power. The exponent of LRN, -3/4, is computed by two roots.

    Args:
      x: Array of positive values, of any shape.
      exponent: The exponent.
    """
    if exponent == -0.75 and switch.are_rewrites_enabled():
        root = lax.rsqrt(x)
        return root * jnp.sqrt(root)
    return x**exponent


def choose_min_scan_blocks() -> int:
    """Returns the least number of identical blocks for which a stage should use `lax.scan`."""
    # On a CPU, XLA runs a convolution inside a scan many times slower (jax#12868). A scan is used
    # only for ResNet-1202, which would not finish compiling without it. On other platforms a scan
    # costs almost nothing.
    return 100 if mesh.get_platform() == "cpu" else 17
