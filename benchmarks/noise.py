"""Data sets of random pixels and labels, for benchmarks that need only their sizes."""

import numpy as np

from cnn_jax import data


def make_noise_dataset(
    image: tuple[int, int, int], num_classes: int, train_images: int, test_images: int
) -> data.Dataset:
    """Returns a data set in memory.

    Args:
      image: [height, width, channels] of every image.
      num_classes: Labels are drawn from 0 to num_classes - 1.
      train_images: Number of training images.
      test_images: Number of test images.
    """
    rng = np.random.default_rng(0)

    def draw_split(count: int) -> data.Arrays:
        return data.Arrays(
            rng.integers(0, 256, (count, *image), np.uint8),
            rng.integers(0, num_classes, count, np.int32),
        )

    return data.Dataset(draw_split(train_images), draw_split(test_images), num_classes)
