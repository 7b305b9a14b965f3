"""Maps made of gradients with respect to the images: which pixels a class's score depends on.

All functions are pure: they take the model, its parameters and its statistics, and a batch of
images as the model takes them, and return arrays. `score` names the class score whose gradient is
taken.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.models import Model
from cnn_jax.visualize.relu import Rule, apply_relu_rule, count_relus
from cnn_jax.visualize.scores import ScoreName, score_outputs


class Gradients(NamedTuple):
    """Scores and their gradients.

    Attributes:
      scores: Score of each image's class, [B].
      gradients: Gradient of each score with respect to its image, [B, H, W, C].
    """

    scores: jax.Array
    gradients: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "score", "rule"))
def compute_gradients(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    score: ScoreName = "logit",
    rule: Rule = "backprop",
) -> Gradients:
    """Differentiates each image's score with respect to its pixels, in test mode.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: As the model takes them, [B, H, W, C] float32.
      labels: The class of each, [B] int.
      score: logit | log_probability | probability.
      rule: The backward rule of ReLU: backprop | deconvnet | guided.

    Raises:
      UserError: If another rule than backprop is asked for and the model has no ReLU, so that the
        result would silently be the gradient.
    """

    def sum_scores(params: Any, stats: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs, _ = model.apply(params, stats, images)
        scores = score_outputs(model, outputs, images, labels, score)
        return scores.sum(), scores  # Images do not see one another: each has its own gradient.

    if rule != "backprop":
        if not count_relus(sum_scores, params, stats, images):
            raise UserError(
                f"{model.module.name} has no ReLU: the rule {rule} would give the plain gradient;"
                " choose saliency"
            )
        sum_scores = apply_relu_rule(sum_scores, rule)
    differentiate = jax.value_and_grad(sum_scores, 2, has_aux=True)
    (_, scores), gradients = differentiate(params, stats, images)
    return Gradients(scores, gradients)


def compute_saliency(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    score: ScoreName = "logit",
) -> jax.Array:
    """Returns the saliency map: the largest gradient of a pixel's channels, without its sign.

    Source: Simonyan, Vedaldi, Zisserman 2013 (arXiv:1312.6034), Sec. 3.1.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: [B] int.
      score: As in `compute_gradients`.

    Returns:
      [B, H, W], at least 0.

    Example:
      >>> from cnn_jax import models
      >>> model = models.create("perceptron", num_classes=2)
      >>> images = jnp.ones((1, 8, 8, 1))
      >>> params, stats = model.init(jax.random.key(0), images)
      >>> compute_saliency(model, params, stats, images, jnp.array([1])).shape
      (1, 8, 8)
    """
    gradients = compute_gradients(model, params, stats, images, labels, score).gradients
    return jnp.abs(gradients).max(-1)


def compute_guided_backprop(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    score: ScoreName = "logit",
) -> jax.Array:
    """Returns guided backpropagation: the gradient with the guided rule in each ReLU.

    Source: Springenberg, Dosovitskiy, Brox, Riedmiller 2014 (arXiv:1412.6806), Sec. 3.4. Adebayo et
    al. 2018 find that it hardly depends on the weights.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: [B] int.
      score: As in `compute_gradients`.

    Returns:
      [B, H, W, C].

    Raises:
      UserError: If the model has no ReLU.
    """
    return compute_gradients(model, params, stats, images, labels, score, "guided").gradients


def compute_smooth_grad(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    samples: int = 25,
    noise: float = 0.15,
    score: ScoreName = "logit",
) -> jax.Array:
    """Returns SmoothGrad: the mean gradient of noisy copies of each image.

    Source: Smilkov, Thorat, Kim, Viegas, Wattenberg 2017 (arXiv:1706.03825), Sec. 3; 10 to 20% of
    noise works well (Sec. 3.2).

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: [B] int.
      key: Random key of the noise; the same key gives the same map.
      samples: Noisy copies of each image.
      noise: Standard deviation, as a share of the image's largest minus its smallest value.
      score: As in `compute_gradients`.

    Returns:
      [B, H, W, C].
    """
    axes = tuple(range(1, images.ndim))
    spread = images.max(axes, keepdims=True) - images.min(axes, keepdims=True)
    total = jnp.zeros_like(images)
    # A loop of one compiled program: convolutions inside lax.scan are slow on a CPU.
    for one in jax.random.split(key, samples):
        noisy = images + noise * spread * jax.random.normal(one, images.shape, images.dtype)
        total += compute_gradients(model, params, stats, noisy, labels, score).gradients
    return total / samples


class Attributions(NamedTuple):
    """Integrated gradients.

    Attributes:
      attributions: Attribution of each value, [B, H, W, C]; they add up to the score's difference.
      difference: The score of the image minus that of the baseline, [B].
      gap: The sum of the attributions minus the difference, [B]: the error of the integration.
    """

    attributions: jax.Array
    difference: jax.Array
    gap: jax.Array


def integrate_gradients(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    labels: jax.Array,
    baseline: jax.Array | None = None,
    steps: int = 32,
    score: ScoreName = "logit",
) -> Attributions:
    """Returns integrated gradients: the mean gradient on the way from a baseline to the image.

    It is multiplied by the image minus the baseline. The integral is a sum over the middles of
    `steps` equal parts of the way. Source: Sundararajan, Taly, Yan 2017 (arXiv:1703.01365), Sec. 3;
    20 to 300 steps are enough (Sec. 5).

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      labels: [B] int.
      baseline: Broadcasts to the images; None: zeros.
      steps: Parts of the way.
      score: As in `compute_gradients`.
    """
    start = jnp.zeros_like(images) if baseline is None else jnp.broadcast_to(baseline, images.shape)
    way = images - start
    total = jnp.zeros_like(images)
    for step in range(steps):
        point = start + (step + 0.5) / steps * way
        total += compute_gradients(model, params, stats, point, labels, score).gradients
    attributions = way * total / steps
    ends = [
        compute_gradients(model, params, stats, x, labels, score).scores for x in (images, start)
    ]
    difference = ends[0] - ends[1]
    return Attributions(attributions, difference, attributions.sum((1, 2, 3)) - difference)
