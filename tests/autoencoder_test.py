"""The autoencoder: shapes, the code, noise, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.config import UserError
from cnn_jax.models import autoencoder


def images(count, side, channels=1):
    return jax.random.uniform(jax.random.key(1), (count, side, side, channels))


@pytest.mark.parametrize("side, channels", [(28, 1), (32, 3)])
def test_images_become_codes_and_images_again(side, channels):
    model = autoencoder.create(channels=channels)
    x = images(2, side, channels)
    params = model.init(jax.random.key(0), x)
    codes = model.encode(params, x)
    assert codes.shape == (2, side // 4, side // 4, 8)
    rebuilt = model.decode(params, codes)
    assert rebuilt.shape == x.shape
    np.testing.assert_array_equal(rebuilt, model.apply(params, x))


def test_parameters_by_hand():
    params = autoencoder.create((16, 8)).init(jax.random.key(0), images(1, 28))
    encoder, decoder = (1 * 9 + 1) * 16 + (16 * 9 + 1) * 8, (8 * 9 + 1) * 8 + (8 * 9 + 1) * 16 + (16 * 9 + 1) * 1
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == encoder + decoder


def test_the_noise_is_added_to_what_is_seen_and_not_to_what_is_wanted():
    model, x = autoencoder.create(noise=0.5), images(4, 28)
    params = model.init(jax.random.key(0), x)
    key = jax.random.key(3)
    noisy = x + 0.5 * jax.random.normal(key, x.shape)
    np.testing.assert_allclose(model.apply(params, x, key), model.apply(params, noisy), atol=1e-5)
    expected = np.mean(np.square(np.asarray(model.apply(params, noisy)) - np.asarray(x)))
    assert float(model.loss(params, x, key)) == pytest.approx(float(expected), rel=1e-4)
    assert not np.array_equal(model.apply(params, x, key), model.apply(params, x, jax.random.key(4)))


def test_it_learns_a_batch():
    model, x = autoencoder.create((4,), noise=0.1), images(4, 8)
    params = model.init(jax.random.key(0), x)
    update = jax.jit(jax.value_and_grad(model.loss))
    losses = []
    for k in range(40):
        loss, grads = update(params, x, jax.random.key(k))
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_upsampling_repeats_pixels():
    x = jnp.arange(4, dtype=jnp.float32).reshape(1, 2, 2, 1)
    y = autoencoder.upsampled(x, 2)[0, :, :, 0]
    assert y.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("side", [30, 2])
def test_a_side_that_cannot_be_halved_back_is_told(side):
    with pytest.raises(UserError, match=f"{side}x{side}; sides must be multiples of 4, .*the smallest are 4x4"):
        autoencoder.create().init(jax.random.key(0), images(1, side))
