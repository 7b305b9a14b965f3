"""Sums over all but the channels, and a bias whose gradient is one: one pass over the input."""

import functools
import math

import jax
import jax.numpy as jnp

from cnn_jax.cpu import switch

CHUNKS = 8  # the fastest of 4, 8 and 16


def channel_sums(*arrays: jax.Array) -> list[jax.Array]:
    """Sums each array [groups, rows, C] over its rows.

    Returns:
      The sums, [groups, C] each.
    """
    rows = arrays[0].shape[1]
    chunks = 1
    if switch.kernels_enabled(arrays[0]):
        chunks = len(switch.chunks(rows, rows // math.gcd(CHUNKS, rows)))
    # XLA's reductions on a CPU read their input from memory, so a product is written there first.
    # Chunks that are added elementwise, in one loop with whatever computes them, leave an eighth.
    folded = [x.reshape(len(x), chunks, -1, x.shape[2]) for x in arrays]
    folded = [functools.reduce(jnp.add, [x[:, i] for i in range(chunks)]) for x in folded]
    folded = jax.lax.optimization_barrier(folded) if chunks > 1 else folded
    return [x.sum(1) for x in folded]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds bias [C] to x [..., C] of the same dtype. On a CPU: reverse mode only."""
    return _add_bias(x, bias) if switch.kernels_enabled(x) else _add(x, bias)


def _add(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return _add(x, bias)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return _add(x, bias), None


def _add_bias_backward(_: None, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Summed in float32 at least.
    wide = dy.astype(jnp.float32 if dy.dtype.itemsize < 4 else dy.dtype)
    return dy, channel_sums(wide.reshape(1, -1, dy.shape[-1]))[0][0].astype(dy.dtype)


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
