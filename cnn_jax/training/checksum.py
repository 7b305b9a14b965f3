"""A checksum of each array of a state, by which bits that flipped on a disk are noticed.

The sum of the array's words, each times an odd number of its own, modulo 2^32: a single flipped bit always changes it,
other damage goes unnoticed once in four thousand million times. It is taken where the array lies, at the speed of its
memory.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def compute(tree: Any) -> Callable[[], dict[str, int]]:
    """Starts to sum up a tree's arrays, of types of at most four bytes; what it returns waits and gives {path: sum}.

    The arrays may be donated meanwhile.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    sums = _sums([leaf for _, leaf in leaves])
    return lambda: dict(zip(names, map(int, jax.device_get(sums)), strict=True))


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    words = jax.lax.bitcast_convert_type(x, WORDS[x.dtype.itemsize]).reshape(-1).astype(jnp.uint32)
    odd = 2 * jax.lax.iota(jnp.uint32, len(words)) + jnp.uint32(1)
    return jnp.sum(words * odd, dtype=jnp.uint32)
