"""First filters, top images and receptive fields, against what is known of the models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from visualize.gradients_test import make_subject

from cnn_jax import models, visualize
from cnn_jax.errors import UserError


@pytest.mark.parametrize(
    "name, side, layer, shape",
    [
        ("lenet5_modern", 16, "Conv_0", (5, 5, 3, 6)),
        ("resnet20", 8, "stem", (3, 3, 3, 16)),
        ("googlenet", 79, "conv1/conv", (7, 7, 3, 64)),
    ],
)
def test_the_first_filters_are_those_that_see_the_image(name, side, layer, shape):
    model = models.create(name, 4)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    params, stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    for _ in range(2):  # The second time JAX has traced the model already.
        found = visualize.find_first_filters(model, params, stats, (side, side, 3))
        assert (found.layer, found.kernels.shape) == (layer, shape)


def test_a_model_without_convolutions_has_no_filters():
    model = models.create("mlp", 4, hidden=(3,))
    params, stats = model.init(jax.random.key(0), jnp.ones((1, 3, 3, 1)))
    with pytest.raises(UserError, match="mlp has no convolution"):
        visualize.find_first_filters(model, params, stats, (3, 3, 1))


def test_top_images_are_those_of_the_largest_activations():
    model, params, stats, _, _ = make_subject()
    images = jax.random.normal(jax.random.key(5), (11, 16, 16, 2))
    batches = (images[:4], images[4:8], images[8:])
    top = visualize.find_top_images(model, params, stats, batches, "conv2", count=3)
    maps = np.asarray(model.features(params, stats, images)["conv2"])
    assert top.images.shape == (maps.shape[-1], 3) and top.places.shape == (maps.shape[-1], 3, 2)
    for channel in range(maps.shape[-1]):
        own = maps[..., channel]
        order = np.argsort(-own.max((1, 2)), kind="stable")[:3]
        np.testing.assert_array_equal(top.images[channel], order)
        for image, place, value in zip(
            top.images[channel], top.places[channel], top.values[channel], strict=True
        ):
            assert own[image][tuple(place)] == pytest.approx(value) == own[image].max()


# (kernel, stride, padding on the first side) of what lies before the layer's units.
CHAINS = {
    ("vgg_a", 64, "conv3_2"): [(3, 1, 1), (2, 2, 0), (3, 1, 1), (2, 2, 0), (3, 1, 1), (3, 1, 1)],
    ("zfnet", 63, "conv2"): [(7, 2, 1), (3, 2, 0), (5, 2, 0)],
    ("resnet20", 24, "stage1"): [(3, 1, 1)] * 7,
}


@pytest.mark.parametrize("name, side, layer", CHAINS)
def test_receptive_fields_are_those_of_the_formula(name, side, layer):
    """Of a chain of windows: size and step multiply, and the image's edge cuts off."""
    model = models.create(name, 4, width=1 / 16, initializer="he")
    shape = (side, side + 8, 3)
    params, stats = model.init(jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    found = visualize.find_receptive_fields(model, params, stats, shape, layer)
    size, step, start = 1, 1, 0
    for kernel, stride, padding in CHAINS[name, side, layer]:
        size, start = size + (kernel - 1) * step, start - padding * step
        step *= stride
    for ends, pixels in ((found.rows, side), (found.columns, side + 8)):
        first = start + step * np.arange(len(ends))
        expected = np.stack([np.maximum(first, 0), np.minimum(first + size, pixels)], 1)
        np.testing.assert_array_equal(ends, expected)
    assert found.find_box(1, 2) == (slice(*found.rows[1]), slice(*found.columns[2]))
