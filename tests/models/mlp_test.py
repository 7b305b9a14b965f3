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
