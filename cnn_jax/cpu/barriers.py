"""Optimization barriers, which stop XLA from recomputing values when it fuses operations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_jax.cpu import switch

MIN_BARRIER_SIZE = 2**16  # parameters with at least this many elements get a barrier


class Term(NamedTuple):
    """A term (x - shift) * factor of a linear combination.

    Attributes:
      x: [B, ..., C].
      factor: [groups, C] float32.
      shift: [groups, C] float32; None: 0.
    """

    x: jax.Array
    factor: jax.Array
    shift: jax.Array | None = None


def combine_linearly(terms: Sequence[Term], offset: jax.Array) -> jax.Array:
    """Sums (x - shift) * factor over the terms and adds the offset, for each group and channel.

    Args:
      terms: The terms. All x have the same shape [B, ..., C], with the images of a group adjacent.
      offset: Array [groups, C] float32.

    Returns:
      The sum, [B, ..., C], computed in float32, in the dtype of the first x.
    """
    if switch.are_rewrites_enabled():
        # Without the barrier XLA computes the factors again for each element.
        rows = [(term.factor, term.shift) for term in terms]
        rows, offset = jax.lax.optimization_barrier((rows, offset))
        terms = [Term(term.x, *row) for term, row in zip(terms, rows, strict=True)]
    x = terms[0].x
    total = _spread(offset, x.ndim)
    for term in terms:
        # The spatial dimensions are not merged: for merged dimensions XLA's CPU loops compute each
        # element's index by divisions.
        values = term.x.reshape(len(offset), -1, *x.shape[1:]).astype(jnp.float32)
        if term.shift is not None:
            values -= _spread(term.shift, x.ndim)
        total += values * _spread(term.factor, x.ndim)
    return total.reshape(x.shape).astype(x.dtype)


def _spread(row: jax.Array, ndim: int) -> jax.Array:
    """Reshapes [groups, C] to [groups, 1, ..., 1, C], for arrays [groups, B / groups, ..., C]."""
    return row.reshape(len(row), *[1] * (ndim - 1), -1)


def fence_updates(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Puts a barrier between the gradients and an optimizer's arithmetic, on a CPU.

    Without it, XLA on a CPU fuses the addition of weight decay into the matrix product that
    computes the gradient. It then writes each term of the update to memory first, which takes a
    pass over all parameters.

    Args:
      tx: The optimizer.

    Returns:
      The same optimizer; on a CPU, gradients of at least `MIN_BARRIER_SIZE` elements go through a
      barrier first.
    """

    def fence(gradient: jax.Array) -> jax.Array:
        if gradient.size < MIN_BARRIER_SIZE:
            return gradient
        return jax.lax.optimization_barrier(gradient)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return tx.update(jax.tree.map(fence, updates), state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update) if switch.is_on_cpu() else tx
