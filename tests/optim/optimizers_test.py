"""Schedules and transformations against their formulas."""

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
    """A run's transformation: SGD with these options."""
    return optim.make_optimizer(
        choose("sgd", **options), schedule or choose("constant"), total_steps=100
    )


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


def test_rmsprop_by_hand():
    """TensorFlow's: the mean square starts at 1, epsilon is inside the root, momentum after the
    rate.
    """
    rule = choose("rmsprop", weight_decay=0.0, momentum=0.9)
    tx = optim.make_optimizer(rule, choose("constant", base=0.1), total_steps=100)
    params = {"w": jnp.array([1.0, -2.0])}
    state, square, velocity, expected = tx.init(params), 1.0, 0.0, np.array([1.0, -2.0])
    for g in (np.array([0.5, 1.0]), np.array([-1.0, 3.0])):
        updates, state = tx.update(
            {"w": jnp.asarray(g, jnp.float32)}, state, params, error=jnp.float32(1)
        )
        params = optax.apply_updates(params, updates)
        square = 0.9 * square + 0.1 * g**2
        velocity = 0.9 * velocity - 0.1 * g / np.sqrt(square + 1.0)
        expected = expected + velocity
    np.testing.assert_allclose(params["w"], expected, rtol=1e-5)


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    tx = make(choose("constant", base=1.0), momentum=0.0, weight_decay=0.0, clip_norm=2.0)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    updates, _ = tx.update(
        {"a": jnp.array([6.0]), "b": jnp.array([8.0])},
        tx.init(params),
        params,
        error=jnp.float32(1),
    )
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-1.2, -1.6], rtol=1e-6)


def test_adamw_by_hand():
    """w := w - lr (m^ / (sqrt(v^) + eps) + wd w), of biases without the decay."""
    rule = choose("adamw", beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1)
    tx = optim.make_optimizer(rule, choose("constant", base=0.05), total_steps=100)
    state, params = tx.init(PARAMS), PARAMS
    w = {k: np.asarray(p, np.float64) for k, p in PARAMS.items()}
    m, v = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0)
    for t in (1, 2, 3):
        updates, state = tx.update(GRADS, state, params, error=jnp.float32(0.5))
        params = optax.apply_updates(params, updates)
        for k, g in GRADS.items():
            g = np.asarray(g, np.float64)
            m[k], v[k] = 0.8 * m[k] + 0.2 * g, 0.9 * v[k] + 0.1 * g**2
            step = m[k] / (1 - 0.8**t) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-3)
            w[k] = w[k] - 0.05 * (step + (0.1 * w[k] if k == "kernel" else 0.0))
    for k in w:
        np.testing.assert_allclose(params[k], w[k], rtol=1e-5)


def test_adadelta_by_hand():
    """Zeiler 2012, Algorithm 1, with a rate."""
    rule = choose("adadelta", decay=0.95, epsilon=1e-6)
    tx = optim.make_optimizer(rule, choose("constant", base=0.5), total_steps=100)
    params = {"w": jnp.array([1.0, -2.0])}
    state, expected = tx.init(params), np.array([1.0, -2.0])
    square, moved = np.zeros(2), np.zeros(2)
    for g in (np.array([0.5, 1.0]), np.array([-1.0, 3.0]), np.array([0.1, 0.2])):
        updates, state = tx.update(
            {"w": jnp.asarray(g, jnp.float32)}, state, params, error=jnp.float32(1)
        )
        params = optax.apply_updates(params, updates)
        square = 0.95 * square + 0.05 * g**2
        delta = np.sqrt(moved + 1e-6) / np.sqrt(square + 1e-6) * g
        moved = 0.95 * moved + 0.05 * delta**2
        expected = expected - 0.5 * delta
    np.testing.assert_allclose(params["w"], expected, rtol=1e-6)
