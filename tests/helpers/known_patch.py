"""A classifier whose answer is known: it looks for two patterns whose places are known.

Run as a script it prints where each method's map has its maximum:
PYTHONPATH=.:tests python tests/helpers/known_patch.py
"""

import functools
from typing import NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models, visualize
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.dense import Dense
from cnn_jax.layers.pooling import GlobalAvgPool, MaxPool
from cnn_jax.models.base import BaseModel

SIDE, PATTERN = 24, 5
PATTERNS = np.array(
    [
        ["#...#", ".#.#.", "..#..", ".#.#.", "#...#"],  # class 0: a cross
        ["#####", "#...#", "#...#", "#...#", "#####"],  # class 1: a square
    ]
)
# Upper left corners of (cross, square) in each image.
CORNERS = (((3, 4), (14, 15)), ((15, 2), (4, 12)), ((16, 16), (2, 3)))


class Detector(BaseModel):
    """A filter for each pattern, ReLU, max pooling, the mean, and a class for each filter."""

    @nn.compact
    def __call__(self, images, train):
        x = Conv(2, (PATTERN, PATTERN), name="conv1")(images)
        x = self.capture("conv1", nn.relu(x))
        x = self.capture("pool1", MaxPool(2, 2, name="pool1")(x))
        x = self.capture("pool", GlobalAvgPool(name="pool")(x))
        return Dense(self.num_classes, name="head")(x)


class Known(NamedTuple):
    """The detector and its images; boxes[i][c] is (top, left) of class c's pattern in image i."""

    model: models.Model
    params: dict
    stats: dict
    images: jax.Array
    boxes: tuple


def draw_patterns():
    """[5, 5, 1, 2] of 1 where a pattern is and 0 elsewhere."""
    bits = [[[float(c == "#") for c in row] for row in pattern] for pattern in PATTERNS]
    return np.moveaxis(np.array(bits, np.float32), 0, -1)[:, :, None]


@functools.cache
def make_known():
    """The network, and three noisy images with both patterns in each."""
    spec = models.ModelSpec(Detector, input_shape=(SIDE, SIDE, 1), num_classes=2)
    with mock.patch.dict(models.MODELS, {"detector": spec}):
        model = models.create("detector", 2)
    patterns = draw_patterns()
    ink = patterns.sum((0, 1, 2), keepdims=True)
    kernel = patterns / ink - (1 - patterns) / (PATTERN**2 - ink)  # 1 on the pattern, 0 on gray.
    params = {
        "conv1": {"kernel": jnp.asarray(kernel), "bias": jnp.full(2, -0.6)},
        "head": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)},
    }
    images = 0.2 * np.random.default_rng(0).random((len(CORNERS), SIDE, SIDE, 1), np.float32)
    for image, corners in zip(images, CORNERS, strict=True):
        for number, (top, left) in enumerate(corners):
            image[top : top + PATTERN, left : left + PATTERN] += 0.8 * patterns[..., number]
    return Known(model, params, {}, jnp.asarray(images), CORNERS)


def compute_maps(label):
    """{method: [images, SIDE, SIDE]} of the class; occlusion is the loss of probability."""
    known = make_known()
    labels = jnp.full(len(known.images), label)
    given = (*known[:4], labels)

    def flat(x):
        return np.abs(np.asarray(x)).max(-1)

    key = jax.random.key(0)
    covered = visualize.occlude(*given, "conv1", side=PATTERN, stride=1)
    # Of each pixel: the sum over the squares that cover it. (Many squares cost all there is.)
    loss = np.zeros((len(labels), SIDE, SIDE))
    for i, top in enumerate(covered.tops):
        for j, left in enumerate(covered.lefts):
            rows, columns = slice(top, top + PATTERN), slice(left, left + PATTERN)
            loss[:, rows, columns] += 1 - covered.probability[:, i, j, None, None]
    strongest = visualize.keep_strongest(known.model.features(*known[1:4])["conv1"], labels)
    return {
        "saliency": np.asarray(visualize.compute_saliency(*given)),
        "SmoothGrad": flat(visualize.compute_smooth_grad(*given, key, samples=8, noise=0.02)),
        "integrated gradients": flat(visualize.integrate_gradients(*given).attributions),
        "guided backpropagation": flat(visualize.compute_guided_backprop(*given)),
        "Grad-CAM": np.asarray(visualize.compute_grad_cam(*given).maps),
        "guided Grad-CAM": flat(visualize.compute_guided_grad_cam(*given)),
        "deconvnet of the strongest unit": flat(
            visualize.deconvolve(*known[:4], "conv1", strongest)
        ),
        "occlusion": loss,
    }


def find_maximum(heat):
    return tuple(int(i) for i in np.unravel_index(heat.argmax(), heat.shape))


def main():
    """Print a line for each method, class and image."""
    print("| method | class | pattern's rows and columns | maximum | inside |")
    print("|---|---|---|---|---|")
    for label in (0, 1):
        for method, maps in compute_maps(label).items():
            for heat, corners in zip(maps, make_known().boxes, strict=True):
                top, left = corners[label]
                row, column = find_maximum(heat)
                inside = top <= row < top + PATTERN and left <= column < left + PATTERN
                box = f"{top}-{top + PATTERN - 1}, {left}-{left + PATTERN - 1}"
                print(f"| {method} | {label} | {box} | {row}, {column} | {inside} |")


if __name__ == "__main__":
    main()
