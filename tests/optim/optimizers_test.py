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
        assert float(optim.read_current_rate(state)) == pytest.approx(lr)
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


def steps_of(tx, gradients, params=PARAMS):
    """The parameters after an update with each of the gradients."""
    state, found = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params, error=jnp.float32(0.5))
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found


def test_nesterov_takes_the_gradient_where_momentum_leads():
    """Sutskever et al. 2013, eqs. 3 and 4: v := m v - lr f'(t + m v); t := t + v.

    Our parameters are t + m v; those of a quadratic's minimization are compared after each step.
    """
    m, lr, curvature = 0.9, 0.05, np.array([1.0, 4.0])
    tx = make(choose("constant", base=lr), momentum=m, nesterov=True, weight_decay=0.0)
    params = {"w": jnp.array([1.0, -2.0])}
    state, theta, v = tx.init(params), np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(5):
        gradient = {"w": params["w"] * jnp.asarray(curvature, jnp.float32)}
        updates, state = tx.update(gradient, state, params, error=jnp.float32(1))
        params = optax.apply_updates(params, updates)
        v = m * v - lr * curvature * (theta + m * v)
        theta = theta + v
        np.testing.assert_allclose(params["w"], theta + m * v, rtol=1e-5)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(UserError, match=r"nesterov=true: needs optimizer.momentum above 0"):
        make(momentum=0.0, nesterov=True)


def test_adam_by_hand():
    """Kingma, Ba 2015, Algorithm 1, the L2 penalty's gradient being part of the gradient."""
    rule = choose("adam", beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1)
    tx = optim.make_optimizer(rule, choose("constant", base=0.05), total_steps=100)
    w = {k: np.asarray(p, np.float64) for k, p in PARAMS.items()}
    m, v = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0)
    for t, params in enumerate(steps_of(tx, [GRADS] * 3), start=1):
        for k in w:
            g = np.asarray(GRADS[k], np.float64) + 0.1 * w[k]
            m[k], v[k] = 0.8 * m[k] + 0.2 * g, 0.9 * v[k] + 0.1 * g**2
            w[k] = w[k] - 0.05 * m[k] / (1 - 0.8**t) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-3)
            np.testing.assert_allclose(params[k], w[k], rtol=1e-5)


def test_adadelta_by_hand():
    """Zeiler 2012, Algorithm 1: updates of a root mean square that the last ones set."""
    tx = optim.make_optimizer(
        choose("adadelta", decay=0.9, epsilon=1e-3), choose("constant", base=1.0), total_steps=100
    )
    w = np.array([1.0, -2.0])
    squares = updates = np.zeros(2)
    gradients = [np.array([0.5, 1.0]), np.array([-1.0, 3.0]), np.array([0.2, 0.1])]
    found = steps_of(
        tx, [{"w": jnp.asarray(g, jnp.float32)} for g in gradients], {"w": jnp.array(w, "float32")}
    )
    for g, params in zip(gradients, found, strict=True):
        squares = 0.9 * squares + 0.1 * g**2
        change = -np.sqrt(updates + 1e-3) / np.sqrt(squares + 1e-3) * g
        updates = 0.9 * updates + 0.1 * change**2
        w = w + change
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


@pytest.mark.parametrize("decay_biases", [True, False])
@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adadelta"])
def test_penalties_are_those_that_a_loss_would_have(name, decay_biases):
    """JAX's gradient of loss + l2 / 2 sum w^2 + l1 sum |w|, without penalties, gives the same."""
    l2, l1 = 0.3, 0.2
    constant = choose("constant", base=0.1)

    def loss(w):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in w.values())

    def penalized(w):
        own = [leaf for leaf in w.values() if decay_biases or leaf.ndim > 1]
        terms = [l2 / 2 * jnp.sum(leaf**2) + l1 * jnp.sum(jnp.abs(leaf)) for leaf in own]
        return loss(w) + sum(terms)

    def train(tx, objective):
        w, state = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            updates, state = tx.update(jax.grad(objective)(w), state, w, error=jnp.float32(1))
            w = optax.apply_updates(w, updates)
        return w

    penalties = choose(name, weight_decay=l2, l1=l1, decay_biases=decay_biases)
    ours = train(optim.make_optimizer(penalties, constant, 100), loss)
    plain = optim.make_optimizer(choose(name, weight_decay=0.0), constant, 100)
    expected = train(plain, penalized)
    for key in PARAMS:
        np.testing.assert_allclose(ours[key], expected[key], rtol=1e-5)


def test_the_l1_penalty_leaves_a_weight_of_0_where_it_is():
    tx = make(choose("constant", base=0.1), momentum=0.0, weight_decay=0.0, l1=0.5)
    params = {"w": jnp.array([0.0, 2.0, -2.0])}
    (found,) = steps_of(tx, [{"w": jnp.zeros(3)}], params)
    np.testing.assert_allclose(found["w"], [0.0, 1.95, -1.95], rtol=1e-6)


def test_the_optimizer_s_state_is_what_checkpoints_have_had():
    """Without an L1 penalty: a run that was started before there was one can be continued."""
    for decay_biases in (True, False):
        kinds = [
            type(s).__name__
            for s in jax.tree.leaves(
                make(decay_biases=decay_biases).init(PARAMS),
                is_leaf=lambda s: hasattr(s, "_asdict"),
            )
        ]
        decay = "EmptyState" if decay_biases else "MaskedState"
        assert kinds == ["EmptyState", decay, "RateState", "TraceState", "EmptyState"]
