"""Activation functions.

Models call `relu(x)` or `activate(name, x)`, which apply a function as a flax module. This lets
`nn.intercept_methods` see the inputs and outputs of every activation.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError, suggest_names


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Computes 1.7159 tanh(2x / 3), which is +-1 at +-1.

    Source: LeCun, Bottou, Bengio, Haffner 1998, App. A.
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def leaky_relu(x: jax.Array) -> jax.Array:
    """Returns x where it is positive, else 0.01 x. Source: Maas, Hannun, Ng 2013, Sec. 2."""
    return nn.leaky_relu(x, 0.01)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "scaled_tanh": scaled_tanh,
    "relu": nn.relu,
    "leaky_relu": leaky_relu,
    "softsign": nn.soft_sign,  # x / (1 + |x|): Glorot, Bengio 2010, Sec. 2
}
PRELU = "prelu"
ACTIVATION_NAMES = (*ACTIVATIONS, PRELU)
# Activations that are (nearly) zero for half of their inputs: He's initializer is for these.
RECTIFIERS = ("relu", "leaky_relu", PRELU)


class Activation(nn.Module):
    """Applies a function to each value.

    Attributes:
      function: Maps an array [...] to one of the same shape.
    """

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [...] to the same shape."""
        return self.function(x)

    def slope(self, x: jax.Array) -> jax.Array:
        """Returns the function's derivative at each value of x, in the shape of x."""
        return jax.jvp(self.function, (x,), (jnp.ones_like(x),))[1]


def relu(x: jax.Array, name: str | None = None) -> jax.Array:
    """Applies ReLU; call it inside a flax module's compact method.

    Args:
      x: Array [...].
      name: Name of the flax module; None: flax chooses it.
    """
    return Activation(nn.relu, name=name)(x)


class PRelu(nn.Module):
    """Parametric ReLU: x where it is positive, else a x, with one trained a per channel.

    Source: He et al. 2015 (arXiv:1502.01852), Sec. 2.1: a starts at 0.25, without weight decay.

    Attributes:
      initial_slope: Initial value of a.
    """

    initial_slope: float = 0.25

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to the same shape."""
        init = nn.initializers.constant(self.initial_slope)
        slope = self.param("slope", init, (x.shape[-1],)).astype(x.dtype)
        slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x > 0, x, slope * x)


def activate(name: str, x: jax.Array, layer: str | None = None) -> jax.Array:
    """Applies the named activation; call it inside a flax module's compact method.

    Args:
      name: One of ACTIVATION_NAMES.
      x: Array [..., C].
      layer: Name of the flax module; None: flax chooses it.

    Returns:
      Array of x's shape.

    Raises:
      UserError: If there is no such activation.
    """
    if name == PRELU:
        return PRelu(name=layer)(x)
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r}: {suggest_names(name, ACTIVATION_NAMES)}")
    return Activation(ACTIVATIONS[name], name=layer)(x)
