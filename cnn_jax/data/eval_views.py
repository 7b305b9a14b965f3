"""Scaled test images, whole or cut into views, which evaluation protocols score.

The memory of a batch does not depend on the images: the workers cut the views, and batches of whole
images are smaller if the images are large. A whole image of more pixels than a batch may have is a
bad image.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cnn_jax.config import Data
from cnn_jax.data.base import Encoded, ImageDataset
from cnn_jax.data.decode import Interpolation, decode_resized
from cnn_jax.data.streaming import decode_or_next
from cnn_jax.data.workers import prefetch_decoded
from cnn_jax.values import Count, convert

BUCKET = 64  # Heights and widths are padded to multiples of this many pixels.
MAX_PIXELS_PER_BATCH = 2**22  # Pixels of all images of a batch, as they are scaled.
MAX_WAITING_PIXELS = 4 * MAX_PIXELS_PER_BATCH  # Of whole images that wait for others.
# An image whose longer side is more than this many times the shorter one may have no more than
# MAX_PIXELS_PER_BATCH pixels.
MAX_ASPECT = 8


def iterate_views(
    data: Data,
    images: ImageDataset,
    side: int,
    cut: Callable[[np.ndarray], dict[str, np.ndarray]],
    batch: int,
    interpolation: Interpolation = "bilinear",
) -> Iterator[dict[str, np.ndarray]]:
    """Scales each image to a shorter side, cuts its views, and yields them in batches.

    Args:
      data: How many workers decode, and what happens at a bad image.
      images: The data set.
      side: The shorter side, in pixels.
      cut: Gives arrays of views [V, h, w, C] by name from uint8 [H, W, C]; their shapes must not
        depend on the image's. With workers it is pickled.
      batch: Images in a batch.
      interpolation: By which images are scaled.

    Yields:
      {each name of `cut`: uint8 [B, V, h, w, C]; label, index: int32 [B]; valid, bad: bool [B]}.
      The last batch is filled up with rows that are not valid and have index -1. The row of an
      image that cannot be decoded is not valid either, and has index -1.

    Raises:
      UserError: If an image is bad, unless data.on_bad_image is skip, or `batch` is below 1.
    """
    batch = convert("batch", batch, Count)
    read = functools.partial(_read_row, data, images, side, cut, None, interpolation)
    rows = prefetch_decoded(read, range(len(images)), data.workers)
    while taken := list(itertools.islice(rows, batch)):
        names = taken[0].keys() - {"label", "index", "bad"}
        yield {name: _fill([row[name] for row in taken], batch) for name in names} | _stack_labels(
            taken, batch
        )


def iterate_resized(
    data: Data,
    images: ImageDataset,
    side: int,
    batch: int,
    multiple: int = 1,
    interpolation: Interpolation = "bilinear",
) -> Iterator[dict[str, np.ndarray]]:
    """Yields each image once, scaled to a shorter side, in batches of similar size.

    Args:
      data: How many workers decode, and what happens at a bad image.
      images: The data set.
      side: The shorter side, in pixels.
      batch: Images in a batch; fewer where they would have more than MAX_PIXELS_PER_BATCH.
      multiple: The size of a batch is a multiple of this, the number of devices.
      interpolation: By which images are scaled.

    Yields:
      {image: uint8 [B, H, W, C], each image in the upper left corner, zeros elsewhere; size: int32
      [B, 2], its own height and width; label, index: int32 [B]; valid, bad: bool [B]}; H and W are
      multiples of BUCKET. A batch that is not full, as the last of each size, is filled up with
      rows that are not valid and have index -1. The row of an image that cannot be decoded is not
      valid either, and has index -1.

    Raises:
      UserError: If an image is bad, unless data.on_bad_image is skip. An image also counts as bad
        if its longer side is over MAX_ASPECT times the shorter one and it has more than
        MAX_PIXELS_PER_BATCH pixels. If `batch` is below 1.
    """
    batch = convert("batch", batch, Count)
    buckets: dict[tuple[int, int], list] = collections.defaultdict(list)

    def count_pixels(shape: tuple[int, int]) -> int:
        return shape[0] * shape[1] * len(buckets[shape])

    limit = max(MAX_PIXELS_PER_BATCH, MAX_ASPECT * side**2)
    read = functools.partial(_read_row, data, images, side, _keep_whole, limit, interpolation)
    for row in prefetch_decoded(read, range(len(images)), data.workers):
        height, width = (-(-n // BUCKET) * BUCKET for n in row["image"].shape[:2])
        rows = buckets[height, width]
        rows.append(row)
        if len(rows) == _limit_batch((height, width), batch, multiple):
            yield _stack((height, width), buckets.pop((height, width)), len(rows))
        elif sum(map(count_pixels, buckets)) > MAX_WAITING_PIXELS:
            shape = max(buckets, key=count_pixels)
            yield _stack(shape, buckets.pop(shape), _limit_batch(shape, batch, multiple))
    for shape, rows in buckets.items():
        yield _stack(shape, rows, _limit_batch(shape, batch, multiple))


def _limit_batch(shape: tuple[int, int], batch: int, multiple: int) -> int:
    """Returns the number of images of a shape in a batch."""
    fitting = min(batch, MAX_PIXELS_PER_BATCH // (shape[0] * shape[1]))
    return max(1, -(-fitting // multiple)) * multiple


def _keep_whole(image: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image}


def _read_row(
    data: Data,
    images: ImageDataset,
    side: int,
    cut: Callable[[np.ndarray], dict[str, np.ndarray]],
    max_pixels: int | None,
    interpolation: Interpolation,
    index: int,
) -> dict[str, Any]:
    def decode(encoded: Encoded) -> np.ndarray:
        return decode_resized(encoded, side, max_pixels=max_pixels, interpolation=interpolation)

    found = decode_or_next(data, images, index, decode)
    labels = {
        "label": found.label,
        "index": -1 if found.replaced else index,
        "bad": found.replaced,
    }
    return cut(found.image) | labels


def _stack(shape: tuple[int, int], rows: list[dict[str, Any]], batch: int) -> dict[str, np.ndarray]:
    image = np.zeros((batch, *shape, rows[0]["image"].shape[-1]), np.uint8)
    size = np.ones((batch, 2), np.int32)
    for to, at, row in zip(image, size, rows, strict=False):
        at[:] = row["image"].shape[:2]
        to[: at[0], : at[1]] = row["image"]
    return {"image": image, "size": size} | _stack_labels(rows, batch)


def _stack_labels(rows: list[dict[str, Any]], batch: int) -> dict[str, np.ndarray]:
    def column(name: str, dtype: type, filler: int | bool) -> np.ndarray:
        values = [row[name] for row in rows] + [filler] * (batch - len(rows))
        return np.array(values, dtype)

    index = column("index", np.int32, -1)
    return {
        "label": column("label", np.int32, 0),
        "index": index,
        "valid": index >= 0,
        "bad": column("bad", bool, False),
    }


def _fill(arrays: list[np.ndarray], batch: int) -> np.ndarray:
    filled = np.zeros((batch, *arrays[0].shape), arrays[0].dtype)
    filled[: len(arrays)] = arrays
    return filled
