"""Normalizes images and applies augmentations in their fixed order.

Training, evaluation and public weights all use this module. Images are [B, H, W, C]. Random keys
are derived from (key, row), so a batch that is split over devices gives the same images as the
whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.config import Data
from cnn_jax.data import augment
from cnn_jax.errors import UserError

COLOR_CHANGES = ("brightness", "contrast", "saturation", "hue")
AFFINE_CHANGES = ("shift in pixels", "scale", "squeeze", "shear")
# Each augmentation has its own key, so switching one on does not change what the others draw.
KEYS = ("pad", "flip", "jitter", "pca", "shift", "rotate", "vertical_flip", "noise", "affine")


def normalize(images: jax.Array, mean: Any, std: Any) -> jax.Array:
    """Returns (images - mean) / std, [B, H, W, C] float32.

    Args:
      images: Pixels [B, H, W, C], in the units of mean and std.
      mean: Broadcasts to the images: [1, H, W, C], [1, 1, 1, C] or a number.
      std: Broadcasts like mean.
    """
    return (images.astype(jnp.float32) - mean) / std


def preprocess(
    data: Data,
    arrays: dict[str, Any],
    images: jax.Array,
    key: jax.Array | None = None,
    rows: jax.Array | None = None,
) -> jax.Array:
    """Returns what the model takes: pixels on the scale 0 to 1, less the mean, float32.

    Color jitter comes before the mean is subtracted, because it needs pixels from 0 to 1.
    Augmentations that move pixels come after the mean is subtracted, so that the zeros that they
    fill in have the color of the mean. The scale matters only to models without batch norm.

    Args:
      data: The augmentations.
      arrays: `Loader.arrays`, of which {mean: [1, H, W, C] on the scale 0 to 255, pca: the result
        of `augment.measure_pca`} are used.
      images: [B, H, W, C] uint8.
      key: The random key of the step; None: no augmentation, as in evaluation.
      rows: [B], each image's row in the global batch; needed with a key.
    """
    images = images.astype(jnp.float32)
    if key is None:
        return normalize(images, arrays["mean"], 255)
    keys = dict(zip(KEYS, jax.random.split(key, len(KEYS)), strict=True))

    def change(name: str, operation: Callable, x: jax.Array, *options: Any) -> jax.Array:
        assert rows is not None  # with a key
        return operation(augment.make_row_keys(keys[name], rows), x, *options)

    if any(data.color_jitter):
        images = 255 * change("jitter", augment.color_jitter, images / 255, *data.color_jitter)
    images = normalize(images, arrays["mean"], 255)
    if data.color_pca:
        images = change("pca", augment.add_pca_noise, images, *arrays["pca"])
    if data.pad_and_crop:
        images = change("pad", augment.pad_and_crop, images, data.pad_and_crop)
    if data.shift:
        images = change("shift", augment.shift, images, data.shift)
    if data.rotate:
        images = change("rotate", augment.rotate, images, data.rotate)
    if any(data.affine):
        images = change("affine", augment.affine, images, *data.affine)
    if data.flip:
        images = change("flip", augment.flip, images)
    if data.vertical_flip:
        images = change("vertical_flip", augment.vertical_flip, images)
    if data.gaussian_noise:
        images = change("noise", augment.add_noise, images, data.gaussian_noise)
    return images


def preprocess_sized(mean: jax.Array, images: jax.Array, sizes: jax.Array) -> jax.Array:
    """Preprocesses images of any size for evaluation, as `preprocess` does without a key.

    The mean image is subtracted from an image of the training size. From other images, which it
    does not fit, the mean of each of its channels is subtracted.

    Args:
      mean: The loader's mean image, [1, h, w, C] on the scale 0 to 255.
      images: [B, H, W, C] uint8; image b is the upper left part of its array, of size sizes[b].
      sizes: [B, 2] int32, the height and width of each.

    Returns:
      [B, H, W, C] float32.
    """
    height, width = mean.shape[1:3]
    if images.shape[1:3] != (height, width):
        channels = mean.mean((1, 2), keepdims=True)
        channels = jnp.broadcast_to(channels, (1, *images.shape[1:]))
        if images.shape[1] >= height and images.shape[2] >= width:
            same = (sizes == jnp.array([[height, width]])).all(-1)[:, None, None, None]
            mean = jnp.where(same, channels.at[:, :height, :width].set(mean), channels)
        else:
            mean = channels
    return normalize(images, mean, 255)


def check_augmentation(data: Data, shape: tuple[int, ...]) -> None:
    """Raises UserError for augmentation that images of shape (H, W, C) cannot have."""
    if data.color_jitter and len(data.color_jitter) != len(COLOR_CHANGES):
        raise UserError(
            f"data.color_jitter={list(data.color_jitter)}: must be {len(COLOR_CHANGES)} numbers:"
            f" {', '.join(COLOR_CHANGES)}"
        )
    if data.affine and len(data.affine) != len(AFFINE_CHANGES):
        raise UserError(
            f"data.affine={list(data.affine)}: must be {len(AFFINE_CHANGES)} numbers:"
            f" {', '.join(AFFINE_CHANGES)}"
        )
    if shape[-1] != 3 and (data.color_pca or any(data.color_jitter[2:])):
        raise UserError(
            f"data set {data.name} is gray: data.color_pca, and saturation and hue in"
            " data.color_jitter, need color images; set data.color_pca=false and those two to 0"
        )


def measure_colors(data: Data, images: np.ndarray) -> dict[str, Any]:
    """Measures the statistics for preprocessing on training images in memory.

    Args:
      data: Which mean is subtracted, and whether there is PCA noise.
      images: [N, H, W, C] uint8.

    Returns:
      {mean: [1, H, W, C] float32 on the scale 0 to 255}, and with data.color_pca {pca: the
      eigenvalues [3] and eigenvectors [3, 3] of `augment.measure_pca`}.
    """
    axes = {"pixel": (0,), "channel": (0, 1, 2), "none": ()}[data.subtract_mean]
    mean = images.mean(axes, dtype=np.float64) if axes else np.zeros(())
    colors = {"mean": shape_mean(mean, images.shape[1:])}
    return colors | ({"pca": augment.measure_pca(images)} if data.color_pca else {})


def shape_mean(mean: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a mean image, a mean of each channel or a number as [1, H, W, C] float32."""
    return np.broadcast_to(mean, shape).astype(np.float32)[None]
