"""The one door to data: batches(...) gives a Feed, whatever lies behind it, restartable at any step."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.config import Data, UserError
from cnn_jax.data import augment
from cnn_jax.data.sources import IMAGES, SHAPES, SOURCES, Source, Split, load

__all__ = ["IMAGES", "SHAPES", "SOURCES", "Feed", "Source", "Split", "batches", "load", "order", "splits"]

Batch = dict[str, jax.Array]  # image [B, H, W, C] uint8, label [B] int32, valid [B] bool


class Feed(NamedTuple):
    """Batches in two halves: a small item a step from the host, and pure functions that run inside the step.

    The data set lies on the device as uint8; an item is the [B] row numbers of a batch.
    """

    arrays: Any  # a tree that lies whole on every device
    items: Callable[[int], Iterator[Any]]  # items(k): those of step k and on; split over devices on dimension 0
    fetch: Callable[[Any, Any], Batch]  # (arrays, item) -> batch
    prepare: Callable[..., jax.Array]  # (arrays, images, key, rows) -> float32 [B, H, W, C]; key None: as in a test
    images: int  # in one epoch


def splits(data: Data) -> Source:
    """The data set as the run sees it: with data.holdout, its last training images stand for the test set."""
    if data.shorter_side or data.crop or data.colour != "none" or data.views != "single":
        raise UserError(
            f"data set {data.name}: full-size images (data.shorter_side, crop, colour, views) are not fed by this"
            f" version, which holds small images in memory: choose one of {', '.join(SOURCES)}"
        )
    source = load(data.name, data.dir)
    if not 0 <= data.holdout < len(source.train.labels):
        raise UserError(f"data.holdout={data.holdout}: {data.name} has {len(source.train.labels)} training images")
    if not data.holdout:
        return source
    kept, held = (Split(*(a[part] for a in source.train))
                  for part in (slice(-data.holdout), slice(-data.holdout, None)))  # fmt: skip
    return Source(kept, held, source.num_classes)


def batches(data: Data, source: Source, seed: int | None = None) -> Feed:
    """Training batches shuffled by the seed, without end; or without a seed each test image once, in order."""
    split = source.test if seed is None else source.train
    arrays = {"image": split.images, "label": split.labels, "mean": _mean(data.mean, source.train.images)}
    count = len(split.labels)
    if seed is None:
        items = lambda start: itertools.islice(_once(count, data.eval_batch_size), start, None)  # noqa: E731
    else:
        items = functools.partial(_shuffled, count, data.batch_size, seed)
    return Feed(arrays, items, _fetch, functools.partial(_prepare, data.pad, data.flip), count)


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` images in an epoch: a permutation fixed by (seed, epoch)."""
    return np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)


def _shuffled(count: int, batch: int, seed: int, start: int) -> Iterator[dict[str, np.ndarray]]:
    # Epochs follow one another without a gap: a batch may hold the end of one and the start of the next,
    # so that no image is dropped and each is seen once an epoch.
    epoch_order = functools.lru_cache(maxsize=2)(functools.partial(order, seed, count=count))
    valid = np.ones(batch, bool)
    for first in itertools.count(start * batch, batch):
        epochs = range(first // count, (first + batch - 1) // count + 1)
        within = [slice(max(0, first - e * count), first + batch - e * count) for e in epochs]
        index = np.concatenate([epoch_order(epoch=e)[part] for e, part in zip(epochs, within, strict=True)])
        yield {"index": index, "valid": valid}


def _once(count: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    for first in range(0, count, batch):
        index = np.arange(first, first + batch, dtype=np.int32)
        yield {"index": np.minimum(index, count - 1), "valid": index < count}


def _fetch(arrays: Any, item: dict[str, jax.Array]) -> Batch:
    index = item["index"]
    return {"image": arrays["image"][index], "label": arrays["label"][index], "valid": item["valid"]}


def _prepare(
    pad: int, flip: bool, arrays: Any, images: jax.Array, key: jax.Array | None = None, rows: jax.Array | None = None
) -> jax.Array:
    # The mean goes first, so that padding's zeros are the mean's colour. The scale is for nets without
    # batch norm; a convolution followed by batch norm gives the same for any scale.
    images = (images.astype(jnp.float32) - arrays["mean"]) / 255
    if key is None:
        return images
    crop_key, flip_key = jax.random.split(key)
    if pad:
        images = augment.pad_and_crop(augment.row_keys(crop_key, rows), images, pad)
    if flip:
        images = augment.flip(augment.row_keys(flip_key, rows), images)
    return images


def _mean(kind: str, images: np.ndarray) -> np.ndarray:
    """What is subtracted, [1, H, W, C] float32 on the scale 0 to 255, always of the training images."""
    axes = {"pixel": (0,), "channel": (0, 1, 2), "none": ()}
    mean = images.mean(axes[kind], dtype=np.float64) if axes[kind] else np.zeros(images.shape[1:])
    return np.broadcast_to(mean, images.shape[1:]).astype(np.float32)[None]
