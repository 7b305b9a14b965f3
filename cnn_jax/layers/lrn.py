"""Local response normalisation. Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification", Sec. 3.3."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class LocalResponseNorm(nn.Module):
    """`local_response_norm` with the paper's constants, as a layer; towers: neighbours are of one."""

    towers: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, ..., C] to the same."""
        return local_response_norm(x, towers=self.towers)


def local_response_norm(
    x: jax.Array,
    k: float = 2.0,
    n: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    towers: int = 1,
    caffe_alpha: bool = False,
) -> jax.Array:
    """b = a / (k + alpha * sum of a^2 over n neighbouring channels)^beta of [B, ..., C]; no channels beyond the ends.

    towers: neighbours are of one tower, the channels lying tower by tower. caffe_alpha: alpha is divided by n, as
    Caffe's layer does and the paper's formula does not. Sums and powers are float32 at least.
    """
    wide = x.astype(jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
    split = wide.reshape(*x.shape[:-1], towers, -1)
    window, strides = (1,) * (split.ndim - 1) + (n,), (1,) * split.ndim
    padding = ((0, 0),) * (split.ndim - 1) + (((n - 1) // 2, n // 2),)
    sums = lax.reduce_window(jnp.square(split), wide.dtype.type(0), lax.add, window, strides, padding)
    denominator = k + (alpha / n if caffe_alpha else alpha) * sums
    return (split * _power(denominator, -beta)).reshape(x.shape).astype(x.dtype)


def _power(x: jax.Array, exponent: float) -> jax.Array:
    if exponent == -0.75:  # the papers': two roots take a fraction of a general power's time
        root = lax.rsqrt(x)
        return root * jnp.sqrt(root)
    return x**exponent
