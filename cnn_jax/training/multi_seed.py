"""Several seeds of a run in one program: how their states are joined into one, and the step that moves it."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.training.state import State

Step = Callable[[Any, Any, Any], Any]


class Form(NamedTuple):
    """One of the ways to train K seeds at once; what a seed computes does not depend on the others."""

    join: Callable[[Sequence[State]], Any]
    split: Callable[[Any], Sequence[State]]  # undoes join
    step: Step  # step(joint state, arrays, the K seeds' items) -> joint state


def form(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array], platform: str) -> Form:
    """The way that is fastest on the platform, of step.train_step's steps; make(key) gives that of one seed.

    As benchmarks/seeds.py shows: on CPU vmapped convolutions, whose kernels differ from seed to seed, take up to three
    times as long as one after another. On GPU and TPU, where small nets leave most of the chip idle: not measured.
    """
    return (unrolled if platform == "cpu" else stacked)(make, keys)


def alone(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array]) -> Form:
    """The step of one seed; the joint state is its own, and so is the item."""
    (key,) = keys
    return Form(lambda states: states[0], lambda state: [state], make(key))


def unrolled(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array]) -> Form:
    """The steps one after another in one program; the joint state is a tuple."""
    steps = [make(key) for key in keys]

    def step(states: tuple[State, ...], arrays: Any, items: tuple) -> tuple[State, ...]:
        return tuple(one(state, arrays, item) for one, state, item in zip(steps, states, items, strict=True))

    return Form(tuple, list, step)


def stacked(make: Callable[[jax.Array], Step], keys: Sequence[jax.Array]) -> Form:
    """One vmapped step; the joint state is one State of arrays [K, ...]."""
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    split = lambda joint: [jax.tree.map(operator.itemgetter(k), joint) for k in range(len(keys))]

    def step(joint: State, arrays: Any, items: tuple) -> State:
        one = lambda key, state, item: make(key)(state, arrays, item)
        return jax.vmap(one)(jnp.stack(keys), joint, stack(items))

    return Form(jax.jit(stack), jax.jit(split), step)
