"""Schedules and transformations against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.config import Optim
from cnn_jax.errors import UserError
from cnn_jax.optim import optimizers

PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])}
GRADS = {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])}


def rates(config, steps):
    schedule = optimizers.schedule(config)
    return [float(schedule(jnp.int32(step))) for step in steps]


def test_schedules_follow_their_formulas():
    assert rates(Optim(learning_rate=0.3, schedule="constant"), [0, 10**6]) == pytest.approx([0.3, 0.3])
    paper = Optim(learning_rate=0.1, schedule="step", boundaries=(32_000, 48_000), factor=0.1)
    steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
    assert rates(paper, steps) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    exponential = Optim(learning_rate=0.1, schedule="exponential", decay=0.05)
    assert rates(exponential, [0, 7, 40]) == pytest.approx([0.1 * np.exp(-0.05 * t) for t in (0, 7, 40)])
    inverse = Optim(learning_rate=0.1, schedule="inverse_time", decay=0.5)
    assert rates(inverse, [0, 1, 8]) == pytest.approx([0.1, 0.1 / 1.5, 0.1 / 5])


def test_an_unknown_schedule_is_told():
    with pytest.raises(UserError, match="nearest: exponential"):
        optimizers.schedule(Optim(schedule="exponental"))


@pytest.mark.parametrize("decay_all", [True, False])
def test_momentum_and_decay_by_hand(decay_all):
    """v := m v - lr (g + wd w); w := w + v, with the rate cut between two steps."""
    config = Optim(learning_rate=0.1, boundaries=(2,), momentum=0.9, weight_decay=0.01, decay_all=decay_all)
    tx = optimizers.transformation(config)
    state, params = tx.init(PARAMS), PARAMS
    w, v = {k: np.asarray(p) for k, p in PARAMS.items()}, {"kernel": 0.0, "bias": 0.0}
    for lr in (0.1, 0.1, 0.01, 0.01):
        updates, state = tx.update(GRADS, state, params, error=jnp.float32(0.5))
        params = jax.tree.map(jnp.add, params, updates)
        for k in w:
            decay = 0.01 if decay_all or k == "kernel" else 0.0
            v[k] = 0.9 * v[k] - lr * (np.asarray(GRADS[k]) + decay * w[k])
            w[k] = w[k] + v[k]
        assert float(optimizers.current_rate(state)) == pytest.approx(lr)
    for k in w:
        np.testing.assert_allclose(params[k], w[k], rtol=1e-5)


def test_warm_up_holds_until_the_training_error_is_low_and_never_comes_back():
    tx = optimizers.transformation(
        Optim(learning_rate=0.1, schedule="constant", warmup_error=0.8, warmup_learning_rate=0.01)
    )
    state, mean, seen = tx.init(PARAMS), 1.0, []
    errors = [0.9] * 30 + [0.3] * 30 + [0.95] * 60
    for error in errors:
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(error))
        seen.append(float(optimizers.current_rate(state)))
    ended = 0
    while (mean := 0.98 * mean + 0.02 * errors[ended]) >= 0.8:
        ended += 1
    assert 30 < ended < 60
    assert seen[:ended] == pytest.approx([0.01] * ended) and seen[ended:] == pytest.approx([0.1] * (120 - ended))


def test_no_warm_up_unless_asked_for():
    tx = optimizers.transformation(Optim(learning_rate=0.1, schedule="constant"))
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, error=jnp.float32(1.0))
    assert float(optimizers.current_rate(state)) == pytest.approx(0.1)


def test_plateau_cuts_after_patience_evaluations_without_a_better_error():
    tx = optimizers.transformation(Optim(learning_rate=0.1, schedule="plateau", factor=0.1, patience=2))
    state, seen = tx.init(PARAMS), []
    for error in (0.9, 0.8, 0.8, 0.85, 0.7, 0.75, 0.72, 0.71, 0.71):
        state = optimizers.observe(state, error)
        _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
        seen.append(float(optimizers.current_rate(state)))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 1e-4])


def test_evaluations_do_not_move_other_schedules():
    tx = optimizers.transformation(Optim(learning_rate=0.1, schedule="constant", patience=1))
    state = tx.init(PARAMS)
    for _ in range(5):
        state = optimizers.observe(state, 0.9)
    _, state = tx.update(GRADS, state, PARAMS, error=jnp.float32(0.5))
    assert float(optimizers.current_rate(state)) == pytest.approx(0.1)


def test_filters_longer_than_the_radius_are_brought_back_to_it_and_no_others():
    kernel = jnp.stack([jnp.full((3, 3, 2), 0.15), jnp.full((3, 3, 2), -0.05)], axis=-1)
    params = {"conv": kernel, "dense": jnp.full((4, 4), 5.0)}
    sgd, tx = (
        optimizers.transformation(Optim(learning_rate=0.1, schedule="constant", filter_rms=rms)) for rms in (0.0, 0.1)
    )
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
    config = Optim(rule="rmsprop", learning_rate=0.1, schedule="constant", weight_decay=0.0, momentum=0.9)
    tx, params = optimizers.transformation(config), {"w": jnp.array([1.0, -2.0])}
    state, square, velocity, expected = tx.init(params), 1.0, 0.0, np.array([1.0, -2.0])
    for g in (np.array([0.5, 1.0]), np.array([-1.0, 3.0])):
        updates, state = tx.update({"w": jnp.asarray(g, jnp.float32)}, state, params, error=jnp.float32(1))
        params = optax.apply_updates(params, updates)
        square = 0.9 * square + 0.1 * g**2
        velocity = 0.9 * velocity - 0.1 * g / np.sqrt(square + 1.0)
        expected = expected + velocity
    np.testing.assert_allclose(params["w"], expected, rtol=1e-5)


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    config = Optim(learning_rate=1.0, schedule="constant", momentum=0.0, weight_decay=0.0, clip=2.0)
    tx, params = optimizers.transformation(config), {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    updates, _ = tx.update(
        {"a": jnp.array([6.0]), "b": jnp.array([8.0])}, tx.init(params), params, error=jnp.float32(1)
    )
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-1.2, -1.6], rtol=1e-6)
