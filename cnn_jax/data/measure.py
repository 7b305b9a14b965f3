"""The mean and the colors' principal components of training images that are streamed."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cnn_jax.config import Data
from cnn_jax.data import crops, preprocess
from cnn_jax.data.base import ImageDataset
from cnn_jax.data.decode import decode_crop
from cnn_jax.data.streaming import decode_or_next

MAX_IMAGES = 1024


def measure_streamed_colors(data: Data, images: ImageDataset) -> dict[str, Any]:
    """Returns what `preprocess.measure_colors` does, of the center crops of streamed images.

    At most MAX_IMAGES images are measured, spread evenly over the data set. The runs of a study
    share what was measured.

    Args:
      data: How images are cut, which mean is subtracted, and whether there is PCA noise.
      images: The training images.
    """
    return preprocess.measure_colors(data, sample_centers(data, images))


def sample_centers(data: Data, images: ImageDataset) -> np.ndarray:
    """Returns the center crops [n, crop, crop, C] uint8 of images spread evenly."""
    fields = ("dataset", "train_resize", "image_size", "eval_resize", "on_bad_image")
    return _sample_centers(Data(**{name: getattr(data, name) for name in fields}), images)


@functools.lru_cache(maxsize=2)
def _sample_centers(data: Data, images: ImageDataset) -> np.ndarray:
    count = min(MAX_IMAGES, len(images))
    chosen = np.arange(count) * len(images) // count
    side, crop = crops.eval_side(data), data.image_size

    def center(size: crops.Size) -> crops.Box:
        return crops.center_box(size, side, crop)

    def read(i: int) -> np.ndarray:
        def decode(encoded: Any) -> np.ndarray:
            return decode_crop(encoded, center, (crop, crop))

        return decode_or_next(data, images, int(i), decode).image

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(read, chosen)))
