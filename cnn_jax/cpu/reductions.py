"""Sums per channel in one pass over the input, and a bias whose gradient uses them."""

import functools
import math

import jax
import jax.numpy as jnp

from cnn_jax.cpu import switch

CHUNKS = 8  # the fastest of 4, 8 and 16


def sum_per_channel(*arrays: jax.Array) -> list[jax.Array]:
    """Sums each array [groups, rows, C] over its rows.

    Args:
      *arrays: Arrays of the same shape.

    Returns:
      The sums, each [groups, C].
    """
    rows = arrays[0].shape[1]
    enabled = switch.are_kernels_enabled(arrays[0]) and switch.are_chunks_enabled()
    chunks = math.gcd(CHUNKS, rows) if enabled else 1
    # On a CPU, XLA's reductions read their input from memory, so a product must be written there
    # first. Chunks are added elementwise, in the same loop that computes them, so that only an
    # eighth is written.
    folded = [x.reshape(len(x), chunks, -1, x.shape[2]) for x in arrays]
    folded = [functools.reduce(jnp.add, [x[:, i] for i in range(chunks)]) for x in folded]
    folded = jax.lax.optimization_barrier(folded) if chunks > 1 else folded
    return [x.sum(1) for x in folded]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a bias to each channel. On a CPU it is differentiable in reverse mode only.

    Args:
      x: Array [..., C].
      bias: Array [C] of x's dtype.

    Returns:
      x + bias, [..., C].
    """
    return _add_bias(x, bias) if switch.are_kernels_enabled(x) else _add(x, bias)


def _add(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return _add(x, bias)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return _add(x, bias), None


def _add_bias_backward(_: None, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = dy.astype(jnp.float32 if dy.dtype.itemsize < 4 else dy.dtype)
    return dy, sum_per_channel(wide.reshape(1, -1, dy.shape[-1]))[0][0].astype(dy.dtype)


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
