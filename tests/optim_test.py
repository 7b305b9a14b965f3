"""Schedules and transformations against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import optim
from cnn_jax.config import choose
from cnn_jax.errors import UserError

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])}


def make(schedule=None, **options):
    """A run's transformation: SGD with these options."""
    return optim.make_optimizer(choose("sgd", **options), schedule or choose("constant"), total_steps=100)


def rates(schedule, steps):
    """The rates at which a schedule multiplies updates after so many others."""
    tx = optim.make_schedule(schedule, 100)
    state, found = tx.init(PARAMS), []
    for step in steps:
        there = state._replace(count=jnp.int32(step))
        _, after = tx.update(GRADS, there)
        found.append(float(optim.current_rate(after)))
    return found


def test_schedules_follow_their_formulas():
    assert rates(choose("constant", base=0.3), [0, 10**6]) == pytest.approx([0.3, 0.3])
    paper = choose("step", base=0.1, boundaries=(32_000, 48_000), factor=0.1)
    steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
    assert rates(paper, steps) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    exponential = choose("exponential", base=0.1, rate=0.05)
    assert rates(exponential, [0, 7, 40]) == pytest.approx([0.1 * np.exp(-0.05 * t) for t in (0, 7, 40)])
    inverse = choose("inverse_time", base=0.1, rate=0.5)
    assert rates(inverse, [0, 1, 8]) == pytest.approx([0.1, 0.1 / 1.5, 0.1 / 5])


def test_an_unknown_schedule_is_told():
    with pytest.raises(UserError, match="nearest: exponential"):
        optim.make_schedule(choose("exponental"), 100)


@pytest.mark.parametrize("decay_biases", [True, False])
def test_momentum_and_decay_by_hand(decay_biases):
    """v := m v - lr (g + wd w); w := w + v, with the rate cut between two steps."""
    schedule = choose("step", base=0.1, boundaries=(2,))
    tx = make(schedule, momentum=0.9, weight_decay=0.01, decay_biases=decay_biases)
    state, params = tx.init(PARAMS), PARAMS
    w, v = {k: np.asarray(p) for k, p in PARAMS.items()}, {"kernel": 0.0, "bias": 0.0}
    for lr in (0.1, 0.1, 0.01, 0.01):
        updates, state = tx.update(GRADS, state, params, error=jnp.float32(0.5))
        params = jax.tree.map(jnp.add, params, updates)
        for k in w:
            decay = 0.01 if decay_biases or k == "kernel" else 0.0
            v[k] = 0.9 * v[k] - lr * (np.asarray(GRADS[k]) + decay * w[k])
            w[k] = w[k] + v[k]
        assert float(optim.current_rate(state)) == pytest.approx(lr)
    for k in w:
        np.testing.assert_allclose(params[k], w[k], rtol=1e-5)


def test_warm_up_holds_until_the_training_error_is_low_and_never_comes_back():
    tx = make(choose("step", base=0.1, warmup_until_error=0.8, warmup_base=0.01))
    state, mean, seen = tx.init(PARAMS), 1.0, []
    errors = [0.9] * 30 + [0.3] * 30 + [0.95] * 60
    for error in errors:
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(error))
        seen.append(float(optim.current_rate(state)))
    ended = 0
    while (mean := 0.98 * mean + 0.02 * errors[ended]) >= 0.8:
        ended += 1
    assert 30 < ended < 60
    assert seen[:ended] == pytest.approx([0.01] * ended) and seen[ended:] == pytest.approx([0.1] * (120 - ended))


def test_no_warm_up_unless_asked_for():
    tx = make(choose("constant", base=0.1))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, error=jnp.float32(1.0))
    assert float(optim.current_rate(state)) == pytest.approx(0.1)


def test_plateau_cuts_after_patience_evaluations_without_a_better_error():
    tx = make(choose("plateau", base=0.1, factor=0.1, patience=2))
    state, seen = tx.init(PARAMS), []
    for error in (0.9, 0.8, 0.8, 0.85, 0.7, 0.75, 0.72, 0.71, 0.71):
        state = optim.observe_error(state, error)
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
        seen.append(float(optim.current_rate(state)))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 1e-4])


def test_evaluations_do_not_move_other_schedules():
    tx = make(choose("constant", base=0.1))
    state = tx.init(PARAMS)
    for _ in range(5):
        state = optim.observe_error(state, 0.9)
    _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
    assert float(optim.current_rate(state)) == pytest.approx(0.1)


def test_filters_longer_than_the_radius_are_brought_back_to_it_and_no_others():
    kernel = jnp.stack([jnp.full((3, 3, 2), 0.15), jnp.full((3, 3, 2), -0.05)], axis=-1)
    params = {"conv": kernel, "dense": jnp.full((4, 4), 5.0)}
    sgd, tx = (make(choose("constant", base=0.1), max_filter_rms=rms) for rms in (0.0, 0.1))
    zeros, error = jax.tree.map(jnp.zeros_like, params), jnp.float32(1.0)  # weight decay alone moves
    updates, _ = tx.update(zeros, tx.init(params), params, error=error)
    alone, _ = sgd.update(zeros, sgd.init(params), params, error=error)
    moved = optax.apply_updates(params, updates)
    rms = np.sqrt(np.square(moved["conv"]).mean((0, 1, 2)))
    np.testing.assert_allclose(rms, [0.1, 0.05], rtol=1e-4)
    np.testing.assert_array_equal(updates["conv"][..., 1], alone["conv"][..., 1])
    np.testing.assert_array_equal(updates["dense"], alone["dense"])


def test_rmsprop_by_hand():
    """TensorFlow's: the mean square starts at 1, epsilon is inside the root, momentum after the rate."""
    rule = choose("rmsprop", weight_decay=0.0, momentum=0.9)
    tx = optim.make_optimizer(rule, choose("constant", base=0.1), total_steps=100)
    params = {"w": jnp.array([1.0, -2.0])}
    state, square, velocity, expected = tx.init(params), 1.0, 0.0, np.array([1.0, -2.0])
    for g in (np.array([0.5, 1.0]), np.array([-1.0, 3.0])):
        updates, state = tx.update({"w": jnp.asarray(g, jnp.float32)}, state, params, error=jnp.float32(1))
        params = optax.apply_updates(params, updates)
        square = 0.9 * square + 0.1 * g**2
        velocity = 0.9 * velocity - 0.1 * g / np.sqrt(square + 1.0)
        expected = expected + velocity
    np.testing.assert_allclose(params["w"], expected, rtol=1e-5)


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    tx = make(choose("constant", base=1.0), momentum=0.0, weight_decay=0.0, clip_norm=2.0)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    updates, _ = tx.update(
        {"a": jnp.array([6.0]), "b": jnp.array([8.0])}, tx.init(params), params, error=jnp.float32(1)
    )
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-1.2, -1.6], rtol=1e-6)
