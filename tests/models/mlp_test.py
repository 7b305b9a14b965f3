"""The perceptron and the MLP on logic gates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)


GATES = {
    "and": [0, 0, 0, 1],
    "or": [0, 1, 1, 1],
    "not the first": [1, 1, 0, 0],
    "xor": [0, 1, 1, 0],
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", ["perceptron", "mlp"])
def test_a_perceptron_learns_and_or_and_not_and_two_layers_also_xor(name, gate):
    """Rosenblatt's perceptron is linear, and no line separates XOR's classes."""
    model = models.create(
        name, 2, **({"hidden": (8,), "activation": "tanh"} if name == "mlp" else {})
    )
    images, labels = jnp.asarray(INPUTS).reshape(4, 1, 2, 1), jnp.asarray(GATES[gate])
    params, stats = model.init(jax.random.key(1), images)

    def loss(params):
        log = jax.nn.log_softmax(model.apply(params, stats, images)[0])
        return -jnp.take_along_axis(log, labels[:, None], 1).mean()

    def descend(params, _):
        return (
            jax.tree.map(lambda p, g: p - 1.0 * g, params, jax.grad(loss)(params)),
            None,
        )

    params = jax.jit(lambda p: jax.lax.scan(descend, p, length=500)[0])(params)
    right = int((jnp.argmax(model.apply(params, stats, images)[0], -1) == labels).sum())
    assert right == 4 if (name, gate) != ("perceptron", "xor") else right < 4


def test_dropped_pixels_leave_the_masks_of_hidden_layers_as_they_are():
    """A share of the pixels is 0 in training and the others are scaled up; in a test none is."""
    images = jnp.ones((400, 5, 1, 1))
    plain = models.create("mlp", 2, hidden=(3,), dropout=0.5)
    dropped = models.create("mlp", 2, hidden=(3,), dropout=0.5, input_dropout=0.2)
    params, stats = plain.init(jax.random.key(0), images)
    # Each hidden unit is its pixel, which shows what becomes of it; the logits are the units.
    eye = {"kernel": jnp.eye(5, 3), "bias": jnp.zeros(3)}
    params = params | {"Dense_0": eye, "Dense_1": {"kernel": jnp.eye(3, 2), "bias": jnp.zeros(2)}}
    key = jax.random.key(1)
    hidden, _ = plain.apply(params, stats, images, train=True, key=key)
    both, _ = dropped.apply(params, stats, images, train=True, key=key)
    assert set(np.unique(hidden)) == {0.0, 2.0}
    np.testing.assert_allclose(np.unique(both), [0.0, 2.5])
    assert not np.any((np.asarray(hidden) == 0) & (np.asarray(both) > 0))
    kept = np.asarray(both)[np.asarray(hidden) > 0] > 0
    assert 0.75 < kept.mean() < 0.85
    np.testing.assert_array_equal(dropped.apply(params, stats, images)[0], images[:, :2, 0, 0])
