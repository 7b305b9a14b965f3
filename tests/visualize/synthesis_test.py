"""Synthesized images: they do what they are made for, and the same key gives the same image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers.known_patch import PATTERN, draw_patterns, make_known
from visualize.gradients_test import make_subject

from cnn_jax import visualize
from cnn_jax.visualize.synthesis import blur, measure_variation

KEY = jax.random.key(3)


def test_an_image_of_a_class_holds_its_pattern():
    """The detector's logit can only be raised by drawing the pattern of the class."""
    known = make_known()
    known = known._replace(params=dict(known.params))
    known.params["conv1"] = known.params["conv1"] | {"bias": jnp.zeros(2)}  # No unit is dead.
    labels = jnp.array([0, 1])
    make = functools.partial(
        visualize.maximize_class, *known[:3], labels, (12, 12, 1), KEY, steps=40, rate=0.1
    )
    found = make()
    np.testing.assert_array_equal(make().images, found.images)
    logits, _ = known.model.apply(known.params, known.stats, found.images)
    np.testing.assert_allclose(found.objective, np.diagonal(logits), rtol=1e-5)
    assert (np.asarray(found.objective) > 0).all()
    patterns = draw_patterns()
    for label, image in enumerate(np.asarray(found.images)[..., 0]):
        windows = np.lib.stride_tricks.sliding_window_view(image, (PATTERN, PATTERN))
        fits = [
            np.max((windows * (bits - bits.mean())).sum((-1, -2)))
            for bits in np.moveaxis(patterns[:, :, 0], -1, 0)
        ]
        assert np.argmax(fits) == label


def test_a_dream_makes_its_layer_more_active():
    model, params, stats, images, _ = make_subject()
    maps = model.features(params, stats, images)["conv2"]
    before = 0.5 * np.square(maps).mean((1, 2, 3))
    found = visualize.dream(model, params, stats, images, "conv2", KEY, steps=8)
    assert (np.asarray(found.objective) > 1.3 * before).all()
    assert np.abs(found.images - images).max() < 8 * 0.02 * 3  # Adam's steps are bounded.


def test_an_inversion_finds_the_code_again():
    """Of the first layer also the image, nearly."""
    model, params, stats, images, _ = make_subject()
    found = visualize.invert(
        model, params, stats, images, "conv1", KEY, steps=150, rate=0.1, variation=0.0
    )
    codes = [np.asarray(model.features(params, stats, x)["conv1"]) for x in (found.images, images)]
    distances = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(*codes, strict=True)]
    np.testing.assert_allclose(found.objective, distances, rtol=1e-3)
    assert max(distances) < 0.15
    near = np.corrcoef(np.ravel(found.images), np.ravel(images))[0, 1]
    assert near > 0.8


def test_total_variation_and_blur_by_hand():
    image = jnp.array([[0.0, 4.0, 0.0], [0.0, 4.0, 0.0]])[None, :, :, None]
    assert float(measure_variation(image)[0]) == 16.0
    np.testing.assert_array_equal(blur(image)[0, :, :, 0], [[1, 2, 1]] * 2)
    np.testing.assert_allclose(blur(jnp.ones((1, 3, 4, 2))), np.ones((1, 3, 4, 2)))
