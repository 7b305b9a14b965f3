"""Changes to the images of a whole data set: JPEG encoding, a long tail, reordered pixels."""

import numpy as np

from cnn_jax.data.base import Arrays, Dataset, ImageDataset, Subset
from cnn_jax.errors import UserError
from cnn_jax.optional_packages import require

JPEG_BLOCK = 8
PERMUTATION_SEED = 0  # Seed of data.shuffle_pixels: every run has the same permutation.


def encode_as_jpeg(images: np.ndarray, quality: int, margin: int = JPEG_BLOCK // 2) -> np.ndarray:
    """Returns the images as they look after being encoded as JPEG and decoded.

    JPEG computes in blocks of 8x8 pixels. An image that was encoded before, at the same quality and
    with the same blocks, hardly changes, so here the blocks begin elsewhere.

    Args:
      images: [N, H, W, 3] uint8.
      quality: 1 to 100.
      margin: Pixels by which the first block begins above and to the left of the image; 0: at its
        corner, as in a file.
    """
    cv2 = require("cv2")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    degraded = np.empty_like(images)
    for i, image in enumerate(images):
        padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        # The order of the colors matters: red and blue are not weighed alike.
        encoded = cv2.imencode(".jpg", padded[..., ::-1], options)[1]
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
        height, width = image.shape[:2]
        degraded[i] = decoded[margin : margin + height, margin : margin + width]
    return degraded


def cut_tail(dataset: Dataset, ratio: float) -> Arrays | ImageDataset:
    """Returns the first training images of each class, fewer from class to class.

    The number falls exponentially from the first class's n to n / ratio of the last. As in the
    code of the benchmark's authors, the fraction of an image is dropped: CIFAR-10 at a ratio of 100
    has 12,406 images. A class keeps at least one.
    Source: Cui et al. 2019 (arXiv:1901.05555), "long-tailed CIFAR"; `get_img_num_per_cls` of their
    repository richardaecn/class-balanced-loss, and of Cao et al. 2019, kaidic/LDAM-DRW. Both draw
    the images of a class at random.

    Args:
      dataset: The data set.
      ratio: Number of training images of the first class divided by that of the last.

    Returns:
      The training images that are kept, of the training set's kind, in its order.
    """
    rows = choose_tail(dataset.train.labels, dataset.num_classes, ratio)
    if isinstance(dataset.train, Arrays):
        return Arrays(dataset.train.images[rows], dataset.train.labels[rows])
    return Subset(dataset.train, rows)


def choose_tail(labels: np.ndarray, num_classes: int, ratio: float) -> np.ndarray:
    """Returns the numbers of the images that `cut_tail` keeps, in their order.

    Args:
      labels: [N] int, the label of each training image.
      num_classes: Number of classes.
      ratio: As in `cut_tail`.
    """
    most, last = int((labels == 0).sum()), max(1, num_classes - 1)
    sizes = [most * ratio ** (-label / last) for label in range(num_classes)]
    kept = [  # 98 / 49 is 2, but 98 * 49 ** -1 is less by a rounding error.
        np.flatnonzero(labels == label)[: max(1, int(size + 1e-9))]
        for label, size in enumerate(sizes)
    ]
    return np.sort(np.concatenate(kept))


def shuffle_pixels(dataset: Dataset) -> Dataset:
    """Returns the set with the pixels of every image in the same other order.

    Channels stay together. What a fully connected layer can learn stays the same, and neighboring
    pixels no longer have anything to do with one another.

    Args:
      dataset: A data set that is held in memory.

    Returns:
      The set with other training and test images.

    Raises:
      UserError: If the data set is streamed.
    """
    if not isinstance(dataset.train, Arrays) or not isinstance(dataset.test, Arrays):
        raise UserError("data.shuffle_pixels=true: is for data sets that are held in memory")
    height, width = dataset.train.images.shape[1:3]
    order = np.random.default_rng(PERMUTATION_SEED).permutation(height * width)

    def shuffle(arrays: Arrays) -> Arrays:
        flat = arrays.images.reshape(arrays.count, height * width, -1)
        return arrays._replace(images=flat[:, order].reshape(arrays.images.shape))

    return dataset._replace(train=shuffle(dataset.train), test=shuffle(dataset.test))
