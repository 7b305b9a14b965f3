"""Maps of gradients: finite differences, completeness, repeatability, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, visualize
from cnn_jax.errors import UserError
from cnn_jax.visualize.scores import score_outputs

LABELS = jnp.array([2, 0])


@functools.cache
def make_subject():
    """A small LeNet: (model, params, stats, images, labels)."""
    model = models.create("lenet5_modern", 4, width=0.5)
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 2))
    return model, *model.init(jax.random.key(0), images), images, LABELS


def score(images, name="logit"):
    model, params, stats, _, labels = make_subject()
    outputs, _ = model.apply(params, stats, images)
    return np.asarray(score_outputs(model, outputs, images, labels, name))


@pytest.mark.parametrize("name", visualize.SCORES)
def test_gradients_are_finite_differences(name):
    *_, images, _ = subject = make_subject()
    found = visualize.compute_gradients(*subject, score=name)
    np.testing.assert_allclose(found.scores, score(images, name), rtol=1e-5)
    direction = jax.random.normal(jax.random.key(2), images.shape)
    step = 2e-4  # So small that few units come to their kink.
    ends = [score(images + sign * step * direction, name) for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    slopes = np.asarray((found.gradients * direction).sum((1, 2, 3)))
    np.testing.assert_allclose(slopes, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_scores_are_what_they_say():
    model, params, stats, images, _ = make_subject()
    logits = np.float64(model.apply(params, stats, images)[0])
    chosen = logits[[0, 1], LABELS]
    shares = np.exp(chosen) / np.exp(logits).sum(1)
    for name, expected in (
        ("logit", chosen),
        ("log_probability", np.log(shares)),
        ("probability", shares),
    ):
        np.testing.assert_allclose(score(images, name), expected, rtol=1e-4)


def test_each_image_has_its_own_gradient():
    model, params, stats, images, labels = make_subject()
    both = visualize.compute_saliency(model, params, stats, images, labels)
    assert both.shape == (2, 16, 16) and both.min() >= 0
    swapped = visualize.compute_saliency(model, params, stats, images[::-1], labels[::-1])
    np.testing.assert_allclose(swapped, both[::-1], rtol=1e-4, atol=1e-6)


def test_integrated_gradients_are_complete():
    """They add up to the score's difference, the better the more steps there are."""
    *_, images, _ = subject = make_subject()
    baseline = jnp.full_like(images[:1], 0.3)
    gaps = []
    for steps in (2, 32):
        found = visualize.integrate_gradients(*subject, baseline=baseline, steps=steps)
        expected = score(images) - score(jnp.broadcast_to(baseline, images.shape))
        np.testing.assert_allclose(found.difference, expected, rtol=1e-4, atol=1e-5)
        sums = np.asarray(found.attributions.sum((1, 2, 3)))
        np.testing.assert_allclose(found.gap, sums - expected, rtol=1e-3, atol=1e-5)
        gaps.append(np.abs(found.gap).max() / np.abs(expected).max())
    assert gaps[1] < 0.02 and gaps[1] < 0.5 * gaps[0]


def test_integrated_gradients_of_a_linear_model_are_exact():
    model = models.create("perceptron", 4)
    images = jax.random.normal(jax.random.key(1), (2, 3, 3, 1))
    params, stats = model.init(jax.random.key(0), images)
    found = visualize.integrate_gradients(model, params, stats, images, LABELS, steps=1)
    kernel = np.asarray(params["Dense_0"]["kernel"]).T[np.asarray(LABELS)].reshape(images.shape)
    np.testing.assert_allclose(found.attributions, kernel * images, rtol=1e-5, atol=1e-6)


def test_smooth_grad_is_the_mean_over_noise_and_repeats():
    model, params, stats, images, labels = make_subject()
    key = jax.random.key(3)
    smooth = functools.partial(visualize.compute_smooth_grad, *make_subject())
    once, again, other = (smooth(k, samples=3) for k in (key, key, jax.random.key(4)))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 0
    plain = visualize.compute_gradients(model, params, stats, images, labels).gradients
    np.testing.assert_allclose(smooth(key, samples=3, noise=0.0), plain, rtol=1e-4, atol=1e-6)
    assert np.abs(once - plain).max() > 0.05 * np.abs(plain).max()


def test_guided_backprop_is_the_rule_of_every_relu():
    subject = make_subject()
    guided = visualize.compute_guided_backprop(*subject)
    plain = visualize.compute_gradients(*subject).gradients
    assert np.abs(guided - plain).max() > 0.1 * np.abs(plain).max()


def test_a_model_without_relu_is_refused_by_name():
    model = models.create("perceptron", 4)
    images = jnp.ones((2, 3, 3, 1))
    given = (model, *model.init(jax.random.key(0), images), images, LABELS)
    with pytest.raises(UserError, match="perceptron has no ReLU: the rule guided would give the"):
        visualize.compute_guided_backprop(*given)


def test_an_autoencoder_is_scored_by_what_it_rebuilds():
    model = models.create("autoencoder")
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    params, stats = model.init(jax.random.key(0), images)
    found = visualize.compute_gradients(model, params, stats, images, LABELS)
    rebuilt, _ = model.apply(params, stats, images)
    np.testing.assert_allclose(
        found.scores, -np.square(rebuilt - images).mean((1, 2, 3)), rtol=1e-5
    )
    assert np.abs(found.gradients).max() > 0


def test_an_unknown_score_is_refused():
    with pytest.raises(UserError, match="score=logits: choose logit, log_probability, probability"):
        visualize.compute_gradients(*make_subject(), score="logits")
