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
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Peer,
    Spec,
    nest,
    read_jax_peak_memory,
)

ModuleDef = Any
SAME3 = [(1, 1), (1, 1)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut that changes size is padded with zeros (option A)."""

    filters: int
    strides: tuple[int, int]
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, filters]."""
        y = self.conv(self.filters, (3, 3), self.strides, padding=SAME3, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.filters, (3, 3), padding=SAME3, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        if x.shape != y.shape:
            x = x[:, :: self.strides[0], :: self.strides[1]]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.filters - x.shape[-1])))
        return nn.relu(x + y)


class BottleneckBlock(nn.Module):
    """1x1 with the stride, 3x3, 1x1; a shortcut that changes size is projected (option B)."""

    filters: int
    strides: tuple[int, int]
    conv: ModuleDef
    norm: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 filters]."""
        y = self.conv(self.filters, (1, 1), self.strides, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y))
        y = self.conv(self.filters, (3, 3), padding=SAME3, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y))
        y = self.conv(4 * self.filters, (1, 1), name="conv3")(y)
        y = self.norm(name="norm3")(y)
        if x.shape != y.shape:
            x = self.conv(4 * self.filters, (1, 1), self.strides, name="projection")(x)
            x = self.norm(name="projection_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet for CIFAR (basic blocks) or ImageNet (bottleneck blocks)."""

    stage_sizes: tuple[int, ...]
    filters: int
    block: ModuleDef
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 3] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        if self.block is BottleneckBlock:
            x = conv(self.filters, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name="stem")(x)
            x = nn.relu(norm(name="stem_norm")(x))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        else:
            x = nn.relu(
                norm(name="stem_norm")(conv(self.filters, (3, 3), padding=SAME3, name="stem")(x))
            )
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                strides = (2, 2) if i > 0 and j == 0 else (1, 1)
                name = f"stage{i + 1}_block{j + 1}"
                x = self.block(
                    self.filters * 2**i, strides=strides, conv=conv, norm=norm, name=name
                )(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x)


class Vgg(nn.Module):
    """VGG's column D, 16 layers."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 3] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        for i, filters in enumerate(
            ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1
        ):
            for j, features in enumerate(filters, start=1):
                x = nn.relu(conv(features, name=f"conv{i}_{j}")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="fc6")(x))
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="fc7")(x))
        return nn.Dense(self.classes, dtype=self.dtype, name="fc8")(x)


class Lenet(nn.Module):
    """LeNet-5's widths with max pooling and ReLU."""

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Maps images [B, H, W, 1] to logits [B, classes]."""
        conv = functools.partial(nn.Conv, kernel_size=(5, 5), dtype=self.dtype)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        x = nn.relu(conv(6, padding="SAME" if x.shape[1] <= 28 else "VALID")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(conv(16, padding="VALID")(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(dense(120)(x))
        x = nn.relu(dense(84)(x))
        return dense(self.classes)(x)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": functools.partial(ResNet, stage_sizes=(3, 3, 3), filters=16, block=BasicBlock),
    "resnet50": functools.partial(
        ResNet, stage_sizes=(3, 4, 6, 3), filters=64, block=BottleneckBlock
    ),
    "vgg_d": Vgg,
    "lenet5_modern": Lenet,
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
        logits, moved = state.apply_fn(variables, batch["image"], mutable=["batch_stats"])
        logits = logits.astype(jnp.float32)
        one_hot = jax.nn.one_hot(batch["label"], logits.shape[-1])
        loss = jnp.mean(optax.softmax_cross_entropy(logits=logits, labels=one_hot))
        return loss, (moved, logits)

    (loss, (moved, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=moved.get("batch_stats", {}))
    return state, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["label"])}


def make_peer(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """Returns the plain model with its jitted step."""
    model = MODELS[spec.model](classes=spec.classes, dtype=jnp.dtype(spec.precision))
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
