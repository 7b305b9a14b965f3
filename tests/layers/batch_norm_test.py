"""Batch norm's accuracy far from zero, against float64: values, statistics and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import mesh
from cnn_jax.cpu import switch
from cnn_jax.errors import UserError
from cnn_jax.layers.batch_norm import BatchNorm, compute_moments, normalize

EPSILON = 1e-5
# {mean / standard deviation: measured error of PyTorch's float32 output}
PYTORCH = {0: 1e-6, 10: 1e-5, 100: 1e-4, 1_000: 2e-3, 10_000: 9e-3}


def batch(ratio, shape=(16, 6, 5, 3)):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * [0.5, 1, 2] + ratio * np.array([0.5, -1, 2])
    return x.astype(np.float32)


def by_hand(x, scale, bias, dy, group):
    """Returns Algorithm 1 and its gradient in float64: (y, mean, variance), (dx, dscale, dbias)."""
    x, dy = (np.asarray(a, np.float64) for a in (x, dy))
    y, dx = np.empty_like(x), np.empty_like(x)
    means, variances, dscale, dbias = [], [], 0, 0
    for first in range(0, len(x), group or len(x)):
        rows = slice(first, first + (group or len(x)))
        over = tuple(range(x.ndim - 1))
        mean, variance = x[rows].mean(over), x[rows].var(over)
        deviation = np.sqrt(variance + EPSILON)
        hat = (x[rows] - mean) / deviation
        y[rows] = hat * scale + bias
        through = dy[rows].mean(over) + hat * (dy[rows] * hat).mean(over)
        dx[rows] = scale / deviation * (dy[rows] - through)
        dscale, dbias = dscale + (dy[rows] * hat).sum(over), dbias + dy[rows].sum(over)
        means.append(mean)
        variances.append(variance)
    return (y, np.array(means), np.array(variances)), (dx, dscale, dbias)


def values_and_gradients(x, scale, bias, dy, group, axis=None):
    outputs, back = jax.vjp(lambda *a: normalize(*a, group, axis, EPSILON), x, scale, bias)
    return outputs, back((dy, jnp.zeros_like(outputs[1]), jnp.zeros_like(outputs[2])))


def assert_accurate(got, expected, ratio):
    """Checks for at most ten times PyTorch's error. Outputs are near 1, so errors are relative."""
    bound = 10 * PYTORCH[ratio]
    (y, mean, variance), (dx, dscale, dbias) = jax.tree.map(np.asarray, got)
    (y_, mean_, variance_), (dx_, dscale_, dbias_) = expected
    np.testing.assert_allclose(y, y_, rtol=0, atol=bound)
    np.testing.assert_allclose(mean, mean_, rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(variance, variance_, rtol=1e-5)
    np.testing.assert_allclose(dx, dx_, rtol=0, atol=bound * np.abs(dx_).max())
    np.testing.assert_allclose(dscale, dscale_, rtol=0, atol=bound * np.abs(dscale_).max())
    np.testing.assert_allclose(dbias, dbias_, rtol=0, atol=1e-5 * np.abs(dbias_).max())


def operands(ratio):
    scale, bias = np.array([1.5, 0.5, 1.0], np.float32), np.array([0.1, -0.2, 0.3], np.float32)
    dy = np.random.default_rng(1).standard_normal((16, 6, 5, 3)).astype(np.float32) + 0.5
    return batch(ratio), scale, bias, dy


@pytest.mark.parametrize("choice", ["cpu", "xla"])
@pytest.mark.parametrize("group", [0, 1, 4])
@pytest.mark.parametrize("ratio", PYTORCH)
def test_values_statistics_and_gradients_match_float64(ratio, group, choice):
    arguments = operands(ratio)
    with switch.use(choice):
        got = jax.jit(functools.partial(values_and_gradients, group=group))(*arguments)
    assert_accurate(got, by_hand(*arguments, group), ratio)


@pytest.mark.parametrize("group", [0, 2, 8])
@pytest.mark.parametrize("ratio", [0, 10_000])
def test_over_a_mesh_of_eight_devices(ratio, group):
    x, scale, bias, dy = operands(ratio)
    over = mesh.make_batch_mesh(jax.devices()[:8])
    split, whole = mesh.make_batch_sharding(over), mesh.make_replicated_sharding(over)
    run = jax.jit(
        functools.partial(values_and_gradients, group=group),
        in_shardings=(split, whole, whole, split),
    )
    arguments = (x, scale, bias, dy)
    assert_accurate(run(*arguments), by_hand(*arguments, group), ratio)
    # The shift comes from every image, so that no device sends its activations to another.
    assert group or "all-gather" not in run.lower(*arguments).compile().as_text()


@pytest.mark.parametrize("group", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("ratio", [0, 10, 10_000])
def test_under_pmap_of_eight_devices(ratio, group):
    x, scale, bias, dy = operands(ratio)
    # The devices' own means differ much from the group's.
    x = x + np.arange(8, dtype=np.float32).repeat(2)[:, None, None, None]
    run = functools.partial(values_and_gradients, group=group, axis="batch")

    def split(a):
        return a.reshape(8, 2, *a.shape[1:])

    (y, mean, variance), (dx, dscale, dbias) = jax.pmap(run, "batch", in_axes=(0, None, None, 0))(
        split(x), scale, bias, split(dy)
    )
    span = max(1, (group or 16) // 2)  # Devices of one group, each with its row.

    def rows(a):
        return np.asarray(a)[::span].reshape(-1, 3)

    joined = (y.reshape(x.shape), rows(mean), rows(variance))
    gradients = (dx.reshape(x.shape), dscale.sum(0), dbias.sum(0))
    assert_accurate((joined, gradients), by_hand(x, scale, bias, dy, group), ratio)


def test_central_pixels_far_from_the_mean_lose_little_accuracy():
    """The shift is taken from central pixels, here 1,000 standard deviations from the others."""
    x = batch(1_000)
    x[:, 3, 2] = 0
    moments = compute_moments(jnp.asarray(x), 0)
    exact = x.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(moments.variance[0], exact.var(0), rtol=1e-5)
    np.testing.assert_allclose(moments.mean[0], exact.mean(0), rtol=1e-6)


def test_rows_without_pixels_and_bfloat16_work():
    x = batch(100, (64, 3))
    moments = compute_moments(jnp.asarray(x), 32)
    exact = x.astype(np.float64).reshape(2, 32, 3)
    np.testing.assert_allclose(moments.variance, exact.var(1), rtol=1e-5)
    narrow = jnp.asarray(x, jnp.bfloat16)
    y, mean, _ = normalize(narrow, jnp.ones(3), jnp.zeros(3), 0, None, EPSILON)
    assert y.dtype == jnp.bfloat16 and mean.dtype == jnp.float32
    exact = np.asarray(narrow, np.float64)
    np.testing.assert_allclose(mean[0], exact.mean(0), rtol=1e-6)


def test_the_layer_in_training_and_in_evaluation():
    x = batch(10_000)
    norm = BatchNorm(group=4, momentum=0.0, epsilon=EPSILON)
    variables = norm.init(jax.random.key(0), x, train=True)
    y, moved = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    (expected, means, variances), _ = by_hand(x, np.ones(3), np.zeros(3), np.zeros_like(x), 4)
    np.testing.assert_allclose(y, expected, rtol=0, atol=10 * PYTORCH[10_000])
    values = 4 * 6 * 5
    unbiased = variances.mean(0) * values / (values - 1)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], means.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moved["batch_stats"]["var"], unbiased, rtol=1e-5)


def test_a_group_must_divide_the_batch():
    with pytest.raises(UserError, match="bn_group=3 does not divide a batch of 8"):
        compute_moments(jnp.ones((8, 2, 2, 1)), 3)


def test_batch_norm_by_hand():
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))
    norm = BatchNorm(group=2, momentum=0.9)
    variables = norm.init(jax.random.key(0), x, train=True)
    y, moved = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    groups = np.asarray(x).reshape(3, 2, 8, 8, 3)
    mean, var = groups.mean((1, 2, 3)), groups.var((1, 2, 3))
    expected = (groups - mean[:, None, None, None]) / np.sqrt(var[:, None, None, None] + 1e-5)
    np.testing.assert_allclose(y, expected.reshape(x.shape), atol=1e-4)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.1 * mean.mean(0), atol=1e-6)
    unbiased = var * 128 / 127  # Ioffe, Szegedy 2015, Algorithm 2: of 2 images of 8x8
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * unbiased.mean(0), rtol=1e-5)
    still = norm.apply({"params": variables["params"], **moved}, x, train=False)
    deviation = np.sqrt(0.9 + 0.1 * unbiased.mean(0) + 1e-5)
    expected = (x - 0.1 * mean.mean(0)[None, None, None]) / deviation[None, None, None]
    np.testing.assert_allclose(still, expected, atol=1e-4)
