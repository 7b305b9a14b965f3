"""Max pooling for a CPU, by elementwise maxima; the backward pass finds each maximum once."""

import functools

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: int, stride: int, padding: Pads) -> jax.Array:
    """Takes the maximum of each window. It is differentiable in reverse mode only.

    Of equal maxima the first in row-major order gets the gradient, as in XLA.

    Args:
      x: Feature maps [B, H, W, C].
      window: Side of the square window, in pixels.
      stride: Distance between windows, in pixels.
      padding: Pixels of minus infinity (before, after) for H and for W.

    Returns:
      Feature maps [B, H', W', C].
    """
    return functools.reduce(jnp.maximum, _list_taps(x, window, stride, padding, -jnp.inf))


def _max_pool_forward(
    x: jax.Array, window: int, stride: int, padding: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_backward(
    window: int, stride: int, padding: Pads, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array]:
    # XLA's own gradient searches the maxima again together with their positions, which takes five
    # arrays, and then scatters.
    x, y = saved
    taps = _list_taps(x, window, stride, padding, -jnp.inf)
    first = jnp.full(y.shape, len(taps), jnp.int16)  # the first tap that equals the maximum
    for i in reversed(range(len(taps))):
        first = jnp.where(taps[i] == y, jnp.int16(i), first)
    first = jax.lax.optimization_barrier(first)
    # At least float32, because several windows are summed into one pixel.
    dy = dy.astype(jnp.float32 if dy.dtype.itemsize < 4 else dy.dtype)
    parts = [jnp.where(first == i, dy, jnp.zeros((), dy.dtype)) for i in range(len(taps))]
    (dx,) = jax.linear_transpose(
        lambda x: _list_taps(x, window, stride, padding, 0.0),
        jax.ShapeDtypeStruct(x.shape, dy.dtype),
    )(parts)
    # Without the barrier each operation that reads dx would sum the windows again.
    return (jax.lax.optimization_barrier(dx.astype(x.dtype)),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _list_taps(
    x: jax.Array, window: int, stride: int, padding: Pads, outside: float
) -> list[jax.Array]:
    """Returns the input at each position of the window: window^2 arrays [B, H', W', C]."""
    x = jax.lax.pad(
        x,
        jnp.asarray(outside, x.dtype),
        ((0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)),
    )
    rows, columns = x.shape[1] - window + 1, x.shape[2] - window + 1
    return [
        x[:, i : i + rows : stride, j : j + columns : stride]
        for i in range(window)
        for j in range(window)
    ]
