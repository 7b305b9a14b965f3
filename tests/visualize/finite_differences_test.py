"""Gradients with respect to the images against finite differences, in every model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.smallest import create_smallest

from cnn_jax import models, visualize
from cnn_jax.visualize.scores import has_classes, score_outputs

# One of each kind; the others take minutes to compile, together.
FAMILIES = ("perceptron", "mlp", "lenet5", "lenet5_modern", "autoencoder", "vgg_a", "resnet20")
# Their averages of batch norm are not measured here, so gradients vanish or overflow on the way.
LEFT_OUT = ("resnet1202", "plain18", "plain32", "plain34", "plain44", "plain56", "plain110")
STEPS = (1e-3, 1e-4, 1e-5, 3e-6)  # Short ones have rounding errors, long ones cross ReLUs' kinks.
NAMES = [
    name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow)
    for name in models.MODELS
    if name not in LEFT_OUT
]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences_in_every_model(name):
    """The slope of the score along the gradient is the gradient's length."""
    model, *arrays = create_smallest(name)
    # Differences of float32 are too coarse for steps between two kinks. Averages stay float32.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, stats, images = jax.tree.map(widen, arrays)
        labels = jnp.array([1])

        @jax.jit
        def score(x):
            outputs = model.apply(params, stats, x)[0]
            if has_classes(outputs):
                return score_outputs(model, outputs, images, labels, "logit")[0]
            return -model.score(outputs, images, labels)[0][0]

        gradient = visualize.compute_gradients(model, params, stats, images, labels).gradients
        length = float(jnp.linalg.norm(gradient))
        assert np.isfinite(length) and length > 0
        size = images.size**0.5
        direction = gradient / length * size  # Of one gray level for each pixel, about.
        rises = [
            float(score(images + h * direction) - score(images - h * direction)) for h in STEPS
        ]
    slopes = [rise / (2 * h * size) for rise, h in zip(rises, STEPS, strict=True)]
    errors = [abs(slope - length) / length for slope in slopes]
    assert min(errors) < 0.02, (errors, length)


def widen(array):
    """float32 as float64; others as they are."""
    array = np.asarray(array)
    return jnp.asarray(array, np.float64 if array.dtype == np.float32 else array.dtype)
