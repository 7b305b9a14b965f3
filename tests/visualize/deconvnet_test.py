"""ZFNet's deconvolutional network against its layers, written one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models, visualize
from cnn_jax.layers.pooling import max_pool_ceil
from cnn_jax.layers.spatial import apply_transposed_convolution, max_pool_with_switches, max_unpool

SIDE = 47
CHANNELS = jnp.array([4, 10])  # Which are active in both images.


@functools.cache
def make_zfnet():
    """ZFNet with few channels: (model, params, stats, images)."""
    model = models.create("zfnet", 4, width=1 / 16, initializer="he")
    images = jax.random.normal(jax.random.key(1), (2, SIDE, SIDE, 3))
    return model, *model.init(jax.random.key(0), images), images


def test_one_layer_is_the_transposed_convolution_of_its_maps():
    model, params, stats, images = make_zfnet()
    maps = model.features(params, stats, images)["conv1"]
    found = visualize.deconvolve(model, params, stats, images, "conv1", maps)
    kernel = params["conv1"]["kernel"]
    expected = apply_transposed_convolution(jax.nn.relu(maps), kernel, (SIDE, SIDE), 2, 1)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_two_layers_are_unpooling_relu_and_transposed_filters():
    """In the paper's order (Sec. 2.1), through overlapping pooling and contrast normalization."""
    model, params, stats, images = make_zfnet()
    features = model.features(params, stats, images)
    signal = visualize.keep_strongest(features["conv2"], CHANNELS)
    found = visualize.deconvolve(model, params, stats, images, "conv2", signal)
    first, second = (params[name]["kernel"] for name in ("conv1", "conv2"))
    maps = features["conv1"]
    pooled, switches = max_pool_with_switches(maps, 3, 2, "CEIL")
    np.testing.assert_array_equal(pooled, max_pool_ceil(maps, 3, 2))
    x = apply_transposed_convolution(jax.nn.relu(signal), second, pooled.shape[1:3], 2, 0)
    x = jax.nn.relu(max_unpool(x, switches, maps.shape[1:3]))
    expected = apply_transposed_convolution(x, first, (SIDE, SIDE), 2, 1)
    assert np.abs(expected).max() > 1e-3
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


def test_the_strongest_activation_is_kept_alone():
    model, params, stats, images = make_zfnet()
    maps = np.asarray(model.features(params, stats, images)["conv2"])
    kept = np.asarray(visualize.keep_strongest(jnp.asarray(maps), CHANNELS))
    assert (np.count_nonzero(kept, axis=(1, 2, 3)) == 1).all()
    for image, channel in enumerate(CHANNELS.tolist()):
        assert kept[image, ..., channel].max() == maps[image, ..., channel].max() > 0
    strongest = np.asarray(visualize.find_strongest_channels(jnp.asarray(maps), 3))
    order = np.argsort(-maps.max((1, 2)), axis=1)[:, :3]
    np.testing.assert_array_equal(strongest, order)


def test_a_unit_is_projected_into_its_receptive_field_only():
    model, params, stats, images = make_zfnet()
    maps = np.asarray(model.features(params, stats, images)["conv2"])
    signal = visualize.keep_strongest(jnp.asarray(maps), CHANNELS)
    found = np.asarray(visualize.deconvolve(model, params, stats, images, "conv2", signal))
    fields = visualize.find_receptive_fields(model, params, stats, (SIDE, SIDE, 3), "conv2")
    for image in range(2):
        row, column = np.argwhere(np.asarray(signal)[image].any(-1))[0]
        box = fields.find_box(row, column)
        outside = np.ones((SIDE, SIDE), bool)
        outside[box] = False
        assert np.abs(found[image][outside]).max() == 0 and np.abs(found[image][box]).max() > 0
