"""Sizes, fractionally strided and separable convolutions and unpooling, by loops and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_jax.errors import UserError
from cnn_jax.layers import sizes, spatial
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.pooling import max_pool_ceil

pool = jax.jit(spatial.max_pool_with_switches, static_argnums=(1, 2, 3))
unpool = jax.jit(spatial.max_unpool, static_argnums=2)
SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32)


def random(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_a_dilated_convolution_equals_one_with_zeros_in_its_kernel():
    x, kernel = random(2, 11, 10, 3), random(3, 3, 3, 4)
    wide = np.zeros((5, 5, 3, 4), np.float32)
    wide[::2, ::2] = kernel
    y = Conv(4, (3, 3), 2, 1, kernel_dilation=2, use_bias=False).apply(
        {"params": {"kernel": kernel}}, x
    )
    assert y.shape[1:3] == tuple(
        sizes.compute_output_size(n, 3, stride=2, padding=1, dilation=2) for n in (11, 10)
    )
    same = Conv(4, (5, 5), 2, 1, use_bias=False).apply({"params": {"kernel": wide}}, x)
    np.testing.assert_allclose(y, same, atol=1e-5)


@pytest.mark.parametrize(
    "kernel, stride, padding", [((3, 3), 2, 0), ((4, 4), 2, 1), ((2, 3), 3, 1), ((3, 3), 1, 2)]
)
def test_a_fractionally_strided_convolution_inserts_zeros(kernel, stride, padding):
    x = random(2, 4, 3, 2)
    module = spatial.FractionallyStridedConv(3, kernel, stride, padding)
    weights, bias = random(*kernel, 2, 3), random(3)
    y = jax.jit(module.apply)({"params": {"conv": {"kernel": weights, "bias": bias}}}, x)

    margins = [k - 1 for k in kernel]
    holes = np.zeros(
        (2, 3 * stride + 1 + 2 * margins[0], 2 * stride + 1 + 2 * margins[1], 2), np.float32
    )
    holes[
        :,
        margins[0] : holes.shape[1] - margins[0] : stride,
        margins[1] : holes.shape[2] - margins[1] : stride,
    ] = x
    size = 3 * stride + kernel[0], 2 * stride + kernel[1]
    full = np.zeros((2, *size, 3), np.float32)
    for i, j in np.ndindex(size):
        full[:, i, j] = np.einsum(
            "nhwc,hwco->no", holes[:, i : i + kernel[0], j : j + kernel[1]], weights
        )
    expected = full[:, padding : size[0] - padding, padding : size[1] - padding] + bias
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_the_usual_4x4_kernel_doubles_the_size_and_keeps_bfloat16():
    module, x = (
        spatial.FractionallyStridedConv(3, (4, 4), 2, 1),
        jnp.ones((1, 5, 7, 2), jnp.bfloat16),
    )
    y, variables = module.init_with_output(jax.random.key(0), x)
    assert y.shape == (1, 10, 14, 3) and y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_padding_that_leaves_no_output_is_refused():
    with pytest.raises(UserError, match="padding=2 leaves none of 1 pixels"):
        spatial.FractionallyStridedConv(1, (4, 4), 2, 2).init(
            jax.random.key(0), jnp.ones((1, 1, 3, 1))
        )


def test_impossible_sizes_of_a_transposed_convolution_are_refused():
    with pytest.raises(UserError, match=r"shape=\(9, 8\): a side of 9 gives 5 pixels, but z has 4"):
        spatial.apply_transposed_convolution(
            jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), (9, 8), stride=2, padding=1
        )


@pytest.mark.parametrize("stride, padding", [(1, "SAME"), (2, "VALID"), (2, "SAME")])
def test_sobel_s_kernel_is_separable(stride, padding):
    x = random(2, 8, 7, 1)
    parts = {
        "vertical": {"kernel": jnp.array([1.0, 2.0, 1.0]).reshape(3, 1, 1, 1)},
        "horizontal": {
            "kernel": jnp.array([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1),
            "bias": jnp.array([0.5]),
        },
    }
    y = spatial.SeparableConv(1, 3, stride, padding).apply({"params": parts}, x)
    whole = {"kernel": SOBEL.reshape(3, 3, 1, 1), "bias": jnp.array([0.5])}
    np.testing.assert_allclose(
        y, Conv(1, (3, 3), stride, padding).apply({"params": whole}, x), atol=1e-5
    )


def test_a_separable_convolution_has_its_number_of_weights():
    variables = jax.eval_shape(
        spatial.SeparableConv(5, 7).init, jax.random.key(0), jnp.ones((1, 9, 9, 3))
    )
    shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
    assert shapes == {
        "vertical": {"kernel": (7, 1, 3, 5)},
        "horizontal": {"kernel": (1, 7, 5, 5), "bias": (5,)},
    }


POOLINGS = [
    (2, 2, "VALID"),
    (3, 2, "VALID"),
    (3, 2, "CEIL"),
    (3, 1, "VALID"),
    (2, 3, "VALID"),
    (3, 3, "CEIL"),
]


def pool_by_loop(x, window, stride, ceil):
    """Returns pooled values and switches, of equal values the first in reading order."""
    batch, height, width, maps = x.shape
    count = [
        -(-(n - window) // stride) + 1 if ceil else (n - window) // stride + 1
        for n in (height, width)
    ]
    values, switches = (
        np.zeros((batch, *count, maps), x.dtype),
        np.zeros((batch, *count, maps), np.int32),
    )
    for n, i, j, c in np.ndindex(values.shape):
        seen = [
            (row, column)
            for row in range(i * stride, min(height, i * stride + window))
            for column in range(j * stride, min(width, j * stride + window))
        ]
        row, column = max(seen, key=lambda place: x[n, *place, c])
        values[n, i, j, c], switches[n, i, j, c] = x[n, row, column, c], row * width + column
    return values, switches


@pytest.mark.parametrize("window, stride, padding", POOLINGS)
@pytest.mark.parametrize("ties", [False, True])
def test_switches_are_the_positions_of_the_maxima(window, stride, padding, ties):
    x = random(2, 6, 8, 3) - 5.0  # All below zero: padding must never be the maximum.
    x = np.round(x) if ties else x
    pooled, switches = pool(x, window, stride, padding)
    assert switches.dtype == jnp.int32
    expected = pool_by_loop(x, window, stride, padding == "CEIL")
    np.testing.assert_array_equal(pooled, expected[0])
    np.testing.assert_array_equal(switches, expected[1])
    theirs = (
        max_pool_ceil(x, window, stride)
        if padding == "CEIL"
        else nn.max_pool(x, (window,) * 2, (stride,) * 2)
    )
    np.testing.assert_array_equal(pooled, theirs)


@pytest.mark.parametrize("window, stride, padding", POOLINGS)
def test_unpooling_sums_at_the_switches(window, stride, padding):
    x = random(2, 6, 8, 3)
    switches = np.asarray(pool(x, window, stride, padding)[1])
    z = random(*switches.shape)
    expected = np.zeros((2, 6 * 8, 3), np.float32)
    for n, i, j, c in np.ndindex(z.shape):
        expected[n, switches[n, i, j, c], c] += z[n, i, j, c]
    np.testing.assert_allclose(unpool(z, switches, (6, 8)), expected.reshape(2, 6, 8, 3), atol=1e-6)


def test_unpooling_restores_the_maxima_of_windows_that_do_not_overlap():
    x = jnp.array([[1.0, 2, 0, 0], [3, 4, 0, 9], [5, 5, -1, -2], [5, 5, -3, -4]]).reshape(
        1, 4, 4, 1
    )
    pooled, switches = pool(x, 2, 2)
    # The first of four fives.
    np.testing.assert_array_equal(switches[0, :, :, 0], [[5, 7], [8, 10]])
    expected = [[0, 0, 0, 0], [0, 4, 0, 9], [5, 0, -1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(unpool(pooled, switches, (4, 4))[0, :, :, 0], expected)


def test_the_maximum_of_two_windows_gets_the_sum():
    x = jnp.array([0.0, 1, 7, 2, 3]).reshape(1, 1, 5, 1).repeat(3, axis=1)
    pooled, switches = pool(x, 3, 2)
    np.testing.assert_array_equal(switches.ravel(), [2, 2])
    unpooled = unpool(jnp.array([10.0, 4.0]).reshape(pooled.shape), switches, (3, 5))
    assert unpooled[0, 0, 2, 0] == 14 and jnp.sum(unpooled) == 14


def test_pooling_and_unpooling_are_each_other_s_gradient():
    x = random(1, 5, 5, 2)
    pooled, switches = pool(x, 3, 2)
    delta = random(*pooled.shape)
    (dx,) = jax.vjp(lambda x: pool(x, 3, 2)[0], x)[1](delta)
    np.testing.assert_allclose(dx, unpool(delta, switches, (5, 5)), atol=1e-6)
    (dpooled,) = jax.vjp(lambda p: unpool(p, switches, (5, 5)), pooled)[1](x)
    np.testing.assert_array_equal(dpooled, pooled)  # x at its own switches.


@pytest.mark.parametrize(
    "side, arguments, words",
    [
        (2, (3, 2), "2 pixels.* too few for a kernel that spans 3; the minimum is 3"),
        (5, (3, 2, "SAME"), "padding='SAME', stride=2: use VALID, or CEIL"),
        (
            5,
            (2, 3, "CEIL"),
            "padding='CEIL', stride=3: use VALID, or CEIL with a stride of at most 2",
        ),
    ],
)
def test_invalid_pooling_is_refused(side, arguments, words):
    with pytest.raises(UserError, match=words):
        spatial.max_pool_with_switches(jnp.ones((1, side, 5, 1)), *arguments)


def test_switches_of_another_pooling_are_refused():
    with pytest.raises(UserError, match="must have the same shape"):
        spatial.max_unpool(jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 3, 3, 1), jnp.int32), (6, 6))
