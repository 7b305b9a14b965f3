"""The autoencoder: shapes, code, noise and loss."""

import itertools

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


def make_autoencoder(x, name="autoencoder", **options):
    model = models.create(name, **options)
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


def test_the_lectures_code_is_4x4x8_and_its_parameters_are_by_hand():
    x = images(2, 28)
    model, params, stats = make_autoencoder(x, "autoencoder_lectures")
    assert model.features(params, stats, x)["code"].shape == (2, 4, 4, 8)
    rebuilt = model.apply(params, stats, x)[0]
    assert rebuilt.shape == x.shape and rebuilt.min() > 0 and rebuilt.max() < 1
    maps = [1, 16, 8, 8, 8, 8, 16, 1]  # The image, three convolutions, the code, three, the image.
    counted = sum((9 * i + 1) * o for i, o in itertools.pairwise(maps))
    assert summary.summarize_model("autoencoder_lectures").total.parameters == counted == 4_385
    sizes = {name: value.shape for name, value in params["decoder3"].items()}
    assert sizes == {"kernel": (3, 3, 8, 16), "bias": (16,)}


def test_binary_cross_entropy_by_hand():
    x, p = np.array([0.0, 1.0, 0.25]), np.array([0.1, 0.8, 0.5])
    expected = -np.mean(x * np.log(p) + (1 - x) * np.log(1 - p))
    pixels = [jnp.asarray(a, jnp.float32).reshape(1, 1, 3, 1) for a in (p, x)]
    np.testing.assert_allclose(
        autoencoder.compute_binary_cross_entropy(*pixels), [expected], rtol=1e-6
    )
    sure = autoencoder.compute_binary_cross_entropy(jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(sure, -np.log(1e-7), rtol=1e-3)  # Keras's bound, not infinity.


def test_the_lectures_noise_is_clipped():
    """On white images half of the noise is cut off, so that no pixel is above 1."""
    model = models.create("autoencoder_lectures").module.bind(
        {}, rngs={"dropout": jax.random.key(0)}
    )
    noisy = {clip: model.add_noise(jnp.ones((1, 64, 64, 1)), True, clip) for clip in (True, False)}
    assert noisy[True].max() == 1.0 and noisy[True].min() >= 0 and noisy[False].max() > 1.5
    # The mean of min(1, 1 + 0.5 z) is 1 - 0.5 / sqrt(2 pi), except for values clipped at 0.
    assert float(noisy[True].mean()) == pytest.approx(1 - 0.5 / np.sqrt(2 * np.pi), abs=0.02)


def test_the_deeper_code_has_an_eighth_of_the_sides():
    x = images(2, 16, 3)
    model, params, stats = make_autoencoder(x, "autoencoder_deep", width=1 / 16)
    assert model.features(params, stats, x)["code"].shape == (2, 2, 2, 16)
    assert model.apply(params, stats, x)[0].shape == x.shape


@pytest.mark.parametrize("side", [30, 2])
def test_a_side_that_cannot_be_halved_is_refused(side):
    with pytest.raises(
        UserError, match=f"{side}x{side}; sides must be multiples of 4, .*the smallest are 4x4"
    ):
        make_autoencoder(images(1, side))
