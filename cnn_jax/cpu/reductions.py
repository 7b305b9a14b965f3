"""Sums over all but the channels, and the bias whose gradient is one: on a CPU in one pass over their input."""

import functools
import math

import jax
import jax.numpy as jnp

from cnn_jax.cpu import switch

PARTS = 8  # of 4, 8 and 16 the fastest


def channel_sums(*arrays: jax.Array) -> list[jax.Array]:
    """Of each [groups, rows, C] its sum over the rows, [groups, C]."""
    rows = arrays[0].shape[1]
    parts = len(switch.parts(rows, rows // math.gcd(PARTS, rows))) if switch.cpu(arrays[0]) else 1
    # XLA's CPU reductions read their input from memory: a product is written there first. Parts added elementwise, in
    # one loop with whatever makes them, leave them an eighth of it.
    folded = [x.reshape(len(x), parts, -1, x.shape[2]) for x in arrays]
    folded = [functools.reduce(jnp.add, [x[:, part] for part in range(parts)]) for x in folded]
    return [x.sum(1) for x in (jax.lax.optimization_barrier(folded) if parts > 1 else folded)]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., C] plus bias [C] of its dtype; on CPU it differentiates in reverse mode only."""
    return _add_bias(x, bias) if switch.cpu(x) else _plus(x, bias)


def _plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return _plus(x, bias)


def _add_bias_back(_: None, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Summed in float32 at least.
    wide = dy.astype(jnp.float32 if dy.dtype.itemsize < 4 else dy.dtype).reshape(1, -1, dy.shape[-1])
    return dy, channel_sums(wide)[0][0].astype(dy.dtype)


_add_bias.defvjp(lambda x, bias: (_plus(x, bias), None), _add_bias_back)
