"""Small rewrites: random draws of few shapes, a power by two roots, when to scan over blocks."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax import mesh
from cnn_jax.cpu import switch

MAX_POWER_OF_TWO_DRAW = 2**20  # larger arrays are drawn at their own size


def draw_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any, std: float) -> jax.Array:
    """Draws N(0, std^2); the numbers are those of `jax.random.normal` times std.

    The draw is flat, because XLA's CPU compiler takes 16 times longer over random bits of four
    dimensions, and of a power of two if small, so that a model of many shapes does not compile a
    generator for each.
    """
    if not switch.rewrites_enabled():
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


def power(x: jax.Array, exponent: float) -> jax.Array:
    """Raises positive x to the exponent; by two roots if that is -3/4, as in LRN."""
    if exponent == -0.75 and switch.rewrites_enabled():
        root = lax.rsqrt(x)
        return root * jnp.sqrt(root)
    return x**exponent


def min_scan_blocks() -> int:
    """From how many identical blocks on a stage should run in `lax.scan`, on this platform."""
    # XLA on a CPU runs a convolution inside a scan many times slower (jax#12868). There only
    # ResNet-1202, which would not finish compiling otherwise, is worth it; elsewhere a scan costs
    # next to nothing.
    return 100 if mesh.platform() == "cpu" else 17
