"""Activation functions: ACTIVATIONS by name, and PReLU, which has a parameter."""

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
      layer: The name of the layer, if it is PReLU.

    Raises:
      UserError: if there is no such activation.
    """
    if name == PRELU:
        return PRelu(name=layer)(x)
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r}: {nearest(name, ACTIVATION_NAMES)}")
    return ACTIVATIONS[name](x)
