"""Pooling against plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import pooling


def random(*shape):
    return jax.random.normal(jax.random.key(1), shape)


def test_subsampling_by_hand():
    x = jnp.arange(20.0).reshape(1, 2, 5, 2)  # The odd last column is ignored.
    params = {"coefficient": jnp.array([2.0, 3.0]), "bias": jnp.array([0.5, -1.0])}
    y = pooling.Subsampling().apply({"params": params}, x)
    # Channel 0 holds 0 2 4 6 8 | 10 12 14 16 18, channel 1 each plus one.
    np.testing.assert_allclose(y[0, 0], [[2 * 24 + 0.5, 3 * 28 - 1], [2 * 40 + 0.5, 3 * 44 - 1]])


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7])
def test_ceil_pooling_equals_a_loop(size):
    x = np.asarray(jax.random.normal(jax.random.key(5), (1, size, size, 1)))
    count = -(-(size - 3) // 2) + 1
    slices = [slice(2 * i, 2 * i + 3) for i in range(count)]
    expected = [[x[0, rows, columns, 0].max() for columns in slices] for rows in slices]
    np.testing.assert_array_equal(pooling.max_pool_ceil(x, 3, 2)[0, :, :, 0], expected)


@pytest.mark.parametrize(
    "size, window, stride", [(7, 3, 2), (8, 3, 2), (2, 3, 2), (5, 2, 2), (1, 2, 2), (9, 3, 3)]
)
def test_ceil_pooling_by_loop(size, window, stride):
    x = np.asarray(random(2, size, size + 1, 3)) - 5.0  # Below zero: padding must not win.
    y = np.asarray(pooling.max_pool_ceil(jnp.asarray(x), window, stride))
    height, width = (math.ceil((n - window) / stride) + 1 for n in x.shape[1:3])
    assert y.shape == (2, height, width, 3)
    for i in range(height):
        for j in range(width):
            top, left = i * stride, j * stride
            expected = x[:, top : top + window, left : left + window].max((1, 2))
            np.testing.assert_array_equal(y[:, i, j], expected)


@pytest.mark.parametrize("counted", [False, True])
def test_average_pooling_by_loop(counted):
    x = np.asarray(random(1, 4, 5, 2))
    y = np.asarray(pooling.avg_pool(jnp.asarray(x), 3, padding="SAME", count_padding=counted))
    for i in range(4):
        for j in range(5):
            seen = x[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            pixels = 9 if counted else seen.shape[1] * seen.shape[2]
            np.testing.assert_allclose(y[:, i, j], seen.sum((1, 2)) / pixels, atol=1e-6)
