"""The lectures' autoencoder against Keras's, layer by layer as its published script builds it."""

import os

import jax
import numpy as np
import pytest

from cnn_jax import models

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")


def test_codes_and_rebuilt_images_are_keras_s_on_the_same_weights():
    """Every layer as the published script has it: pooling that rounds up, a convolution without
    padding before the last upsampling.
    """
    layers = keras.layers
    image = layers.Input((28, 28, 1))
    x, convs = image, []

    def conv(channels, padding="same", activation="relu"):
        convs.append(layers.Conv2D(channels, (3, 3), activation=activation, padding=padding))
        return convs[-1]

    for channels in (16, 8, 8):
        x = layers.MaxPooling2D((2, 2), padding="same")(conv(channels)(x))
    code = x
    for channels, padding in ((8, "same"), (8, "same"), (16, "valid")):
        x = layers.UpSampling2D((2, 2))(conv(channels, padding)(x))
    theirs = keras.Model(image, [code, conv(1, activation="sigmoid")(x)])
    x = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    model = models.create("autoencoder_lectures")
    params, stats = model.init(jax.random.key(0), x)
    names = [*(f"encoder{i}" for i in (1, 2, 3)), *(f"decoder{i}" for i in (1, 2, 3)), "image"]
    for layer, name in zip(convs, names, strict=True):
        layer.set_weights([np.asarray(params[name][part]) for part in ("kernel", "bias")])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        code, rebuilt = (np.asarray(part) for part in theirs(np.asarray(x)))
    np.testing.assert_allclose(model.features(params, stats, x)["code"], code, atol=1e-5)
    np.testing.assert_allclose(model.apply(params, stats, x)[0], rebuilt, atol=1e-5)
