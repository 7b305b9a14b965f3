"""Locally connected layers against plain loops, flax's layer, and the convolution they contain."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers.conv import Conv
from cnn_jax.layers.initializers import he_normal
from cnn_jax.layers.local import LocalConv


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_each_pixel_is_the_sum_over_its_own_kernel():
    x = np.asarray(draw(0, 2, 6, 5, 3))
    layer = LocalConv(4, (3, 2), padding="VALID")
    params = layer.init(jax.random.key(1), x)["params"]
    params = {"kernel": params["kernel"], "bias": draw(2, *params["bias"].shape)}
    kernel = np.asarray(params["kernel"]).reshape(4, 4, 3, 2, 3, 4)
    expected = np.zeros((2, 4, 4, 4))
    for row, column in np.ndindex(4, 4):
        for i, j, c in np.ndindex(3, 2, 3):
            pixel = x[:, row + i, column + j, c]
            expected[:, row, column] += pixel[:, None] * kernel[row, column, i, j, c]
    expected += np.asarray(params["bias"])
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, "SAME"), (5, 2, "SAME"), (4, 3, 2)])
def test_it_is_flaxs_layer(kernel, stride, padding):
    x, size = draw(0, 2, 7, 7, 3), (kernel, kernel)
    layer = LocalConv(4, size, stride, padding)
    pads = padding if isinstance(padding, str) else [(padding, padding)] * 2
    theirs = nn.ConvLocal(4, size, stride, pads)
    params = layer.init(jax.random.key(1), x)["params"]
    wanted = theirs.init(jax.random.key(1), x)["params"]
    height, width, inputs, _ = params["kernel"].shape
    # flax's inputs run over channels, rows and columns.
    moved = params["kernel"].reshape(height, width, kernel, kernel, 3, 4)
    moved = jnp.moveaxis(moved, 4, 2).reshape(height, width, inputs, 4)
    assert moved.shape == wanted["kernel"].shape and params["bias"].shape == wanted["bias"].shape
    expected = theirs.apply({"params": {"kernel": moved, "bias": params["bias"]}}, x)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


def test_with_one_kernel_everywhere_it_is_a_convolution_and_its_gradient_the_places_sum():
    x, kernel, bias = draw(0, 2, 6, 6, 3), draw(1, 3, 3, 3, 4), draw(2, 4)
    local, conv = LocalConv(4, (3, 3)), Conv(4, (3, 3))

    def run_local(kernel, bias):
        params = {
            "kernel": jnp.broadcast_to(kernel.reshape(27, 4), (6, 6, 27, 4)),
            "bias": jnp.broadcast_to(bias, (6, 6, 4)),
        }
        return local.apply({"params": params}, x)

    def run_conv(kernel, bias):
        return conv.apply({"params": {"kernel": kernel, "bias": bias}}, x)

    np.testing.assert_allclose(run_local(kernel, bias), run_conv(kernel, bias), atol=1e-5)
    found, expected = (
        jax.grad(lambda k, b, run=run: jnp.sum(jnp.sin(run(k, b))), (0, 1))(kernel, bias)
        for run in (run_local, run_conv)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


def test_parameters_are_the_convolutions_times_the_places_and_drawn_with_its_fan_in():
    x = draw(0, 1, 8, 8, 16)
    local = LocalConv(32, (5, 5), kernel_init=he_normal).init(jax.random.key(1), x)["params"]
    conv = Conv(32, (5, 5)).init(jax.random.key(1), x)["params"]
    assert count(conv) == 25 * 16 * 32 + 32 and count(local) == 64 * count(conv)
    assert np.std(local["kernel"]) == pytest.approx(np.sqrt(2 / (25 * 16)), rel=0.01)
    assert not np.array_equal(local["kernel"][0, 0], local["kernel"][0, 1])
