"""Joins several seeds of a run in one program, with a joint state and a joint step."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.training.state import State, Step


class Inputs(NamedTuple):
    """The inputs of a training step besides the state and the batch: the same at every step.

    The seeds' keys and the base rate are inputs, not constants of the program, so that runs that
    differ only in these have the same program.

    Attributes:
      arrays: The loader's arrays, on the devices.
      keys: The seeds' random keys as raw data (`jax.random.key_data`), each [2] uint32.
      base: The schedule's base rate, [] float32; None: the rate is a constant of the program.
    """

    arrays: Any
    keys: tuple[jax.Array, ...]
    base: jax.Array | None = None


# (key, state, inputs, batch) -> state, the step of one seed. `inputs.keys` holds the keys of all.
KeyedStep = Callable[[jax.Array, State, Inputs, Any], State]


class Form(NamedTuple):
    """A way to train K seeds at once. The results of a seed do not depend on the others.

    Attributes:
      join: The seeds' states -> the joint state.
      split: The inverse of join.
      step: (joint state, `Inputs`, the seeds' batches) -> joint state.
    """

    join: Callable[[Sequence[State]], Any]
    split: Callable[[Any], Sequence[State]]
    step: Step


def choose_form(one: KeyedStep, platform: str, params: Any) -> Form:
    """Returns the form that is fastest for a model on a platform.

    On a CPU, vmapped convolutions with a kernel per seed take up to three times as long as separate
    ones, so that models with convolutions are unrolled there; vmapped dense layers are faster than
    separate ones (benchmarks/seeds.py). On a GPU the vmapped form has trained studies on an H100,
    but was not compared with the unrolled one; on a TPU neither has run.

    Args:
      one: The training step of one seed.
      platform: cpu, gpu or tpu.
      params: The parameters of one seed, or their shapes. A kernel of more than two dimensions
        belongs to a convolution.
    """
    convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(params))
    return (unroll if platform == "cpu" and convolves else vectorize)(one)


def make_single(one: KeyedStep) -> Form:
    """Returns the form of a single seed, whose joint state and joint batch are the seed's own.

    Args:
      one: The training step of one seed.
    """

    def step(state: State, inputs: Inputs, batch: Any) -> State:
        (key,) = inputs.keys
        return one(key, state, inputs, batch)

    return Form(operator.itemgetter(0), lambda state: [state], step)


def unroll(one: KeyedStep) -> Form:
    """Returns the form that computes the seeds one after another; the joint state is a tuple.

    Args:
      one: The training step of one seed.
    """

    def step(states: tuple[State, ...], inputs: Inputs, batches: tuple) -> tuple[State, ...]:
        triples = zip(inputs.keys, states, batches, strict=True)
        return tuple(one(key, state, inputs, batch) for key, state, batch in triples)

    return Form(tuple, list, step)


def vectorize(one: KeyedStep) -> Form:
    """Returns the form that vmaps the step; the joint state is one `State` of arrays [K, ...].

    Args:
      one: The training step of one seed.
    """

    def stack(trees: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def split(joint: Any) -> list[Any]:
        seeds = len(joint.step)
        return [jax.tree.map(operator.itemgetter(k), joint) for k in range(seeds)]

    def step(joint: State, inputs: Inputs, batches: tuple) -> State:
        mapped = jax.vmap(one, in_axes=(0, 0, None, 0))
        return mapped(jnp.stack(inputs.keys), joint, inputs, stack(batches))

    return Form(jax.jit(stack), jax.jit(split), step)
