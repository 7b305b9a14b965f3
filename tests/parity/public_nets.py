"""torchvision's and Keras' nets with weights drawn for tests, small and quick to make."""

import contextlib
import os
import warnings

import jax
import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
CLASSES = 7


def imported(module):
    with warnings.catch_warnings(), as_jax_is():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module)


@contextlib.contextmanager
def as_jax_is():
    """Without the strictness of conftest.py, which is not for Keras."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def images(side):
    return np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)


def compiled(name, forward):
    """Inception's convolutions are all different, and quickest compiled in one; the other nets' are
    few, seen again.
    """
    if name not in ("googlenet_bn", "inception_v3"):
        return forward
    return jax.jit(forward, compiler_options={"xla_backend_optimization_level": 0})


def randomised(torch, net):
    draw = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3, generator=draw)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=draw)
        elif tensor.ndim > 1:  # He's, or deep nets give numbers that know nothing of the image
            tensor.uniform_(-1, 1, generator=draw).mul_((6 / tensor[0].numel()) ** 0.5)
        elif tensor.ndim == 1:
            tensor.normal_(float(name.endswith("weight")), 0.1, generator=draw)
    return net.eval()


def torch_net(theirs):
    torch, torchvision = imported("torch"), imported("torchvision.models")
    with pytest.MonkeyPatch.context() as patch:  # initial values of its own take seconds
        for drawn in ("kaiming_uniform_", "kaiming_normal_", "uniform_"):
            patch.setattr(torch.nn.init, drawn, lambda tensor, *args, **options: tensor)
        options = {} if theirs.startswith(("alexnet", "resnet")) else {"init_weights": False}
        net = getattr(torchvision, theirs)(num_classes=CLASSES, **options)
        # A grid of 2x2 where it has 7x7, which would take half a gigabyte.
        if theirs.startswith("vgg"):
            net.avgpool = torch.nn.AdaptiveAvgPool2d((2, 2))
            net.classifier[0] = torch.nn.Linear(512 * 2 * 2, 4096)
    return torch, randomised(torch, net)


@contextlib.contextmanager
def drawn_keras():
    """Keras, which draws all its initial values, batch norm's statistics too, from numpy: JAX would
    compile each.
    """
    keras, draw = imported("keras"), np.random.default_rng(0)

    def he(self, shape, dtype=None):
        bound = (6 / np.prod(shape[:-1])) ** 0.5
        return (draw.random(shape, np.float32) * 2 - 1) * np.float32(bound)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.VarianceScaling, "__call__", he)
        for kind, low, high in (("Zeros", -0.3, 0.3), ("Ones", 0.5, 1.5)):

            def values(self, shape, dtype=None, low=low, high=high):
                return draw.uniform(low, high, shape).astype(np.float32)

            patch.setattr(getattr(keras.initializers, kind), "__call__", values)
        # Keras numbers nameless layers from where it stopped: Inception's shall not begin with 0.
        with as_jax_is():
            keras.Sequential(
                [keras.Input((8, 8, 3)), keras.layers.Conv2D(1, 1), keras.layers.Conv2D(1, 1)]
            )
        yield keras
