"""Barriers change no value: linear combinations by groups, and an optimizer's updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.cpu import barriers, switch
from cnn_jax.cpu.barriers import Term, combine_linearly


@pytest.mark.parametrize("choice", ["cpu", "xla"])
@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (6, 3)])
def test_a_linear_combination_computed_in_groups(shape, choice):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    a, b, shift, offset = rng.standard_normal((4, 2, 3)).astype(np.float32)
    with switch.use(choice):
        got = combine_linearly((Term(x, a), Term(y, b, shift)), jnp.asarray(offset))
    for row in range(6):
        group = row // 3
        expected = x[row] * a[group] + (y[row] - shift[group]) * b[group] + offset[group]
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-6)
    narrow = combine_linearly([Term(jnp.asarray(x, jnp.bfloat16), a)], jnp.asarray(offset))
    assert narrow.dtype == jnp.bfloat16


@pytest.mark.parametrize("choice, fenced", [("cpu", True), ("xla", False)])
def test_updates_are_those_of_the_optimizer(choice, fenced):
    large = jnp.ones(barriers.MIN_BARRIER_SIZE)
    params = {"large": large, "small": large[:3]}
    gradients = jax.tree.map(lambda p: 0.5 * p, params)
    tx = optax.with_extra_args_support(optax.sgd(0.1, momentum=0.9))
    with switch.use(choice):
        ours = barriers.fence_updates(tx)
    state = tx.init(params)

    def update(tx):
        return jax.jit(lambda g: tx.update(g, state, params)[0])

    jax.tree.map(np.testing.assert_array_equal, update(ours)(gradients), update(tx)(gradients))
    text = str(jax.make_jaxpr(lambda g: ours.update(g, state, params)[0])(gradients))
    assert text.count("optimization_barrier") == fenced  # Only of the large one.
