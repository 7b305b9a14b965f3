"""Local response normalization. Krizhevsky, Sutskever, Hinton 2012, "ImageNet ...", Sec. 3.3."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.cpu.rewrites import raise_to_power


class LocalResponseNorm(nn.Module):
    """`apply_local_response_norm` with the paper's constants, as a layer.

    Attributes:
      towers: Number of groups of channels. Channels of different groups are not neighbors.
    """

    towers: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, ..., C] to the same shape."""
        return apply_local_response_norm(x, towers=self.towers)


def apply_local_response_norm(
    x: jax.Array,
    k: float = 2.0,
    n: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    towers: int = 1,
    caffe_alpha: bool = False,
) -> jax.Array:
    """Divides each value by (k + alpha * sum of squares over n neighboring channels)^beta.

    At the first and last channels the sum has fewer terms. Sums and powers are computed in float32
    at least. k, n, alpha and beta default to the paper's values.

    Args:
      x: Array [B, ..., C].
      k: Constant in the denominator.
      n: Number of neighboring channels, including the value's own. If it is even, one more of the
        later channels.
      alpha: Factor of the sum of squares.
      beta: Exponent of the denominator.
      towers: Number of groups of adjacent channels. Channels of different groups are not neighbors.
      caffe_alpha: Whether to divide alpha by n, as Caffe does, unlike the paper's formula.

    Returns:
      Array of x's shape and dtype.
    """
    wide = x.astype(jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
    split = wide.reshape(*x.shape[:-1], towers, -1)
    window, strides = (1,) * (split.ndim - 1) + (n,), (1,) * split.ndim
    padding = ((0, 0),) * (split.ndim - 1) + (((n - 1) // 2, n // 2),)
    zero = wide.dtype.type(0)
    sums = lax.reduce_window(jnp.square(split), zero, lax.add, window, strides, padding)
    denominator = k + (alpha / n if caffe_alpha else alpha) * sums
    return (split * raise_to_power(denominator, -beta)).reshape(x.shape).astype(x.dtype)
