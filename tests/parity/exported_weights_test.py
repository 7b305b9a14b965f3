"""Files that `pretrained.save` writes for other libraries, loaded by those libraries: their logits
are ours. Skipped without the libraries.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained.preprocessing import TORCHVISION
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


def draw_weights(name, side, options):
    """Our model's parameters and statistics, none of which has a value that a library starts from:
    also the scales of batch norm are of both signs.
    """
    model = models.create(name, CLASSES, **options)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    draw = np.random.default_rng(0)

    def value(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            bound = (6 / np.prod(leaf.shape[:-1])) ** 0.5
            return (draw.random(leaf.shape, np.float32) * 2 - 1) * np.float32(bound)
        if kind == "var":
            return draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        values = draw.normal(0, 0.3, leaf.shape).astype(np.float32)
        return (
            draw.choice([-1, 1, 1], leaf.shape).astype(np.float32) + values * (np.float32(0.3))
            if kind == "scale"
            else values
        )

    return model, *jax.tree.map_with_path(value, shapes)


# Auxiliary heads see the whole map: their layers have the shapes of the paper's images.
HEADS_FOR = {"googlenet_bn": 224, "inception_v3": 299}


def recipe(side):
    return dataclasses.replace(TORCHVISION, crop=side, resize=side)


def compute_logits(name, model, params, stats, x):
    forward = compiled(name, lambda params, stats, x: model.apply(params, stats, x)[0])
    return np.asarray(forward(params, stats, jnp.asarray(x)))


def check_equal(ours, theirs):
    assert ours.shape == theirs.shape == (2, CLASSES)
    scale = np.abs(theirs).max()
    assert np.ptp(theirs, axis=0).max() > 0.01 * scale  # else any net of the same biases would do
    assert np.abs(ours - theirs).max() < 1e-4 * scale


TORCH = [
    ("alexnet_owt", "alexnet", 224, {}),
    ("vgg_a", "vgg11_bn", 64, {"norm": "bn"}),
    ("vgg_d", "vgg16", 64, {}),
    ("resnet18", "resnet18", 64, {}),
    ("resnet50", "resnet50", 64, {"stride_in": "3x3"}),
    ("googlenet_bn", "googlenet", 64, {"aux_heads": True}),
    ("inception_v3", "inception_v3", 107, {"aux_heads": True, "count_padding": True}),
]


@pytest.mark.parametrize("name, theirs, side, options", TORCH, ids=[row[1] for row in TORCH])
def test_torchvision_loads_our_file(name, theirs, side, options, tmp_path):
    torch, net = torch_net(theirs)
    drawn_at = HEADS_FOR.get(name, side)
    model, params, stats = draw_weights(name, drawn_at, options)
    x = images(side)
    with torch.no_grad():
        ours = compute_logits(name, model, params, stats, x)
        for ending in (".pth", ".safetensors"):
            for tensor in net.state_dict().values():
                tensor.zero_()
            path = tmp_path / f"net{ending}"
            save = (name, params, stats, CLASSES, recipe(drawn_at), options)
            pretrained.save(path, *save, format="torchvision")
            if ending == ".pth":
                state = torch.load(path, weights_only=True)
            else:
                state = imported("safetensors.torch").load_file(path)
            net.load_state_dict(state, strict=True)
            theirs = net(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()).numpy()
            check_equal(ours, theirs)


TIMM = [
    ("resnet18", "resnet18", 64, {}),
    ("vgg_a", "vgg11", 224, {}),
    ("inception_v3", "inception_v3", 107, {"aux_heads": False, "count_padding": True}),
]


@pytest.mark.parametrize("name, theirs, side, options", TIMM, ids=[row[1] for row in TIMM])
def test_timm_loads_our_file(name, theirs, side, options, tmp_path):
    torch, timm = imported("torch"), imported("timm")
    model, params, stats = draw_weights(name, side, options)
    x, path = images(side), tmp_path / "net.safetensors"
    pretrained.save(path, name, params, stats, CLASSES, recipe(side), options, format="timm")
    net = timm.create_model(theirs, num_classes=CLASSES, checkpoint_path=str(path)).eval()
    with torch.no_grad():
        theirs = net(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()).numpy()
    check_equal(compute_logits(name, model, params, stats, x), theirs)


KERAS_RESNET = {"stride_in": "1x1", "conv_bias": True, "bn_epsilon": 1.001e-5}
KERAS = [
    ("vgg_d", "VGG16", 32, {}),
    ("resnet50", "ResNet50", 32, KERAS_RESNET),
    ("inception_v3", "InceptionV3", 75, {"aux_heads": False}),
]


@pytest.fixture(scope="module")
def keras():
    with drawn_keras() as keras:
        yield keras


@pytest.mark.parametrize("name, theirs, side, options", KERAS, ids=[row[1] for row in KERAS])
def test_keras_loads_our_file(keras, name, theirs, side, options, tmp_path):
    model, params, stats = draw_weights(name, side, options)
    x, path = images(side), tmp_path / "net.h5"
    pretrained.save(path, name, params, stats, CLASSES, recipe(side), options, format="keras")
    with as_jax_is():
        keras.utils.clear_session()  # Inception's layers are numbered from 0.
        net = getattr(keras.applications, theirs)(
            weights=None, input_shape=(side, side, 3), classes=CLASSES, classifier_activation=None
        )
        net.load_weights(path, by_name=True)
        values = [
            [v.value for v in variables]
            for variables in (net.trainable_variables, net.non_trainable_variables)
        ]
        forward = compiled(
            name,
            lambda trained, others, x: net.stateless_call(trained, others, x, training=False)[0],
        )
        theirs = np.asarray(forward(*values, x))
    check_equal(compute_logits(name, model, params, stats, x), theirs)


def test_a_file_for_torch_reads_back_to_the_same_bits(tmp_path):
    """Without PyTorch: our own reader takes what the writer wrote."""
    options = {"stride_in": "3x3"}
    _, params, stats = draw_weights("resnet50", 64, options)
    for ending in (".pth", ".safetensors"):
        path = tmp_path / f"net{ending}"
        save = ("resnet50", params, stats, CLASSES, recipe(64), options)
        pretrained.save(path, *save, format="torchvision")
        loaded = pretrained.load("resnet50", path)
        assert loaded.options == options and loaded.num_classes == CLASSES
        jax.tree.map(np.testing.assert_array_equal, (params, stats), tuple(loaded[:2]))


WRONG = {
    "another model": ("lenet5", {}, "torchvision", ".pth", "format=torchvision: has no lenet5"),
    "other computation": (
        "resnet50",
        {},
        "torchvision",
        ".pth",
        "has stride_in='3x3', this one stride_in='1x1': train it with model.stride_in=3x3",
    ),
    "ending": ("resnet18", {}, "keras", ".pth", "format=keras: its files end in .h5"),
    "format": ("resnet18", {}, "onnx", ".onnx", "format='onnx': choose native | torchvision"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_library_cannot_hold_is_told(kind, tmp_path):
    name, options, format, ending, words = WRONG[kind]
    side = 32
    model = models.create(name, CLASSES, **options)
    channels = 1 if name == "lenet5" else 3
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    params, stats = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    images = pretrained.Preprocessing(side, (0.0,) * channels, (1.0,) * channels)
    path = tmp_path / f"net{ending}"
    with pytest.raises(UserError) as caught:
        pretrained.save(path, name, params, stats, CLASSES, images, options, format=format)
    assert words in str(caught.value) and not list(tmp_path.iterdir())
