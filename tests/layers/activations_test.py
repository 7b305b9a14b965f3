"""Activation functions against their formulas, and PReLU's parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.layers.activations import ACTIVATIONS, PRelu, activate

X = np.array([-3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0], np.float32)
FORMULAS = {
    "sigmoid": 1 / (1 + np.exp(-X)),
    "tanh": np.tanh(X),
    "scaled_tanh": 1.7159 * np.tanh(2 / 3 * X),
    "relu": np.maximum(X, 0),
    "leaky_relu": np.where(X > 0, X, 0.01 * X),
    "softsign": X / (1 + np.abs(X)),
}


def test_every_activation_has_a_formula_in_this_test():
    assert FORMULAS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_values(name):
    np.testing.assert_allclose(ACTIVATIONS[name](X), FORMULAS[name], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(activate(name, X), ACTIVATIONS[name](X))
    assert ACTIVATIONS[name](jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


def test_scaled_tanh_is_one_at_one():
    np.testing.assert_allclose(ACTIVATIONS["scaled_tanh"](jnp.float32(1)), 1, atol=1e-4)


def test_prelu_has_a_slope_for_each_channel():
    x = np.stack([X, X], axis=-1)
    y, variables = PRelu().init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(variables["params"]["slope"], [0.25, 0.25])
    np.testing.assert_allclose(y, np.where(x > 0, x, 0.25 * x), rtol=1e-6)
    y = PRelu().apply({"params": {"slope": jnp.array([0.5, -1.0])}}, x)
    np.testing.assert_allclose(y, np.where(x > 0, x, x * np.float32([0.5, -1])), rtol=1e-6)


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match="activation 'rellu': nearest: relu"):
        activate("rellu", jnp.asarray(X))
