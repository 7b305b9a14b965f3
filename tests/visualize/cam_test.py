"""Grad-CAM: by hand, its layer chosen and named, and guided Grad-CAM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from visualize.gradients_test import LABELS, make_subject

from cnn_jax import models, visualize
from cnn_jax.errors import UserError


def test_grad_cam_by_hand():
    """Of LeNet's pool2, from which on the model is three dense layers."""
    model, params, stats, images, labels = make_subject()
    found = visualize.compute_grad_cam(model, params, stats, images, labels)
    maps = np.asarray(model.features(params, stats, images)["pool2"])

    def from_maps(maps):
        x = maps.reshape(len(maps), -1)
        for number in range(3):
            layer = params[f"Dense_{number}"]
            x = x @ layer["kernel"] + layer["bias"][None]
            x = jax.nn.relu(x) if number < 2 else x
        return x[jnp.arange(2), labels].sum()

    weights = np.asarray(jax.grad(from_maps)(jnp.asarray(maps))).mean((1, 2))
    expected = np.maximum((maps * weights[:, None, None]).sum(-1), 0)
    assert found.layer == "pool2" and expected.max() > 0
    np.testing.assert_allclose(found.coarse, expected, rtol=1e-4, atol=1e-6)
    assert found.maps.shape == images.shape[:3]
    other = visualize.compute_grad_cam(model, params, stats, images, labels, layer="conv1")
    assert other.layer == "conv1" and other.coarse.shape == (2, 16, 16)


def test_guided_grad_cam_is_the_product():
    subject = make_subject()
    cam, guided = visualize.compute_grad_cam(*subject), visualize.compute_guided_backprop(*subject)
    found = visualize.compute_guided_grad_cam(*subject)
    np.testing.assert_allclose(found, cam.maps[..., None] * guided, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "name, side, last",
    [("vgg_a", 32, "conv5_2"), ("vgg_a", 64, "pool5"), ("resnet20", 16, "stage3")],
)
def test_the_last_layer_with_a_spatial_map_is_chosen(name, side, last):
    """VGG's pool5 has one place on images of 32 pixels, from which every map would be flat."""
    model = models.create(name, 4, width=1 / 16)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    params, stats = jax.eval_shape(model.init, jax.random.key(0), image)
    layers = visualize.list_layers(model, params, stats, (side, side, 3))
    assert visualize.choose_layer(name, layers) == last
    shown = list(layers)
    assert shown.index("conv1_1" if name == "vgg_a" else "stem") == 0
    assert shown[-1] in ("fc7", "pool")


def test_a_layer_of_every_block_can_be_explained():
    """What ResNet's stages return goes through `capture`, so that they have a gradient."""
    model = models.create("resnet20", 4, width=1 / 4)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    params, stats = model.init(jax.random.key(0), images)
    for layer in ("stem", "stage1", "stage2", "stage3"):
        found = visualize.compute_grad_cam(model, params, stats, images, LABELS, layer=layer)
        assert found.coarse.max() > 0, layer


def test_wrong_layers_are_refused():
    subject = make_subject()
    with pytest.raises(UserError, match=r"layer=conv_2: lenet5_modern has no such layer; nearest"):
        visualize.compute_grad_cam(*subject, layer="conv_2")
    with pytest.raises(
        UserError, match="layer=dense1: it has no spatial map in lenet5_modern; tho"
    ):
        visualize.compute_grad_cam(*subject, layer="dense1")
    model = models.create("mlp", 4, hidden=(3,))
    images = jnp.ones((2, 3, 3, 1))
    given = (model, *model.init(jax.random.key(0), images), images, LABELS)
    with pytest.raises(UserError, match="mlp: no layer has a spatial map"):
        visualize.compute_grad_cam(*given)
