"""Activation functions: ACTIVATIONS by name, and PReLU, which has a parameter.

Models apply them as modules without parameters, `relu(x)` or `activate(name, x)`, so that
`nn.intercept_methods` sees the values that go into each of them and come out of it.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError, nearest


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x / 3), which is +-1 at +-1.

    Source: LeCun, Bottou, Bengio, Haffner 1998, App. A.
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def leaky_relu(x: jax.Array) -> jax.Array:
    """X where it is positive, else 0.01 x. Source: Maas, Hannun, Ng 2013, Sec. 2."""
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
# Those that are (nearly) half off, for which He's initializer is derived.
RECTIFIERS = ("relu", "leaky_relu", PRELU)


class Activation(nn.Module):
    """A function of each value.

    Attributes:
      function: [...] to the same.
    """

    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[...] to the same."""
        return self.function(x)

    def slope(self, x: jax.Array) -> jax.Array:
        """The function's derivative at x, [...] to the same."""
        return jax.jvp(self.function, (x,), (jnp.ones_like(x),))[1]


def relu(x: jax.Array, name: str | None = None) -> jax.Array:
    """Applies ReLU; call it inside a flax module's compact method."""
    return Activation(nn.relu, name=name)(x)


class PRelu(nn.Module):
    """x where it is positive, else a x with a trained coefficient a for each channel.

    Source: He et al. 2015 (arXiv:1502.01852), Sec. 2.1: a starts at 0.25, without weight decay.

    Attributes:
      initial_slope: The first value of a.
    """

    initial_slope: float = 0.25

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] to the same."""
        init = nn.initializers.constant(self.initial_slope)
        slope = self.param("slope", init, (x.shape[-1],)).astype(x.dtype)
        slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x > 0, x, slope * x)


def activate(name: str, x: jax.Array, layer: str | None = None) -> jax.Array:
    """Applies the named activation; call it inside a flax module's compact method.

    Args:
      name: One of ACTIVATION_NAMES.
      x: [..., C].
      layer: The name of the layer.

    Raises:
      UserError: if there is no such activation.
    """
    if name == PRELU:
        return PRelu(name=layer)(x)
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r}: {nearest(name, ACTIVATION_NAMES)}")
    return Activation(ACTIVATIONS[name], name=layer)(x)
