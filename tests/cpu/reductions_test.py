"""Channel sums and the bias against XLA's own; batch norm's gradient against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.cpu.reductions import add_bias, sum_per_channel
from cnn_jax.layers.batch_norm import compute_moments, normalize


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("choice", ["cpu", "xla"])
@pytest.mark.parametrize("rows", [1, 7, 12, 64])  # Chunks of 1, 1, 4 and 8.
def test_channel_sums(rows, choice, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setenv("CNN_JAX_ROUTES", choice)
    a, b = random(3, rows, 5), random(3, rows, 5) + 1
    for got, x in zip(jax.jit(sum_per_channel)(a, b), (a, b), strict=True):
        np.testing.assert_allclose(got, x.sum(1, dtype=np.float64), atol=1e-5)


@pytest.mark.parametrize(
    "dtype, choice", [(jnp.float32, "cpu"), (jnp.bfloat16, "cpu"), (jnp.float32, "xla")]
)
def test_a_bias_and_its_gradient(dtype, choice, monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", choice)
    x, bias, dy = (
        jnp.asarray(a, dtype) for a in (random(8, 5, 6, 3), random(3), random(8, 5, 6, 3))
    )
    y, back = jax.vjp(add_bias, x, bias)
    dx, dbias = back(dy)
    assert {y.dtype, dx.dtype, dbias.dtype} == {jnp.dtype(dtype)}
    np.testing.assert_array_equal(y, x + bias[None, None, None])
    np.testing.assert_array_equal(dx, dy)
    exact = np.asarray(dy, np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(
        np.asarray(dbias, np.float64), exact, rtol=2.0 ** (-8 if dtype == jnp.bfloat16 else -18)
    )


@pytest.mark.parametrize("group", [0, 2, 8])
def test_batch_norm_s_gradient_matches_autodiff(group):
    x, scale, bias, dy = random(8, 3, 5, 4) * 2 + 1, random(4) + 2, random(4), random(8, 3, 5, 4)

    def plain(x, scale, bias):
        groups = x.reshape(8 // (group or 8), -1, 4)
        mean, var = groups.mean(1, keepdims=True), groups.var(1, keepdims=True)
        y = (groups - mean) / jnp.sqrt(var + 1e-3) * scale[None, None] + bias[None, None]
        return y.reshape(x.shape)

    def ours(*args):
        return normalize(*args, group, None, 1e-3)

    y, back = jax.vjp(ours, x, scale, bias)
    want, back_want = jax.vjp(plain, x, scale, bias)
    np.testing.assert_allclose(y[0], want, atol=1e-5)
    moments = compute_moments(x, group)
    for got, expected in zip(y[1:], (moments.mean, moments.variance), strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(
        back((dy, *map(jnp.ones_like, y[1:]))), back_want(jnp.asarray(dy)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)
