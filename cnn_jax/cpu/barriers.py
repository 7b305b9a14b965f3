"""Optimization barriers: where XLA, left alone, fuses what it should compute once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_jax.cpu import switch

MIN_BARRIER_SIZE = 2**16  # parameters of at least so many elements get a barrier


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
    """Sums (x - shift) * factor over the terms, and adds the offset, group by group.

    Args:
      terms: Arrays of one shape [B, ..., C]; the images of a group are adjacent.
      offset: [groups, C] float32.

    Returns:
      The sum, [B, ..., C], computed in float32 and returned in the dtype of the first x.
    """
    if switch.rewrites_enabled():
        # Without the barrier XLA computes the factors again for each element.
        rows = [(term.factor, term.shift) for term in terms]
        rows, offset = jax.lax.optimization_barrier((rows, offset))
        terms = [Term(term.x, *row) for term, row in zip(terms, rows, strict=True)]
    x = terms[0].x
    total = _spread(offset, x.ndim)
    for term in terms:
        # Positions stay apart: where dimensions are joined, XLA's CPU loops divide for each
        # element's index.
        values = term.x.reshape(len(offset), -1, *x.shape[1:]).astype(jnp.float32)
        if term.shift is not None:
            values -= _spread(term.shift, x.ndim)
        total += values * _spread(term.factor, x.ndim)
    return total.reshape(x.shape).astype(x.dtype)


def _spread(row: jax.Array, ndim: int) -> jax.Array:
    """[groups, C] as [groups, 1, ..., 1, C], for arrays [groups, B / groups, ..., C]."""
    return row.reshape(len(row), *[1] * (ndim - 1), -1)


def fence_updates(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Keeps an optimizer's arithmetic apart from the products that give the gradients.

    On a CPU, XLA moves the sum with weight decay into the matrix product that gives a gradient.
    For that it writes the decay of each weight to memory first: a pass over all parameters for
    each term of the update.

    Args:
      tx: The optimizer.

    Returns:
      The same optimizer; on a CPU, with a barrier around gradients of at least
      `MIN_BARRIER_SIZE` elements.
    """

    def fence(gradient: jax.Array) -> jax.Array:
        if gradient.size < MIN_BARRIER_SIZE:
            return gradient
        return jax.lax.optimization_barrier(gradient)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return tx.update(jax.tree.map(fence, updates), state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update) if switch.on_cpu() else tx
