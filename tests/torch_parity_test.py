"""Forward parity: with the same weights our nets give the logits of the papers' nets in torch.nn."""

from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_inceptions as inceptions  # noqa: E402
import torch_nets as nets  # noqa: E402
from torch_weights import QUICKLY, difference, drawn, images, loaded, settle, to_torch  # noqa: E402

from cnn_jax import models  # noqa: E402
from cnn_jax.models.lenet import bitmaps  # noqa: E402

LARGE = 60.0  # images on which the sums of squares of an LRN count beside its k = 2
OWT = {"maps": (64, 192, 384, 256, 256), "towers": 1, "padding": 2, "lrn": False}
HALF = {"maps": (48, 128, 192, 192, 256), "towers": 1}
PORT = {"norm": True, "larger": 3, "last_pool": 2}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def case(name, height, width, make, scale=1.0, channels=3, **options):
    said = "-".join([f"{name}-{height}x{width}", *(f"{key}={value}" for key, value in options.items())])
    return pytest.param(name, (height, width, channels), make, scale, options, id=said)


def sized(net, name, height, width, said=None, scale=1.0, **options):
    """A case of a net whose dense layers depend on the images' size; said: what its torch net is told."""
    return case(name, height, width, partial(net, (height, width), classes=10, **(said or {})), scale, **options)


def headless(net, name, height, width, said=None, scale=1.0, **options):
    return sized(net, name, height, width, {"heads": False, **(said or {})}, scale, aux_heads=False, **options)


def lenet5():
    return nets.lenet5(torch.from_numpy(bitmaps()))


def cifar(depth, height, width, plain=False):
    n = (depth - 2) // 6
    make = partial(nets.resnet, 10, (n, n, n), shortcut="plain" if plain else "A")
    return case(f"{'plain' if plain else 'resnet'}{depth}", height, width, make)


def imagenet(depth, height, width, **options):
    said = {"bias" if key == "conv_bias" else key: value for key, value in options.items()}
    make = partial(nets.resnet, 10, BLOCKS[depth], bottleneck=depth >= 50, **said)
    return case(f"resnet{depth}", height, width, make, **options)


def plain(depth):
    return case(f"plain{depth}", 65, 48, partial(nets.resnet, 10, BLOCKS[depth], shortcut="plain"))


# Odd sizes and unequal sides, where two conventions of padding or flattening would differ.
CASES = [
    case("mlp", 9, 7, partial(nets.mlp, 9 * 7 * 3, 10), hidden=()),
    case("mlp", 9, 7, partial(nets.mlp, 9 * 7 * 3, 256, 10)),
    case("mlp", 5, 7, partial(nets.mlp, 105, 9, 8, 10, activation=torch.nn.Tanh), hidden=(9, 8), activation="tanh"),
    case("lenet5", 32, 32, lenet5, channels=1),
    case("lenet5", 28, 28, lenet5, channels=1),
    case("lenet5_modern", 28, 28, partial(nets.lenet5_modern, 28, 10), channels=1),
    case("lenet5_modern", 33, 33, partial(nets.lenet5_modern, 33, 10), channels=1),
    sized(nets.alexnet, "alexnet", 99, 131, scale=LARGE),
    sized(nets.alexnet, "alexnet_one_tower", 67, 99, {"towers": 1}, scale=LARGE),
    sized(nets.alexnet, "alexnet_half", 72, 67, HALF, scale=LARGE),
    sized(nets.alexnet, "alexnet_owt", 63, 97, OWT),
    sized(nets.zfnet, "zfnet", 65, 97, scale=LARGE),
    sized(nets.zfnet, "zfnet", 80, 64, scale=LARGE),
    sized(nets.vgg, "vgg_a", 32, 32, {"column": "A"}),
    sized(nets.vgg, "vgg_a", 32, 65, {"column": "A", "batch_norm": True}, norm="bn"),
    sized(nets.vgg, "vgg_a_lrn", 32, 64, {"column": "A-LRN"}, scale=LARGE),
    sized(nets.vgg, "vgg_b", 32, 32, {"column": "B"}),
    sized(nets.vgg, "vgg_c", 65, 33, {"column": "C"}),
    sized(nets.vgg, "vgg_d", 32, 32, {"column": "D"}),
    sized(nets.vgg, "vgg_e", 32, 32, {"column": "E"}),
    headless(inceptions.googlenet, "googlenet", 64, 49, scale=LARGE),
    headless(inceptions.googlenet, "googlenet_bn", 65, 80, PORT),
    case("bn_inception", 65, 96, partial(inceptions.bn_inception, 10)),
    headless(inceptions.inception_v3, "inception_v3", 75, 97),
    cifar(20, 33, 25),
    cifar(20, 32, 32, plain=True),
    cifar(32, 32, 32),
    cifar(56, 32, 32),
    cifar(110, 32, 32),
    *(imagenet(depth, 65, 48, shortcut=shortcut) for depth in BLOCKS for shortcut in "ABC"),
    imagenet(50, 65, 48, stride_in="3x3", conv_bias=True),
    plain(18),
    plain(34),
]  # fmt: skip


@pytest.mark.parametrize("name, shape, make, scale, options", CASES)
def test_logits_are_those_of_the_torch_net(name, shape, make, scale, options):
    model = models.create(name, 10, **options)
    params, stats = drawn(model, shape, scale)
    x = images(shape, 2, scale)
    net = loaded(make, params, stats)
    stats = settle(net, stats, x)
    with torch.no_grad():
        theirs = net(to_torch(x)).numpy()
    run = lambda *args: model.apply(*args)[0]
    if not name.startswith(("resnet", "plain")):  # which repeat few layers: quicker one by one, compiled once for all
        run = jax.jit(run, compiler_options=QUICKLY)
    ours = run(params, stats, x)
    # The logits differ between images and between classes, or parity would say little.
    assert min(np.ptp(theirs, axis).max() for axis in (0, 1)) > 0.02 * np.abs(theirs).max()
    assert difference(ours, theirs) < 1e-4
