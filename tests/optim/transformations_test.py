"""Warm-up, plateau and the renormalization of filters, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import optim
from cnn_jax.config import choose

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])}


def make(schedule=None, **options):
    """Returns a run's transformation: SGD with these options."""
    return optim.make_optimizer(
        choose("sgd", **options), schedule or choose("constant"), total_steps=100
    )


def test_warmup_ends_at_a_low_training_error_and_never_restarts():
    tx = make(choose("step", base=0.1, warmup_until_error=0.8, warmup_base=0.01))
    state, mean, seen = tx.init(PARAMS), 1.0, []
    errors = [0.9] * 30 + [0.3] * 30 + [0.95] * 60
    for error in errors:
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(error))
        seen.append(float(optim.read_current_rate(state)))
    ended = 0
    while (mean := 0.98 * mean + 0.02 * errors[ended]) >= 0.8:
        ended += 1
    assert 30 < ended < 60
    assert seen[:ended] == pytest.approx([0.01] * ended) and seen[ended:] == pytest.approx(
        [0.1] * (120 - ended)
    )


def test_without_the_option_there_is_no_warmup():
    tx = make(choose("constant", base=0.1))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, error=jnp.float32(1.0))
    assert float(optim.read_current_rate(state)) == pytest.approx(0.1)


def test_plateau_cuts_the_rate_after_patience_evaluations_without_a_lower_error():
    tx = make(choose("plateau", base=0.1, factor=0.1, patience=2))
    state, seen = tx.init(PARAMS), []
    for error in (0.9, 0.8, 0.8, 0.85, 0.7, 0.75, 0.72, 0.71, 0.71):
        state = optim.observe_error(state, error)
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
        seen.append(float(optim.read_current_rate(state)))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 1e-4])


def test_evaluations_do_not_change_other_schedules():
    tx = make(choose("constant", base=0.1))
    state = tx.init(PARAMS)
    for _ in range(5):
        state = optim.observe_error(state, 0.9)
    _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
    assert float(optim.read_current_rate(state)) == pytest.approx(0.1)


def test_only_filters_above_the_maximum_rms_are_scaled_back():
    kernel = jnp.stack([jnp.full((3, 3, 2), 0.15), jnp.full((3, 3, 2), -0.05)], axis=-1)
    params = {"conv": kernel, "dense": jnp.full((4, 4), 5.0)}
    sgd, tx = (make(choose("constant", base=0.1), max_filter_rms=rms) for rms in (0.0, 0.1))
    # Only weight decay changes it.
    zeros, error = jax.tree.map(jnp.zeros_like, params), jnp.float32(1.0)
    updates, _ = tx.update(zeros, tx.init(params), params, error=error)
    alone, _ = sgd.update(zeros, sgd.init(params), params, error=error)
    moved = optax.apply_updates(params, updates)
    rms = np.sqrt(np.square(moved["conv"]).mean((0, 1, 2)))
    np.testing.assert_allclose(rms, [0.1, 0.05], rtol=1e-4)
    np.testing.assert_array_equal(updates["conv"][..., 1], alone["conv"][..., 1])
    np.testing.assert_array_equal(updates["dense"], alone["dense"])
    # A filter is scaled as a whole: its input channels keep their proportion.
    uneven = {"conv": jnp.stack([jnp.full((3, 3, 1), 0.3), jnp.full((3, 3, 1), 0.01)], axis=2)}
    zeros = jax.tree.map(jnp.zeros_like, uneven)
    updates, _ = tx.update(zeros, tx.init(uneven), uneven, error=error)
    moved = optax.apply_updates(uneven, updates)["conv"]
    np.testing.assert_allclose(moved[0, 0, 0] / moved[0, 0, 1], [30.0], rtol=1e-4)


def test_plateau_makes_at_most_max_cuts():
    tx = make(choose("plateau", base=0.1, factor=0.1, patience=1, max_cuts=2))
    state, seen = tx.init(PARAMS), []
    for _ in range(6):
        state = optim.observe_error(state, 0.5)
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
        seen.append(float(optim.read_current_rate(state)))
    assert seen == pytest.approx([0.1, 0.01, 0.001, 0.001, 0.001, 0.001])
