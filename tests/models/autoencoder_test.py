"""The autoencoder: shapes, code, noise and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.cost import summary
from cnn_jax.errors import UserError
from cnn_jax.models import autoencoder


def images(count, side, channels=1):
    return jax.random.uniform(jax.random.key(1), (count, side, side, channels))


def make_autoencoder(x, **options):
    model = models.create("autoencoder", **options)
    return model, *model.init(jax.random.key(0), x)


@pytest.mark.parametrize("side, channels", [(28, 1), (32, 3)])
def test_images_are_encoded_and_decoded(side, channels):
    x = images(2, side, channels)
    model, params, stats = make_autoencoder(x)
    assert model.features(params, stats, x)["code"].shape == (2, side // 4, side // 4, 8)
    assert model.apply(params, stats, x)[0].shape == x.shape


def test_parameters_by_hand():
    encoder, decoder = (
        (1 * 9 + 1) * 16 + (16 * 9 + 1) * 8,
        (8 * 9 + 1) * 8 + (8 * 9 + 1) * 16 + (16 * 9 + 1) * 1,
    )
    assert summary.summarize_model("autoencoder").total.parameters == encoder + decoder


def test_noise_is_added_in_training_only():
    x = images(4, 28)
    model, params, stats = make_autoencoder(x)

    def apply(model, **train):
        return model.apply(params, stats, x, **train)[0]

    noisy = apply(model, train=True, key=jax.random.key(3))
    assert not np.allclose(noisy, apply(model)) and not np.allclose(
        noisy, apply(model, train=True, key=jax.random.key(4))
    )
    quiet = models.create("autoencoder", input_noise_std=0.0)
    np.testing.assert_array_equal(apply(quiet, train=True, key=jax.random.key(3)), apply(model))


def test_the_score_is_against_the_images_by_hand():
    x, rebuilt = np.asarray(images(3, 4)), np.asarray(images(6, 4))[3:]
    loss, error = autoencoder.Autoencoder.score(jnp.asarray(rebuilt), jnp.asarray(x), None)
    np.testing.assert_allclose(
        loss, [((r - i) ** 2).mean() for r, i in zip(rebuilt, x, strict=True)], rtol=1e-5
    )
    np.testing.assert_allclose(
        error, [((r - i) ** 2).mean() / i.var() for r, i in zip(rebuilt, x, strict=True)], rtol=1e-5
    )


def test_an_image_of_one_value_is_rebuilt_or_not():
    x = jnp.ones((2, 4, 4, 1))
    _, error = autoencoder.Autoencoder.score(x.at[1].add(0.1), x, None)
    assert error.tolist() == [0.0, 1.0]


def test_upsampling_repeats_pixels():
    x = jnp.arange(4, dtype=jnp.float32).reshape(1, 2, 2, 1)
    y = autoencoder.upsample(x, 2)[0, :, :, 0]
    assert y.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("side", [30, 2])
def test_a_side_that_cannot_be_halved_is_refused(side):
    with pytest.raises(
        UserError, match=f"{side}x{side}; sides must be multiples of 4, .*the smallest are 4x4"
    ):
        make_autoencoder(images(1, side))
