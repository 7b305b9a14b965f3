"""Parity in training: gradients, moved batch statistics and auxiliary logits are those of the nets in torch.nn."""

from functools import partial

import flax.linen
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_inceptions as inceptions  # noqa: E402
import torch_nets as nets  # noqa: E402
from torch_weights import QUICKLY, difference, drawn, flat, images, loaded, settle, to_torch  # noqa: E402

from cnn_jax import models  # noqa: E402
from cnn_jax.models.lenet import bitmaps  # noqa: E402
from cnn_jax.training import train_step  # noqa: E402


def pair(name, make, shape, count, scale=1.0, shift=0.0, **options):
    """Our net with its weights, images, and the torch net with the same weights."""
    model = models.create(name, 10, **options)
    params, stats = drawn(model, shape, scale, shift)
    x = images(shape, count, scale)
    net = loaded(make, params, stats)
    return model, params, settle(net, stats, x), x, net


def trained(net, x):
    """The torch net's logits in training and {name: running statistics} after them."""
    logits = net.train()(to_torch(x))
    return logits, {name: buffer for name, buffer in net.named_buffers() if not name.endswith("num_batches_tracked")}


def apart(ours, theirs, tolerance):
    """{name: difference} of the tensors that differ by more than the tolerance."""
    assert ours.keys() == theirs.keys() and all(tensor.abs().max() > 0 for tensor in theirs.values())
    return {name: d for name in ours if not (d := difference(ours[name], theirs[name])) < tolerance}


@pytest.mark.parametrize(
    "name, make, shape, scale, options",
    [
        ("lenet5", lambda: nets.lenet5(torch.from_numpy(bitmaps())), (32, 32, 1), 1.0, {}),
        ("alexnet", partial(nets.alexnet, (67, 67), 10), (67, 67, 3), 60.0, {"dropout": 0.0}),
        ("resnet20", partial(nets.resnet, 10, (3, 3, 3), shortcut="A"), (9, 12, 3), 1.0, {}),
    ],
    ids=["lenet5", "alexnet", "resnet20"],
)
def test_gradients_are_those_of_the_torch_net(name, make, shape, scale, options):
    """On small images: one unit that rounding puts on the other side of a ReLU's kink would be a difference."""
    model, params, stats, x, net = pair(name, make, shape, 4, scale, shift=1.0, **options)
    labels = np.array([3, 1, 4, 1], np.int32)

    def loss(params):
        logits, after = model.apply(params, stats, x, train=True)
        return train_step.cross_entropy(logits, labels).mean(), (logits, after)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICKLY)
    (value, (logits, after)), gradients = run(params)
    their_logits, their_stats = trained(net, x)
    their_loss = torch.nn.functional.cross_entropy(their_logits, torch.from_numpy(labels).long())
    their_loss.backward()

    assert float(value) == pytest.approx(their_loss.item(), rel=1e-5)
    assert difference(logits, their_logits.detach()) < 1e-4
    assert apart(flat(gradients), {key: p.grad for key, p in net.named_parameters()}, 1e-3) == {}
    assert apart(flat(after), their_stats, 1e-4) == {}


PORT = {"norm": True, "larger": 3, "last_pool": 2}
V2 = {"factorised": False, "head_norm": False, "count_padding": True}


def undropped(call, args, kwargs, context):
    """Dropout leaves everything, in the auxiliary heads too, where no option turns it off."""
    return args[0] if isinstance(context.module, flax.linen.Dropout) else call(*args, **kwargs)


# Grids of 5x8 and 5x6 before the heads: 1x2 places in GoogLeNet's, and 1x2 or 1x1 in the others'.
@pytest.mark.parametrize(
    "name, net, told, size, scale, options",
    [
        ("googlenet", inceptions.googlenet, {}, (79, 128), 60.0, {}),
        ("googlenet_bn", inceptions.googlenet, PORT, (79, 128), 1.0, {}),
        ("inception_v2", inceptions.inception_v3, V2, (107, 155), 1.0, {"count_padding": True}),
        ("inception_v3", inceptions.inception_v3, {}, (107, 155), 1.0, {}),
    ],
    ids=["googlenet", "googlenet_bn", "inception_v2", "inception_v3"],
)
def test_auxiliary_logits_are_those_of_the_torch_net(name, net, told, size, scale, options):
    make = partial(net, size, 10, **told)
    model, params, stats, x, net = pair(name, make, (*size, 3), 2, scale, shift=1.0, **options)
    with flax.linen.intercept_methods(undropped):
        ours, after = jax.jit(partial(model.apply, train=True), compiler_options=QUICKLY)(params, stats, x)
    with torch.no_grad():
        theirs, their_stats = trained(net, x)
    assert len(ours) == len(theirs) == (3 if name.startswith("googlenet") else 2)
    for logits, their_logits in zip(ours, theirs, strict=True):
        assert np.ptp(their_logits.numpy(), 0).max() > 0.02 * their_logits.abs().max()
        assert difference(logits, their_logits) < 1e-4
    assert apart(flat(after), their_stats, 1e-4) == {}
