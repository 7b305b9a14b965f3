"""The mean and the colors' principal components of training images that are streamed."""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.config import Data
from cnn_jax.data import augment, crops, preprocess
from cnn_jax.data.base import Encoded, ImageDataset
from cnn_jax.data.decode import decode_crop
from cnn_jax.data.streaming import decode_or_next

MAX_IMAGES = 10_000
GEOMETRY = ("dataset", "train_resize", "image_size", "eval_resize", "on_bad_image")


class PixelSums(NamedTuple):
    """Sums over the center crops of training images.

    Attributes:
      count: Number of images.
      sums: [crop, crop, C] int64, the sums of their pixels, 0 to 255.
      moments: Moments of their colors; None: not asked for.
    """

    count: int  # type: ignore[assignment] # hides tuple.count, which nobody calls
    sums: np.ndarray
    moments: augment.ColorMoments | None


def measure_streamed_colors(data: Data, images: ImageDataset) -> dict[str, Any]:
    """Returns the statistics of `preprocess.measure_colors` for center crops of streamed images.

    All training images are measured, or MAX_IMAGES of them spread evenly over the data set. With
    10,000 images the standard error of a channel's mean is about 0.4 of 255, and that of a pixel of
    the mean image 0.7. Decoding these images takes most of the time. The runs of a study share the
    result.

    Args:
      data: How images are cut, which mean is subtracted, and whether there is PCA noise.
      images: The training images.
    """
    needed = data.subtract_mean != "none" or data.color_pca
    geometry = Data(**{name: getattr(data, name) for name in GEOMETRY})
    count = min(MAX_IMAGES, len(images)) if needed else 1  # One image gives the shape.
    found = _sum_pixels(geometry, images, count, data.color_pca)
    if data.subtract_mean == "pixel":
        mean = found.sums / found.count
    elif data.subtract_mean == "channel":
        mean = found.sums.sum((0, 1)) / (found.count * found.sums[..., 0].size)
    else:
        mean = np.zeros(())
    colors = {"mean": preprocess.shape_mean(mean, found.sums.shape)}
    return colors | ({"pca": found.moments.find_components()} if found.moments else {})


@functools.lru_cache(maxsize=2)
def _sum_pixels(data: Data, images: ImageDataset, count: int, colors: bool) -> PixelSums:
    sums: np.ndarray | int = 0
    moments = augment.ColorMoments() if colors else None
    for crop in iterate_centers(data, images, count):
        sums = sums + crop.astype(np.int64)
        if moments:
            moments.add(crop)
    return PixelSums(count, np.asarray(sums), moments)


def iterate_centers(data: Data, images: ImageDataset, count: int) -> Iterator[np.ndarray]:
    """Yields the center crops [crop, crop, C] uint8 of `count` images spread evenly, in order.

    A thread per core decodes them, and only a few decoded images are in memory at a time.

    Args:
      data: How images are cut, and whether a bad image stops the run.
      images: The images.
      count: Number of images to yield.
    """
    side, crop = crops.choose_eval_side(data), data.image_size

    def center(size: crops.Size) -> crops.Box:
        return crops.compute_center_box(size, side, crop)

    def decode(encoded: Encoded) -> np.ndarray:
        return decode_crop(encoded, center, (crop, crop))

    def read(i: int) -> np.ndarray:
        return decode_or_next(data, images, i, decode).image

    chosen = (np.arange(count) * len(images) // count).tolist()
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, count, 16 * threads):
            yield from pool.map(read, chosen[first : first + 16 * threads])
