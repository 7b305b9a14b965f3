"""Local response normalization against its formula."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from cnn_jax.layers.lrn import apply_local_response_norm


@pytest.mark.parametrize(
    "n, towers, caffe_alpha", [(5, 1, False), (5, 2, False), (4, 1, False), (3, 1, True)]
)
def test_lrn_follows_its_formula(n, towers, caffe_alpha):
    k, alpha, beta = 2.0, 0.5, 0.75
    x = np.asarray(jax.random.normal(jax.random.key(3), (2, 3, 2, 8)))
    expected, width = np.zeros_like(x), 8 // towers
    for c in range(8):
        first = c // width * width
        neighbours = range(max(first, c - (n - 1) // 2), min(first + width, c + n // 2 + 1))
        total = sum(x[..., j] ** 2 for j in neighbours)
        expected[..., c] = x[..., c] / (k + (alpha / n if caffe_alpha else alpha) * total) ** beta
    norm = functools.partial(
        apply_local_response_norm, k=k, n=n, alpha=alpha, towers=towers, caffe_alpha=caffe_alpha
    )
    np.testing.assert_allclose(norm(x, beta=beta), expected, rtol=1e-5)
    # Without the two roots.
    np.testing.assert_allclose(norm(x, beta=0.7500001), expected, rtol=1e-5)


def test_lrn_s_gradient_matches_finite_differences():
    x = jax.random.normal(jax.random.key(4), (1, 2, 2, 7))

    def value(x):
        return jnp.sum(jnp.sin(apply_local_response_norm(x, alpha=0.5)))

    jax.test_util.check_grads(value, (x,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_lrn_keeps_bfloat16():
    assert apply_local_response_norm(jnp.ones((1, 2, 2, 8), jnp.bfloat16)).dtype == jnp.bfloat16
