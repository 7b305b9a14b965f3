"""Each augmentation of the configuration is the operation of its name, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.config import Data, choose
from cnn_jax.data import augment
from cnn_jax.data.preprocess import KEYS, preprocess

NOTHING = {"dataset": choose("fake"), "pad_and_crop": 0, "flip": False}
ROWS = jnp.arange(16)
STEP_KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 9, 9, 3), np.uint8)
SCALED = IMAGES.astype(np.float32) / 255
MEAN = np.full((1, 9, 9, 3), 100, np.float32)
PCA = augment.measure_pca(IMAGES)

# {field: (value, the key's name, operation of keys and images that the mean was subtracted from)}
MOVES = {
    "color_pca": (True, "pca", lambda keys, x: augment.add_pca_noise(keys, x, *PCA)),
    "pad_and_crop": (2, "pad", lambda keys, x: augment.pad_and_crop(keys, x, 2)),
    "shift": (3, "shift", lambda keys, x: augment.shift(keys, x, 3)),
    "rotate": (20.0, "rotate", lambda keys, x: augment.rotate(keys, x, 20.0)),
    "affine": (
        (1.0, 0.2, 0.1, 0.1),
        "affine",
        lambda keys, x: augment.affine(keys, x, 1.0, 0.2, 0.1, 0.1),
    ),
    "flip": (True, "flip", augment.flip),
    "vertical_flip": (True, "vertical_flip", augment.vertical_flip),
    "gaussian_noise": (0.1, "noise", lambda keys, x: augment.add_noise(keys, x, 0.1)),
}


def preprocess_with(**augmentations):
    data = Data(**NOTHING | augmentations)
    return preprocess(data, {"mean": MEAN, "pca": PCA}, jnp.asarray(IMAGES), STEP_KEY, ROWS)


def draw_row_keys(name):
    keys = dict(zip(KEYS, jax.random.split(STEP_KEY, len(KEYS)), strict=True))
    return augment.make_row_keys(keys[name], ROWS)


def test_without_augmentation_the_mean_is_subtracted():
    expected = (IMAGES.astype(np.float32) - 100) / 255
    np.testing.assert_allclose(preprocess_with(), expected, rtol=1e-6)


@pytest.mark.parametrize("field", MOVES)
def test_a_field_applies_its_operation_after_the_mean(field):
    value, name, operation = MOVES[field]
    centered = jnp.asarray((IMAGES.astype(np.float32) - 100) / 255)
    found = preprocess_with(**{field: value})
    np.testing.assert_allclose(found, operation(draw_row_keys(name), centered), atol=1e-6)
    assert np.abs(found - centered).max() > 0.01


def test_color_jitter_is_applied_before_the_mean():
    found = preprocess_with(color_jitter=(0.4, 0.4, 0.4, 0.1))
    jittered = augment.color_jitter(draw_row_keys("jitter"), SCALED, 0.4, 0.4, 0.4, 0.1)
    np.testing.assert_allclose(found, jittered - 100 / 255, atol=1e-5)
    assert np.abs(found - preprocess_with()).max() > 0.01
