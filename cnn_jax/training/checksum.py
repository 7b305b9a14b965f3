"""Checksums of a state's arrays, which detect bits that have flipped on a disk.

The checksum of an array is the sum of its words, each times a different odd number, modulo 2^32. A
single flipped bit always changes the checksum; other damage goes undetected with probability 2^-32.
The array's device computes the checksum, at the speed of its memory.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def compute(tree: Any) -> Callable[[], dict[str, int]]:
    """Starts to compute the checksum of each array of a tree.

    Args:
      tree: Arrays whose elements have at most four bytes. The caller may donate them at once.

    Returns:
      A function that waits for the checksums and returns {path: checksum}.
    """
    names, sums = name_arrays(tree), _sum_leaves(jax.tree.leaves(tree))
    return lambda: dict(zip(names, map(int, jax.device_get(sums)), strict=True))


def name_arrays(tree: Any) -> list[str]:
    """Returns the path of each array of a tree, in the order of its leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


@jax.jit
def _sum_leaves(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum_words(leaf) for leaf in leaves]


def _sum_words(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    words = jax.lax.bitcast_convert_type(x, WORDS[x.dtype.itemsize])
    words = words.reshape(-1).astype(jnp.uint32)
    odd = 2 * jax.lax.iota(jnp.uint32, len(words)) + jnp.uint32(1)
    return jnp.sum(words * odd, dtype=jnp.uint32)
