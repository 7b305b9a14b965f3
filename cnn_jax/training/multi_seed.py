"""Several seeds of a run in one program: their joint state and step."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.training.state import State

Step = Callable[[Any, Any, Any], Any]


class Form(NamedTuple):
    """A way to train K seeds at once. The results of a seed do not depend on the others.

    Attributes:
      join: The seeds' states -> the joint state.
      split: Undoes join.
      step: (joint state, arrays, the seeds' batches) -> joint state.
    """

    join: Callable[[Sequence[State]], Any]
    split: Callable[[Any], Sequence[State]]
    step: Step


def form(
    make: Callable[[jax.Array], Step], keys: Sequence[jax.Array], platform: str, params: Any
) -> Form:
    """Returns the form that is fastest for a model on a platform.

    On a CPU, vmapped convolutions with a kernel per seed take up to three times as long as separate
    ones, so that models with convolutions are unrolled there; vmapped dense layers are faster than
    separate ones (benchmarks/seeds.py). On a GPU the vmapped form has trained studies on an H100,
    but was not compared with the unrolled one; on a TPU neither has run.

    Args:
      make: make(key) returns the training step of one seed.
      keys: The seeds' keys.
      platform: cpu, gpu or tpu.
      params: The parameters of one seed, or their shapes. A kernel of more than two dimensions
        belongs to a convolution.
    """
    convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(params))
    return (unrolled if platform == "cpu" and convolves else vmapped)(make, keys)


def alone(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array]) -> Form:
    """Returns the form of one seed: the joint state and batch are its own."""
    (key,) = keys
    return Form(operator.itemgetter(0), lambda state: [state], make(key))


def unrolled(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array]) -> Form:
    """Returns the seeds' steps one after another in one program; the joint state is a tuple."""
    steps = [make(key) for key in keys]

    def step(states: tuple[State, ...], arrays: Any, batches: tuple) -> tuple[State, ...]:
        triples = zip(steps, states, batches, strict=True)
        return tuple(one(state, arrays, batch) for one, state, batch in triples)

    return Form(tuple, list, step)


def vmapped(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array]) -> Form:
    """Returns one vmapped step; the joint state is one State of arrays [K, ...]."""

    def stack(trees: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def split(joint: Any) -> list[Any]:
        return [jax.tree.map(operator.itemgetter(k), joint) for k in range(len(keys))]

    def step(joint: State, arrays: Any, batches: tuple) -> State:
        def one(key: jax.Array, state: State, batch: Any) -> State:
            return make(key)(state, arrays, batch)

        return jax.vmap(one)(jnp.stack(keys), joint, stack(batches))

    return Form(jax.jit(stack), jax.jit(split), step)
