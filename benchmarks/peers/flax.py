"""Plain Flax: models and a jitted step in the manner of Flax's public ImageNet example."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from benchmarks.peers import (
    AUXILIARY_WEIGHT,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Peer,
    Spec,
    nest,
    read_jax_peak_memory,
)
from benchmarks.peers.flax_inceptions import GoogLeNet, InceptionV3
from benchmarks.peers.flax_nets import (
    AlexNet,
    BasicBlock,
    BottleneckBlock,
    Lenet,
    Lenet5,
    Mlp,
    ResNet,
    SmallCnn,
    Vgg,
)

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": functools.partial(ResNet, stage_sizes=(3, 3, 3), filters=16, block=BasicBlock),
    "resnet56": functools.partial(ResNet, stage_sizes=(9, 9, 9), filters=16, block=BasicBlock),
    "plain56": functools.partial(
        ResNet,
        stage_sizes=(9, 9, 9),
        filters=16,
        block=functools.partial(BasicBlock, shortcut=False),
    ),
    "resnet50": functools.partial(
        ResNet, stage_sizes=(3, 4, 6, 3), filters=64, block=BottleneckBlock
    ),
    "vgg_d": Vgg,
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
    "inception_v3": InceptionV3,
    "small_cnn": SmallCnn,
    "lenet5": Lenet5,
    "lenet5_modern": Lenet,
    "mlp_500_150": functools.partial(Mlp, hidden=(500, 150)),
}


class TrainState(train_state.TrainState):
    """A train state with batch norm's running averages."""

    batch_stats: Any


def train_step(
    state: TrainState, batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates the state; returns it with the batch's loss and accuracy before the update."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        outputs, moved = state.apply_fn(variables, batch["image"], mutable=["batch_stats"])
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = cross_entropy(logits, batch["label"])
        for head in auxiliary:
            loss += AUXILIARY_WEIGHT * cross_entropy(head, batch["label"])
        return loss, (moved, logits)

    (loss, (moved, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=moved.get("batch_stats", {}))
    return state, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["label"])}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean softmax cross-entropy of logits [B, classes] and labels [B]."""
    logits = logits.astype(jnp.float32)
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    return jnp.mean(optax.softmax_cross_entropy(logits=logits, labels=one_hot))


def make_peer(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """Returns the plain model with its jitted step."""
    codes = {"codes": weights["codes"]} if "codes" in weights else {}  # LeNet-5's.
    model = MODELS[spec.model](classes=spec.classes, dtype=jnp.dtype(spec.precision), **codes)
    sgd = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    state = TrainState.create(
        apply_fn=model.apply,
        params=jax.device_put(nest(weights, "params")),
        batch_stats=jax.device_put(nest(weights, "stats")),
        tx=optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), sgd),
    )
    batch = jax.device_put({"image": weights["images"], "label": weights["labels"]})
    train = jax.jit(train_step)
    metrics: dict[str, jax.Array] = {}

    def step() -> None:
        nonlocal state, metrics
        state, metrics = train(state, batch)

    return Peer(step, lambda: float(metrics["loss"]), read_jax_peak_memory)
