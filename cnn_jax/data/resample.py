"""Resampling of images that are in memory."""

import numpy as np

from cnn_jax.data.crops import Box, Size


def resample(image: np.ndarray, box: Box, shape: Size) -> np.ndarray:
    """Returns a box of an image, bilinear; antialiased where it shrinks.

    Args:
      image: uint8 [H, W, C].
      box: The box, in pixels of the image, fractions included.
      shape: (h, w) of the result.

    Returns:
      uint8 [h, w, C].
    """
    down = _compute_weights(image.shape[0], box.top, box.height, shape[0])
    across = _compute_weights(image.shape[1], box.left, box.width, shape[1])
    pixels = np.einsum("hy,yxc,wx->hwc", down, image, across, optimize=True)
    return np.rint(pixels).astype(np.uint8)


def _compute_weights(size: int, start: float, length: float, to: int) -> np.ndarray:
    """Returns [to, size]: the share of each pixel in each of `to` pixels of start ... + length."""
    scale = length / to
    center = start + (np.arange(to)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(size)[None] + 0.5 - center)
    weights = np.maximum(1 - distance / max(scale, 1), 0)
    return weights / weights.sum(1, keepdims=True)
