"""Images made by gradient ascent: of a class, DeepDream, and the inversion of a code.

The same key gives the same image. Each loop is one compiled step in Python, because convolutions
inside a compiled loop are slow on a CPU.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.models import Model

FIRST, SECOND = 0.9, 0.999  # Adam's decays.


class Synthesis(NamedTuple):
    """Synthesized images and the final value of their objective.

    Attributes:
      images: As the model takes them, [B, H, W, C].
      objective: [B]: the logit, the layer's activity, or the inversion's relative error.
    """

    images: jax.Array
    objective: jax.Array


class AdamMoments(NamedTuple):
    """Adam's averages of the gradient and of its square (Kingma, Ba 2014, arXiv:1412.6980).

    Attributes:
      first: Average of the gradient, [B, H, W, C].
      second: Average of the squared gradient, [B, H, W, C].
    """

    first: jax.Array
    second: jax.Array


class Given(NamedTuple):
    """What a loss depends on beside the images: arguments of the compiled step, not constants."""

    params: Any
    stats: Any
    codes: Any = None


def measure_variation(images: jax.Array) -> jax.Array:
    """Returns the total variation of each image: the mean squared step between neighbors, [B].

    Source: Mahendran, Vedaldi 2015 (arXiv:1412.0035), eq. 5 with beta = 2, per value.

    Args:
      images: [B, H, W, C].
    """
    down, across = jnp.diff(images, axis=1), jnp.diff(images, axis=2)
    return jnp.square(down).mean((1, 2, 3)) + jnp.square(across).mean((1, 2, 3))


def blur(images: jax.Array) -> jax.Array:
    """Blurs [B, H, W, C] by the kernel [1 2 1] / 4 down and across; edges are repeated."""
    for axis in (1, 2):
        pads = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(images, pads, mode="edge")
        size = images.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)]
        images = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return images


def maximize_class(
    model: Model,
    params: Any,
    stats: Any,
    labels: jax.Array,
    image_shape: tuple[int, ...],
    key: jax.Array,
    steps: int = 128,
    rate: float = 0.05,
    jitter: int = 2,
    blur_every: int = 8,
    variation: float = 1.0,
    decay: float = 0.02,
) -> Synthesis:
    """Makes an image of each class: one for which the class's logit is large.

    Source: Simonyan, Vedaldi, Zisserman 2013 (arXiv:1312.6034), Sec. 2, with its L2 penalty.
    Without more than that the images look like noise: jitter, a blur every few steps (Yosinski et
    al. 2015, arXiv:1506.06579, Sec. 3) and total variation keep it down.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      labels: [B] int.
      image_shape: (H, W, C).
      key: Draws the first image and the jitter.
      steps: Number of steps of Adam.
      rate: Adam's.
      jitter: The image is shifted by up to so many pixels in each step.
      blur_every: Steps from one blur to the next; 0: none.
      variation: Weight of the total variation.
      decay: Weight of the mean square.
    """
    first, rest = jax.random.split(key)
    start = 0.1 * jax.random.normal(first, (len(labels), *image_shape))

    def objective(given: Given, images: jax.Array) -> jax.Array:
        logits, _ = model.apply(given.params, given.stats, images)
        return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    def penalty(images: jax.Array) -> jax.Array:
        return variation * measure_variation(images) + decay * jnp.square(images).mean((1, 2, 3))

    def loss(given: Given, images: jax.Array) -> jax.Array:
        return penalty(images) * images[0].size ** 0.5 - objective(given, images)

    given = Given(params, stats)
    images = _descend(loss, given, start, rest, steps, rate, jitter, blur_every)
    return Synthesis(images, jax.jit(objective)(given, images))


def dream(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    layer: str,
    key: jax.Array,
    steps: int = 32,
    rate: float = 0.02,
    jitter: int = 2,
) -> Synthesis:
    """Changes images so that a layer is more active: DeepDream.

    Source: Mordvintsev, Olah, Tyka 2015, "Inceptionism" and its notebook: ascent of half the mean
    square of a layer's activations, with jitter. Differs: at one size, without octaves, because
    the models here are for small images; and the steps are Adam's.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C].
      layer: A layer of `list_layers`.
      key: Draws the jitter.
      steps: Number of steps of Adam.
      rate: Adam's, in units of the images.
      jitter: As in `maximize_class`.
    """

    def objective(given: Given, images: jax.Array) -> jax.Array:
        maps = model.features(given.params, given.stats, images)[layer]
        return 0.5 * jnp.square(maps.astype(jnp.float32)).reshape(len(images), -1).mean(1)

    def loss(given: Given, images: jax.Array) -> jax.Array:
        return -jnp.log(objective(given, images) + 1e-6)  # All layers move at the same pace.

    given = Given(params, stats)
    images = _descend(loss, given, images, key, steps, rate, jitter, 0)
    return Synthesis(images, jax.jit(objective)(given, images))


def invert(
    model: Model,
    params: Any,
    stats: Any,
    images: jax.Array,
    layer: str,
    key: jax.Array,
    steps: int = 128,
    rate: float = 0.05,
    variation: float = 0.05,
) -> Synthesis:
    """Looks for images with the same code as given ones: what a layer still knows of them.

    Source: Mahendran, Vedaldi 2015 (arXiv:1412.0035), eq. 1 to 5: the squared distance of the
    codes over the code's square, plus total variation. The objective that is returned is the
    distance over the code's norm: 0 is perfect.

    Args:
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      images: [B, H, W, C], of which only the codes are used.
      layer: A layer of `list_layers`.
      key: Draws the first images.
      steps: Number of steps of Adam.
      rate: Adam's.
      variation: Weight of the total variation.
    """

    def encode(given: Given, images: jax.Array) -> jax.Array:
        code = model.features(given.params, given.stats, images)[layer]
        return code.reshape(len(images), -1).astype(jnp.float32)

    def error(given: Given, images: jax.Array) -> jax.Array:
        distances = jnp.square(encode(given, images) - given.codes).sum(1)
        return distances / (jnp.square(given.codes).sum(1) + 1e-6)

    def loss(given: Given, images: jax.Array) -> jax.Array:
        return error(given, images) + variation * measure_variation(images)

    given = Given(params, stats)
    given = given._replace(codes=jax.jit(encode)(given, images))
    first, rest = jax.random.split(key)
    start = 0.1 * jax.random.normal(first, images.shape)
    found = _descend(loss, given, start, rest, steps, rate, 0, 0)
    return Synthesis(found, jnp.sqrt(jax.jit(error)(given, found)))


def _descend(
    loss: Callable[[Given, jax.Array], jax.Array],
    given: Given,
    images: jax.Array,
    key: jax.Array,
    steps: int,
    rate: float,
    jitter: int,
    blur_every: int,
) -> jax.Array:
    """Lowers the loss [B] of images by Adam; they do not see one another."""

    @jax.jit
    def step(
        given: Given, images: jax.Array, moments: AdamMoments, number: jax.Array, shift: jax.Array
    ) -> tuple[jax.Array, AdamMoments]:
        moved = jnp.roll(images, shift, (1, 2))
        gradients = jax.grad(lambda x: loss(given, x).sum())(moved)
        gradients = jnp.roll(gradients, -shift, (1, 2))
        first = FIRST * moments.first + (1 - FIRST) * gradients
        second = SECOND * moments.second + (1 - SECOND) * jnp.square(gradients)
        mean, square = first / (1 - FIRST**number), second / (1 - SECOND**number)
        return images - rate * mean / (jnp.sqrt(square) + 1e-8), AdamMoments(first, second)

    moments = AdamMoments(jnp.zeros_like(images), jnp.zeros_like(images))
    smooth = jax.jit(blur)
    shifts = jax.random.randint(key, (steps, 2), -jitter, jitter + 1)
    for number in range(1, steps + 1):
        images, moments = step(given, images, moments, jnp.float32(number), shifts[number - 1])
        if blur_every and number % blur_every == 0 and number < steps:
            images = smooth(images)
    return images
