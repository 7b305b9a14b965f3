"""Every net trains: 20 steps over two devices lower its loss on one batch; and its options do what they say."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import mesh, models, optim, step
from cnn_jax.config import Optim

BATCH, CLASSES = 8, 4
# The smallest images that the nets take, and what else keeps them small; those left out take 32x32.
SIDE = {"alexnet": 67, "alexnet_one_tower": 67, "alexnet_half": 67, "alexnet_owt": 63, "zfnet": 47, "lenet5": 28,
        "lenet5_modern": 28, "mlp": 8, "perceptron": 8, "autoencoder": 8, "googlenet": 79, "googlenet_bn": 79,
        "inception_v2": 107, "inception_v3": 107}  # fmt: skip


def small(name):
    options = {"width": 1 / 16}
    if name in ("lenet5", "perceptron"):
        options = {}
    if name.startswith(("alexnet", "zfnet")):
        options["initialiser"] = "he"  # N(0, 0.01^2) is for thousands of inputs, not for narrow layers
    if name.startswith(("resnet", "plain")):
        options["scan_from"] = 2  # compiles one block a stage
    return options


def trained(name, steps, devices, dtype=None, **options):
    """(losses of the steps on one batch, the state after them)."""
    side = SIDE.get(name, 32)
    channels = models.paper_input(name)[0][2]
    images = jax.random.uniform(jax.random.key(1), (BATCH, side, side, channels))
    batch = {"image": images, "label": jnp.arange(BATCH, dtype=jnp.int32) % CLASSES}
    model = models.create(name, CLASSES, dtype=dtype, **small(name) | options)
    feed = types.SimpleNamespace(fetch=lambda arrays, item: item, prepare=lambda arrays, images, key, rows: images)
    rate = {"lenet5": 1e-4}.get(name, 0.01)
    tx = optim.sgd(Optim(learning_rate=rate, schedule="constant", weight_decay=0.0))
    over = mesh.batch_mesh(jax.devices()[:devices])
    state = jax.device_put(step.init_state(model, tx, jax.random.key(0), images[:1]), mesh.replicated(over))
    compiled = step.compile_train(step.train_step(model, tx, feed, jax.random.key(2)), "jit", over)
    sums = [0.0]
    for _ in range(steps):
        state = compiled(state, None, batch)
        sums.append(float(state.sums["loss"]))
    return np.diff(sums), state


@pytest.mark.parametrize("name", models.MODELS)
def test_twenty_steps_on_two_devices_lower_the_loss(name):
    losses, state = trained(name, 20, 2)
    assert int(state.step) == 20 and int(state.nan_step) == -1
    assert np.mean(losses[-3:]) < 0.97 * losses[0], losses
