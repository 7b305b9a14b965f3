"""Whole test images, scaled, in batches of like size: what evaluation protocols score."""

import collections
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnn_jax.config import Data
from cnn_jax.data.base import Encoded, ImageDataset
from cnn_jax.data.decode import decode_resized
from cnn_jax.data.streaming import decode_or_next
from cnn_jax.data.workers import prefetch_decoded

BUCKET = 64  # Heights and widths are padded to multiples of so many pixels.


def iterate_resized(
    data: Data, images: ImageDataset, side: int, batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields each image once, scaled to a shorter side; a batch holds images of like size.

    Args:
      data: How many workers decode, and what happens at a bad image.
      images: The data set.
      side: The shorter side, in pixels.
      batch: Images in a batch.

    Yields:
      {image: uint8 [B, H, W, C], each image in the upper left corner, zeros elsewhere; size: int32
      [B, 2], its own height and width; label, index: int32 [B]; valid, bad: bool [B]}; H and W are
      multiples of BUCKET. The last batch of each size is filled up with rows that are not valid,
      of index -1, and so are those that cannot be decoded.
    """
    buckets: dict[tuple[int, int], list] = collections.defaultdict(list)
    read = functools.partial(_read_row, data, images, side)
    for row in prefetch_decoded(read, range(len(images)), data.workers):
        height, width = (-(-n // BUCKET) * BUCKET for n in row["image"].shape[:2])
        rows = buckets[height, width]
        rows.append(row)
        if len(rows) == batch:
            yield _stack((height, width), buckets.pop((height, width)), batch)
    for shape, rows in buckets.items():
        yield _stack(shape, rows, batch)


def _read_row(data: Data, images: ImageDataset, side: int, index: int) -> dict[str, Any]:
    def decode(encoded: Encoded) -> np.ndarray:
        return decode_resized(encoded, side)

    found = decode_or_next(data, images, index, decode)
    return {
        "image": found.image,
        "label": found.label,
        "index": -1 if found.replaced else index,
        "bad": found.replaced,
    }


def _stack(shape: tuple[int, int], rows: list[dict[str, Any]], batch: int) -> dict[str, np.ndarray]:
    image = np.zeros((batch, *shape, rows[0]["image"].shape[-1]), np.uint8)
    size = np.ones((batch, 2), np.int32)
    for to, at, row in zip(image, size, rows, strict=False):
        at[:] = row["image"].shape[:2]
        to[: at[0], : at[1]] = row["image"]

    def column(name: str, dtype: type, filler: int | bool) -> np.ndarray:
        values = [row[name] for row in rows] + [filler] * (batch - len(rows))
        return np.array(values, dtype)

    index = column("index", np.int32, -1)
    return {
        "image": image,
        "size": size,
        "label": column("label", np.int32, 0),
        "index": index,
        "valid": index >= 0,
        "bad": column("bad", bool, False),
    }
