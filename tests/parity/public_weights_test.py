"""Logits of torchvision's and Keras' nets, from files that they wrote, against ours; skipped
without them.
"""

import dataclasses
import functools
import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, pretrained
from cnn_jax.layers.batch_norm import BatchNorm
from cnn_jax.layers.conv import ConvUnit
from cnn_jax.models import inception
from cnn_jax.pretrained import names
from parity.public_nets import (
    CLASSES,
    as_jax_is,
    compiled,
    drawn_keras,
    images,
    imported,
    torch_net,
)

# Keras' own, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def check(name, loaded, x, theirs):
    model = models.create(name, loaded.num_classes, **loaded.options)
    forward = compiled(name, lambda params, stats, x: model.apply(params, stats, x)[0])
    ours = np.asarray(forward(loaded.params, loaded.stats, jnp.asarray(x)))
    assert ours.shape == theirs.shape == (2, CLASSES)
    scale = np.abs(theirs).max()
    # Otherwise any model with these biases would pass.
    assert np.ptp(theirs, axis=0).max() > 0.01 * scale
    assert np.abs(ours - theirs).max() < 1e-4 * scale


# --- torchvision

TORCH = [
    ("alexnet_owt", "alexnet", 224, True),
    ("vgg_a", "vgg11", 64, False),
    ("vgg_a", "vgg11_bn", 64, True),
    ("vgg_b", "vgg13", 64, True),
    ("vgg_d", "vgg16", 64, False),
    ("vgg_e", "vgg19", 64, True),
    ("resnet18", "resnet18", 64, True),
    ("resnet34", "resnet34", 64, True),
    ("resnet50", "resnet50", 64, False),
    ("googlenet_bn", "googlenet", 64, True),
    ("inception_v3", "inception_v3", 107, True),
]


@pytest.mark.parametrize("name, theirs, side, in_zip", TORCH, ids=[row[1] for row in TORCH])
def test_torchvision(name, theirs, side, in_zip, tmp_path):
    torch, net = torch_net(theirs)
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=in_zip)
    loaded = pretrained.load(name, tmp_path / "net.pth")
    x = images(side)
    with torch.no_grad():
        check(name, loaded, x, net(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()).numpy())
        if theirs == "inception_v3":
            check_head(torch, loaded, net)
    # Its heads pool differently from the paper's and ours, so only weights can agree.
    if theirs == "googlenet":
        weight = net.aux2.fc1.weight.detach().numpy().reshape(1024, 128, 4, 4)
        dense = loaded.params["aux4d"]["dense"]["kernel"].reshape(4, 4, 128, 1024)
        np.testing.assert_array_equal(dense, weight.transpose(2, 3, 1, 0))


def check_head(torch, loaded, net):
    unit = functools.partial(ConvUnit, norm=functools.partial(BatchNorm, epsilon=1e-3))
    head = inception.AuxiliaryHead(CLASSES, (128, 768), unit, unit, jax.nn.initializers.zeros)
    x = np.random.default_rng(1).standard_normal((2, 17, 17, 768)).astype(np.float32)
    variables = {"params": loaded.params["aux"], "batch_stats": loaded.stats["aux"]}
    ours = np.asarray(head.apply(variables, jnp.asarray(x), False))
    theirs = net.AuxLogits(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()).numpy()
    assert (
        np.ptp(theirs, axis=0).max() > 0.1
        and np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    )


@pytest.mark.parametrize(
    "name, theirs", [("googlenet_bn", "googlenet"), ("inception_v3", "inception_v3")]
)
def test_torchvision_s_own_preprocessing_and_transform_input(name, theirs, tmp_path):
    """Compares the input of the first convolution, from the bytes of an image."""
    torch, torchvision = imported("torch"), imported("torchvision.models")
    image = (
        np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8).repeat(9, 0).repeat(9, 1)
    )
    from PIL import Image

    with torch.device("meta"):
        net = getattr(torchvision, theirs)(init_weights=False, transform_input=True)
    x = torchvision.get_model_weights(theirs).IMAGENET1K_V1.transforms()(Image.fromarray(image))[
        None
    ]
    expected = net._transform_input(x)[0].permute(1, 2, 0).numpy()
    recipe = names.LAYOUTS["torch"][name](name, {}).preprocessing
    ours = np.asarray(recipe.apply(image[None])[0])
    assert ours.shape == expected.shape
    assert (
        np.abs(ours - expected).max() < 2.5 * 2 / 255
        and np.abs(ours - expected).mean() < 0.4 * 2 / 255
    )


# --- Keras

KERAS = [
    ("vgg_d", "VGG16", 64, (".h5",)),
    ("vgg_e", "VGG19", 64, (".weights.h5",)),
    ("resnet50", "ResNet50", 32, (".weights.h5", ".h5", ".keras")),
    ("resnet101", "ResNet101", 32, (".keras",)),
    ("resnet152", "ResNet152", 32, (".weights.h5",)),
    ("inception_v3", "InceptionV3", 75, (".h5", ".keras")),
]


@pytest.fixture(scope="module")
def keras():
    with drawn_keras() as keras:
        yield keras


def nameless(path):
    """Removes the layers' names from the weights of a .keras file; config.json has them too."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        config, weights = archive.read("config.json"), io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights.getvalue())


@pytest.mark.parametrize("name, theirs, side, endings", KERAS, ids=[row[1] for row in KERAS])
def test_keras(keras, name, theirs, side, endings, tmp_path):
    x = images(side)
    with as_jax_is():
        make = getattr(keras.applications, theirs)
        net = make(
            weights=None, input_shape=(side, side, 3), classes=CLASSES, classifier_activation=None
        )
        for ending in endings:
            (net.save_weights if ending == ".weights.h5" else net.save)(tmp_path / f"net{ending}")
        if ".keras" in endings:
            nameless(tmp_path / "net.keras")
        values = [
            [v.value for v in variables]
            for variables in (net.trainable_variables, net.non_trainable_variables)
        ]
        forward = compiled(
            name,
            lambda trained, others, x: net.stateless_call(trained, others, x, training=False)[0],
        )
        expected = np.asarray(forward(*values, x))
    loaded = pretrained.load(name, tmp_path / f"net{endings[0]}")
    check(name, loaded, x, expected)
    for ending in endings[1:]:
        again = pretrained.load(name, tmp_path / f"net{ending}")
        jax.tree.map(np.testing.assert_array_equal, loaded[:2], again[:2])


@pytest.mark.parametrize(
    "name, module", [("vgg_d", "vgg16"), ("resnet50", "resnet"), ("inception_v3", "inception_v3")]
)
def test_keras_own_preprocessing(keras, name, module):
    image = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    recipe = names.LAYOUTS["keras"][name](name, {}).preprocessing
    ours = dataclasses.replace(recipe, resize=0, crop=299).apply(image)
    expected = getattr(keras.applications, module).preprocess_input(image.astype(np.float32))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
