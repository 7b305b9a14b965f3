"""Gradients against the rules derived by hand, written here in NumPy, and against finite
differences, in float64.

With delta the loss's gradient with respect to a layer's output: of a convolution with w, its
input's is the full correlation of delta with w turned by 180 degrees, its weights' the correlation
of the input with delta, its bias's the sum of delta; max pooling hands delta to the maximum;
trainable subsampling's coefficient gets delta times the sums. (LeCun, Bottou, Bengio, Haffner 1998,
Sec. II; Dumoulin, Visin 2016 for strides.) No rule here is an autodiff's.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import spatial
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.lrn import apply_local_response_norm
from cnn_jax.layers.pooling import Subsampling, max_pool_ceil


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def close(got, expected):
    assert got.shape == expected.shape and got.dtype == jnp.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11 * max(1.0, np.abs(expected).max()))


def check(function, arguments, delta, value, gradients):
    """Compares a layer's value and gradients with those by hand, and with finite differences."""

    @jax.jit
    def run(*arguments):
        y, back = jax.vjp(function, *arguments)
        return y, back(jnp.asarray(delta))

    for got, by_hand in zip(jax.tree.leaves(run(*arguments)), (value, *gradients), strict=True):
        close(got, by_hand)
    directions = [random(*a.shape) for a in arguments]

    def moved(by):
        return np.asarray(run(*(a + by * d for a, d in zip(arguments, directions, strict=True)))[0])

    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert (delta * (moved(1e-5) - moved(-1e-5))).sum() / 2e-5 == pytest.approx(
        slope, rel=1e-7, abs=1e-7
    )


# Convolution


def correlation(x, w):
    """Correlates [N, H, W, C] with [h, w, C, O] without padding: [N, H - h + 1, W - w + 1, O]."""
    seen = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], (1, 2))  # [N, H', W', C, h, w]
    return np.tensordot(seen, w, ((4, 5, 3), (0, 1, 2)))


def rot180(w):
    """Rotates the kernel by 180 degrees and swaps its channels: [h, w, O, C]."""
    return w[::-1, ::-1].swapaxes(2, 3)


def padded(x, pads):
    return np.pad(x, ((0, 0), *pads, (0, 0)))


def insert_zeros(delta, stride, size):
    """Inserts stride - 1 zeros between delta's pixels, and pads with zeros up to `size`."""
    wide = np.zeros((delta.shape[0], *size, delta.shape[3]))
    wide[:, : delta.shape[1] * stride : stride, : delta.shape[2] * stride : stride] = delta
    return wide


def convolution_by_hand(x, w, bias, delta, stride, pads):
    """Returns the output and the gradients of input, weights and bias."""
    x = padded(x, pads)
    wide = insert_zeros(
        delta, stride, [n - k + 1 for n, k in zip(x.shape[1:3], w.shape[:2], strict=True)]
    )
    full = correlation(padded(wide, [(k - 1, k - 1) for k in w.shape[:2]]), rot180(w))
    inside = [
        slice(before, n - after) for (before, after), n in zip(pads, x.shape[1:3], strict=True)
    ]
    dw = correlation(x.transpose(3, 1, 2, 0), wide.transpose(1, 2, 0, 3)).transpose(1, 2, 0, 3)
    output = correlation(x, w)[:, ::stride, ::stride] + bias
    return output, full[:, inside[0], inside[1]], dw, delta.sum((0, 1, 2))


