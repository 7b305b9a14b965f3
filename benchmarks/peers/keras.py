"""Keras 3 on JAX: functional models and the training step that `fit` compiles."""

import itertools
import os
from collections.abc import Mapping
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers

from benchmarks.peers import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Peer, Spec, read_jax_peak_memory

Tensor = Any


class Sgd(keras.optimizers.SGD):
    """SGD with weight decay in the gradient. Keras's own decays weights apart from momentum."""

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Sets v := m v - lr (g + wd w); w := w + v."""
        decayed = keras.ops.add(gradient, keras.ops.multiply(variable, WEIGHT_DECAY))
        super().update_step(decayed, variable, learning_rate)


def conv_norm(x: Tensor, filters: int, kernel: int, stride: int, name: str, norm: str) -> Tensor:
    """Applies a convolution, padded on both sides, and batch norm."""
    if kernel > 1 and stride > 1:
        x = layers.ZeroPadding2D(kernel // 2)(x)
    padding = "valid" if stride > 1 else "same"
    x = layers.Conv2D(filters, kernel, strides=stride, padding=padding, use_bias=False, name=name)(
        x
    )
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)


def basic(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    """Applies two 3x3 convolutions; zeros pad a shortcut that changes size (option A)."""
    y = layers.ReLU()(conv_norm(x, filters, 3, stride, f"{name}.conv1", f"{name}.norm1"))
    y = conv_norm(y, filters, 3, 1, f"{name}.conv2", f"{name}.norm2")
    if x.shape != y.shape:
        x = keras.ops.pad(
            x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1]))
        )
    return layers.ReLU()(layers.Add()([x, y]))


def bottleneck(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    """Applies 1x1 with the stride, 3x3, 1x1; projects a shortcut that changes size (option B)."""
    y = layers.ReLU()(conv_norm(x, filters, 1, stride, f"{name}.conv1", f"{name}.norm1"))
    y = layers.ReLU()(conv_norm(y, filters, 3, 1, f"{name}.conv2", f"{name}.norm2"))
    y = conv_norm(y, 4 * filters, 1, 1, f"{name}.conv3", f"{name}.norm3")
    if x.shape != y.shape:
        x = conv_norm(x, 4 * filters, 1, stride, f"{name}.projection", f"{name}.projection_norm")
    return layers.ReLU()(layers.Add()([x, y]))


def resnet(x: Tensor, classes: int, sizes: tuple[int, ...], filters: int, block: Any) -> Tensor:
    """Maps images to logits by a ResNet for CIFAR (basic) or ImageNet (bottleneck)."""
    if block is bottleneck:
        x = layers.ReLU()(conv_norm(x, filters, 7, 2, "stem", "stem_norm"))
        # Zeros are the least that ReLU gives, so max pooling ignores this padding.
        x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    else:
        x = layers.ReLU()(conv_norm(x, filters, 3, 1, "stem", "stem_norm"))
    for i, size in enumerate(sizes):
        for j in range(size):
            x = block(x, filters * 2**i, 2 if i > 0 and j == 0 else 1, f"stage{i + 1}_block{j + 1}")
    return layers.Dense(classes, name="head")(layers.GlobalAveragePooling2D()(x))


def vgg_d(x: Tensor, classes: int) -> Tensor:
    """Maps images to logits by VGG's column D."""
    for i, row in enumerate(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), start=1):
        for j, filters in enumerate(row, start=1):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{i}_{j}")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(4096, activation="relu", name="fc6")(layers.Flatten()(x))
    x = layers.Dense(4096, activation="relu", name="fc7")(x)
    return layers.Dense(classes, name="fc8")(x)


def lenet5_modern(x: Tensor, classes: int) -> Tensor:
    """Maps images to logits by LeNet-5's widths with max pooling and ReLU."""
    first = "same" if x.shape[1] <= 28 else "valid"
    x = layers.MaxPooling2D(2)(
        layers.Conv2D(6, 5, padding=first, activation="relu", name="Conv_0")(x)
    )
    x = layers.MaxPooling2D(2)(layers.Conv2D(16, 5, activation="relu", name="Conv_1")(x))
    x = layers.Dense(120, activation="relu", name="Dense_0")(layers.Flatten()(x))
    x = layers.Dense(84, activation="relu", name="Dense_1")(x)
    return layers.Dense(classes, name="Dense_2")(x)


MODELS = {
    "resnet20": lambda x, classes: resnet(x, classes, (3, 3, 3), 16, basic),
    "resnet50": lambda x, classes: resnet(x, classes, (3, 4, 6, 3), 64, bottleneck),
    "vgg_d": vgg_d,
    "lenet5_modern": lenet5_modern,
}


def make_peer(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """Returns the functional model with the step that `fit` would run."""
    keras.config.set_dtype_policy("mixed_bfloat16" if spec.precision == "bfloat16" else "float32")
    inputs = keras.Input(spec.image)
    logits = layers.Activation("linear", dtype="float32")(MODELS[spec.model](inputs, spec.classes))
    model = keras.Model(inputs, logits)
    load_weights(model, weights)
    sgd = Sgd(LEARNING_RATE, momentum=MOMENTUM)
    model.compile(
        sgd, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True
    )
    sgd.build(model.trainable_variables)
    batch = jax.device_put((weights["images"], weights["labels"]))
    model._symbolic_build(data_batch=batch)  # Makes the loss's average, as train_on_batch does.
    model.make_train_function()
    kinds = (
        model.trainable_variables,
        model.non_trainable_variables,
        sgd.variables,
        model.metrics_variables,
    )
    state = tuple([variable.value for variable in kind] for kind in kinds)
    batches, logs = itertools.repeat(batch), {}

    def step() -> None:
        nonlocal state, logs
        logs, state = model.train_function(state, batches)

    def loss() -> float:
        nonlocal state
        mean = float(logs["loss"])
        state = (*state[:3], [jnp.zeros_like(value) for value in state[3]])
        return mean

    return Peer(step, loss, read_jax_peak_memory)


def load_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Copies our weights into the layers of the same names.

    Raises:
      ValueError: If some weights have no layer, or a layer gets no weights.
    """
    given: dict[str, dict[str, np.ndarray]] = {}
    for path in [path for path in weights if path.startswith(("params/", "stats/"))]:
        layer, _, name = path.partition("/")[2].rpartition("/")
        given.setdefault(layer.replace("/", "."), {})[name] = weights[path]
    theirs = {layer.name: layer for layer in model.layers if layer.weights}
    if given.keys() != theirs.keys():
        raise ValueError(f"layers that only one side has: {sorted(given.keys() ^ theirs.keys())}")
    for name, layer in theirs.items():
        order = ("kernel", "bias", "scale", "mean", "var")
        order = ("scale", "bias", "mean", "var") if "scale" in given[name] else order
        layer.set_weights([given[name][key] for key in order if key in given[name]])
