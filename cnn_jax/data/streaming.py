"""Batches of images that do not fit on the device.

A batch is a pure function of its step: neither the number of workers nor an interruption of the run
changes it.
"""

import functools
import sys
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.config import Data
from cnn_jax.data import crops
from cnn_jax.data.base import Encoded, ImageDataset
from cnn_jax.data.decode import decode_crop, decode_windows, find_center
from cnn_jax.data.headers import BadImage
from cnn_jax.data.sampler import balance_epoch, shuffle_epoch
from cnn_jax.data.workers import ENDLESS, prefetch_decoded
from cnn_jax.errors import UserError, describe_os_error


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
      image: uint8 [h, w, C].
      label: Its class.
      index: Its number in the data set.
      replaced: Whether it is used instead of one that cannot be decoded.
    """

    image: np.ndarray
    label: int
    # It hides tuple.index, which nobody calls.
    index: int  # type: ignore[assignment]
    replaced: bool


class StreamedBatches:
    """Batches of full-size images by number.

    Each batch is {image: [B, crop, crop, C] uint8, label: [B] int32, index: [B] int32, valid: [B]
    bool, bad: [B] bool}. `bad` marks an image that cannot be decoded, instead of which the next one
    is used. With data.on_bad_image=stop such an image raises UserError.

    In training, position p of the endless order is position p mod n of epoch p // n, whose crop is
    drawn from (seed, epoch, position). In evaluation each image comes once, in order, as its
    center crop; the last batch is filled up with rows that are not valid, and an image that cannot
    be decoded is not valid either.

    Attributes:
      data: How images are cut.
      images: The data set.
      seed: The run's seed; None: evaluation.
      shard: (i, n): the i-th of n equal parts of each batch is decoded.
      images_per_epoch: Number of images of an epoch. With data.balance_classes these are more than
        the data set has.
    """

    def __init__(
        self, data: Data, images: ImageDataset, seed: int | None, shard: tuple[int, int] = (0, 1)
    ) -> None:
        self.data, self.images, self.seed, self.shard = data, images, seed, shard
        self.batch = data.eval_batch_size if seed is None else data.batch_size
        self.labels = images.labels if data.balance_classes and seed is not None else None
        self.images_per_epoch = len(images)
        if self.labels is not None:
            self.images_per_epoch = len(balance_epoch(0, 0, self.labels))

    @property
    def stop(self) -> int:
        """The number after the last batch's."""
        return ENDLESS if self.seed is not None else -(-len(self.images) // self.batch)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """Decodes batch `number`."""
        part, parts = self.shard
        first = number * self.batch + part * self.batch // parts
        last = number * self.batch + (part + 1) * self.batch // parts
        read = self._read_test_row if self.seed is None else self._read_training_row
        rows = [read(position) for position in range(first, last)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _read_test_row(self, position: int) -> dict[str, Any]:
        index = min(position, len(self.images) - 1)
        scale, side = crops.choose_eval_side(self.data), self.data.image_size
        center = functools.partial(find_center, side=side)

        def decode(encoded: Encoded) -> np.ndarray:
            return decode_windows(encoded, scale, center, side)[0]

        row = self._read(index, decode)
        # In evaluation no image counts for another.
        return row | {"valid": position < len(self.images) and not row["bad"]}

    def _read_training_row(self, position: int) -> dict[str, Any]:
        assert self.seed is not None  # as in all training
        epoch, place = divmod(position, self.images_per_epoch)
        index = int(_order_epoch(self, epoch)[place])
        # 1 + place: NumPy seeds (seed, epoch), which orders the epoch, and (seed, epoch, 0) alike.
        rng = np.random.default_rng((self.seed, epoch, 1 + place))
        if self.data.train_crop == "inception":
            box = functools.partial(crops.draw_inception_crop, rng)
        else:
            box = functools.partial(self._draw_scale_jitter, rng)
        side = self.data.image_size

        def decode(encoded: Encoded) -> np.ndarray:
            return decode_crop(encoded, box, (side, side))

        return self._read(index, decode) | {"valid": True}

    def _draw_scale_jitter(self, rng: np.random.Generator, size: crops.Size) -> crops.Box:
        sides = self.data.train_resize
        return crops.draw_scale_jitter(rng, size, sides[0], sides[-1], self.data.image_size)

    def _read(self, index: int, decode: Callable[[Encoded], np.ndarray]) -> dict[str, Any]:
        found = decode_or_next(self.data, self.images, index, decode)
        return {
            "image": found.image,
            "label": np.int32(found.label),
            "index": np.int32(found.index),
            "bad": found.replaced,
        }


@functools.lru_cache(maxsize=4)
def _order_epoch(batches: StreamedBatches, epoch: int) -> np.ndarray:
    assert batches.seed is not None
    if batches.labels is not None:
        return balance_epoch(batches.seed, epoch, batches.labels)
    return shuffle_epoch(batches.seed, epoch, batches.images_per_epoch)


def iterate_batches(
    batches: StreamedBatches, start: int
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields batch `start` and those after it, decoded before they are needed.

    data.workers processes decode them, or a thread per core if it is 0. They end with the iterator.
    """
    return prefetch_decoded(batches.__getitem__, range(start, batches.stop), batches.data.workers)


def decode_or_next(
    data: Data, images: ImageDataset, index: int, decode: Callable[[Encoded], np.ndarray]
) -> Decoded:
    """Decodes an image, or the next one that can be decoded.

    Args:
      data: Whether a bad image stops the run: data.on_bad_image.
      images: The data set.
      index: The image's number.
      decode: Gives uint8 [h, w, C].

    Raises:
      UserError: With the image's name and the reason, unless data.on_bad_image is skip; or if no
        image can be decoded.
    """
    for tried in range(len(images)):
        at = (index + tried) % len(images)
        try:
            encoded, label = images[at]
            return Decoded(decode(encoded), label, at, tried > 0)
        except (BadImage, OSError) as error:
            why = describe_os_error(error, images.name(at)) if isinstance(error, OSError) else error
            why = f"{images.name(at)}: {why}"
            if data.on_bad_image != "skip":
                remedy = "remove it, or leave it out with --set data.on_bad_image=skip"
                raise UserError(f"{why}; {remedy}") from None
            _warn_once(why)
    raise UserError(f"none of the {len(images)} images can be decoded, such as {images.name(0)}")


@functools.cache
def _warn_once(why: str) -> None:
    """Names a bad image, once in each process."""
    print(f"left out: {why}", file=sys.stderr, flush=True)