# Input, kernel, output channels, stride, padding before and after. They cover every algorithm of
# cnn_jax/cpu/convolution.py.
CONVOLUTIONS = {
    "pointwise": ((5, 6, 3), (1, 1), 4, 1, ((0, 0), (0, 0))),
    "pointwise_strided": ((5, 6, 3), (1, 1), 4, 2, ((0, 0), (0, 0))),
    "valid": ((6, 5, 3), (3, 3), 4, 1, ((0, 0), (0, 0))),
    "same": ((6, 5, 3), (3, 2), 4, 1, ((1, 1), (0, 1))),
    "full": ((4, 3, 3), (3, 3), 2, 1, ((2, 2), (2, 2))),
    "strided": ((7, 9, 3), (3, 3), 4, 2, ((1, 1), (1, 1))),
    "strided_with_a_remainder": ((8, 9, 3), (3, 3), 2, 3, ((0, 0), (1, 0))),
    "strided_16_channels": ((8, 7, 16), (3, 3), 4, 2, ((0, 1), (1, 1))),
    "map_smaller_than_its_kernel": ((2, 2, 3), (3, 3), 4, 1, ((1, 1), (1, 1))),
    "128_channels": ((3, 4, 128), (3, 3), 2, 1, ((1, 1), (1, 1))),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("choice", ["cpu", "xla"])
def test_convolution(choice, case, monkeypatch):
    monkeypatch.setenv("CNN_JAX_ROUTES", choice)
    size, kernel, maps, stride, pads = case
    x, w, bias = random(2, *size), random(*kernel, size[-1], maps), random(maps)
    layer = Conv(maps, kernel, stride, pads)

    def convolve(x, w, bias):
        return layer.apply({"params": {"kernel": w, "bias": bias}}, x)

    assert ("custom_vjp" in str(jax.make_jaxpr(convolve)(x, w, bias))) == (choice == "cpu")
    delta = random(*jax.eval_shape(convolve, x, w, bias).shape)
    value, *gradients = convolution_by_hand(x, w, bias, delta, stride, pads)
    check(convolve, (x, w, bias), delta, value, gradients)


# Transposed convolution


def matrix_by_hand(w, height, width, stride, padding):
    """Returns C, with a row per value of the output and a column per value of the input."""
    h, v, channels, maps = w.shape
    rows, columns = (
        (height + 2 * padding - h) // stride + 1,
        (width + 2 * padding - v) // stride + 1,
    )
    matrix = np.zeros((rows, columns, maps, height, width, channels))
    for i, j, a, b in np.ndindex(rows, columns, h, v):
        row, column = i * stride + a - padding, j * stride + b - padding
        if 0 <= row < height and 0 <= column < width:
            matrix[i, j, :, row, column] = w[a, b].T
    return matrix.reshape(rows * columns * maps, -1)


@pytest.mark.parametrize(
    "height, width, kernel, stride, padding",
    [
        (4, 4, (3, 3), 1, 0),
        (5, 5, (3, 3), 2, 1),
        (6, 4, (2, 3), 2, 0),
        (8, 7, (3, 3), 3, 1),
        (3, 4, (3, 2), 1, 2),
    ],
)
def test_transposed_convolution_is_multiplication_by_c_transposed(
    height, width, kernel, stride, padding
):
    w, x = random(*kernel, 2, 3), random(1, height, width, 2)
    matrix = matrix_by_hand(w, height, width, stride, padding)
    close(spatial.make_convolution_matrix(jnp.asarray(w), (height, width), stride, padding), matrix)

    layer = Conv(3, kernel, stride, padding, use_bias=False)

    def convolve(x):
        return layer.apply({"params": {"kernel": w}}, x)

    z = random(*jax.eval_shape(convolve, x).shape)
    expected = (matrix.T @ z.ravel()).reshape(x.shape)
    check(convolve, (x,), z, (matrix @ x.ravel()).reshape(z.shape), (expected,))
    transposed = jax.jit(spatial.apply_transposed_convolution, static_argnums=(2, 3, 4))
    close(transposed(z, w, (height, width), stride, padding), expected)

    # The layer's output has the smallest size that the convolution maps to z's. The rest is 0.
    layer = spatial.FractionallyStridedConv(2, kernel, stride, padding)
    y = layer.apply({"params": {"conv": {"kernel": rot180(w), "bias": np.zeros(2)}}}, z)
    left = [
        (size + 2 * padding - k) % stride for size, k in zip((height, width), kernel, strict=True)
    ]
    assert y.shape[1:3] == (height - left[0], width - left[1])
    close(y, expected[:, : y.shape[1], : y.shape[2]])


# Max pooling


def max_pool_by_hand(x, delta, window, stride):
    """Returns the maxima and the input's gradient, which is that of each first maximum."""
    y, dx = np.zeros_like(delta), np.zeros_like(x)
    for n, i, j, c in np.ndindex(delta.shape):
        top, left = i * stride, j * stride
        seen = x[n, top : top + window, left : left + window, c]
        row, column = np.unravel_index(np.argmax(seen), seen.shape)
        y[n, i, j, c] = seen[row, column]
        dx[n, top + row, left + column, c] += delta[n, i, j, c]
    return y, dx


def valid(x, window, stride):
    return nn.max_pool(x, (window, window), (stride, stride))


def pool_with_switches(x, window, stride, padding="VALID"):
    return spatial.max_pool_with_switches(x, window, stride, padding)[0]


POOLINGS = {
    "valid": (valid, 2, 2),
    "overlapping": (valid, 3, 2),
    "overlapping_by_two": (valid, 3, 1),
    "ceil": (max_pool_ceil, 3, 2),
    "ceil_not_overlapping": (max_pool_ceil, 2, 2),
    "with_switches": (pool_with_switches, 3, 2),
    "with_switches_ceil": (functools.partial(pool_with_switches, padding="CEIL"), 3, 2),
}


@pytest.mark.parametrize("pooling", POOLINGS.values(), ids=POOLINGS)
def test_max_pooling(pooling):
    pool, window, stride = pooling

    def function(x):
        return pool(x, window, stride)

    x = random(2, 6, 8, 3) - 5  # Below zero: padding must never be the maximum.
    delta = random(*jax.eval_shape(function, x).shape)
    value, gradient = max_pool_by_hand(x, delta, window, stride)
    check(function, (x,), delta, value, (gradient,))


@pytest.mark.parametrize("pooling", POOLINGS.values(), ids=POOLINGS)
def test_the_first_of_equal_maxima_gets_the_whole_gradient(pooling):
    pool, window, stride = pooling

    def function(x):
        return pool(x, window, stride)

    x = np.round(random(2, 5, 7, 2))
    x[0] = 0
    delta = random(*jax.eval_shape(function, x).shape)
    (dx,) = jax.jit(lambda x, delta: jax.vjp(function, x)[1](delta))(x, delta)
    close(dx, max_pool_by_hand(x, delta, window, stride)[1])


# Trainable subsampling


@pytest.mark.parametrize("height, width", [(4, 6), (5, 7)])
def test_subsampling(height, width):
    def subsample(x, coefficient, bias):
        return Subsampling().apply({"params": {"coefficient": coefficient, "bias": bias}}, x)

    x, coefficient, bias = random(2, height, width, 3), random(3), random(3)
    delta = random(2, height // 2, width // 2, 3)
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    sums = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    dx = np.zeros_like(x)  # An odd last row or column is ignored.
    dx[:, : height // 2 * 2, : width // 2 * 2] = (
        (coefficient * delta).repeat(2, axis=1).repeat(2, axis=2)
    )
    expected = dx, (delta * sums).sum((0, 1, 2)), delta.sum((0, 1, 2))
    check(subsample, (x, coefficient, bias), delta, coefficient * sums + bias, expected)


# Local response normalisation


def lrn_by_hand(a, delta, k, n, alpha, beta, towers):
    """Returns b and the gradient of a.

    b_i = a_i D_i^-beta with D_i = k + alpha * sum of a_j^2 over the neighbors j of i.

    db_i / da_j = [i = j] D_i^-beta - 2 alpha beta a_i a_j D_i^(-beta - 1) [j is a neighbor of i].
    """
    channels = np.arange(a.shape[-1])
    apart = channels[None, :] - channels[:, None]  # Of j (columns) from i (rows).
    width = len(channels) // towers
    seen = (
        (-((n - 1) // 2) <= apart)
        & (apart <= n // 2)
        & (channels[:, None] // width == channels[None, :] // width)
    )
    d = k + alpha * a**2 @ seen.T
    return a * d**-beta, delta * d**-beta - 2 * alpha * beta * a * (
        (delta * a * d ** (-beta - 1)) @ seen
    )


# With AlexNet's alpha and size, alpha * sum is near 0.1 for activations near 15, where the second
# term matters.
@pytest.mark.parametrize(
    "scale, options",
    [
        (30, {}),
        (30, {"towers": 2}),
        (60, {"caffe_alpha": True, "k": 1.0}),
        (30, {"caffe_alpha": True, "towers": 2, "alpha": 5e-4}),
        (1, {"n": 4, "alpha": 0.5}),  # An even number has one more neighbor above.
        (1, {"n": 3, "alpha": 0.5, "beta": 0.6}),  # Not computed by two roots.
    ],
)
def test_lrn(scale, options):
    constants = {"k": 2.0, "n": 5, "alpha": 1e-4, "beta": 0.75, "towers": 1} | options
    if constants.pop("caffe_alpha", False):
        constants["alpha"] /= constants["n"]
    a, delta = scale * random(2, 3, 2, 8), random(2, 3, 2, 8)
    normalise = functools.partial(apply_local_response_norm, **options)
    value, gradient = lrn_by_hand(a, delta, **constants)
    # The second term is not negligible.
    assert np.abs(gradient - delta * value / a).max() > 0.1
    check(normalise, (a,), delta, value, (gradient,))
