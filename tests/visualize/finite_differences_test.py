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
STEPS = (1e-3, 3e-4, 1e-4)  # Short ones have rounding errors, long ones cross the kinks of ReLUs.
NAMES = [
    name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow)
    for name in models.MODELS
]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences_in_every_model(name):
    """The slope of the score along the gradient is the gradient's length."""
    model, params, stats, images = create_smallest(name)
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
    direction = gradient / length * images.size**0.5  # Of one gray level for each pixel, about.
    slopes = [float(score(images + h * direction) - score(images - h * direction)) / (2 * h)
              for h in STEPS]  # fmt: skip
    errors = [abs(slope / images.size**0.5 - length) / length for slope in slopes]
    assert min(errors) < 0.02, (errors, length)
