"""Batches for training and evaluation of any data set, which can start at any step."""

import collections
import functools
import itertools
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from cnn_jax.config import Data
from cnn_jax.data import preprocess
from cnn_jax.data.base import Dataset, as_arrays, as_streamed, check_arrays
from cnn_jax.data.folder_scan import TEST_EVERY
from cnn_jax.data.sampler import balance_epoch, shuffle_epoch
from cnn_jax.errors import UserError

# {image: [B, H, W, C] uint8, label: [B] int32, valid: [B] bool}; streamed ones have bad: [B] bool.
Batch = dict[str, jax.Array]
HostBatch = dict[str, np.ndarray]
HostBatches = Generator[HostBatch, None, None]
BatchIterator = Callable[[int], HostBatches]


class Loader(NamedTuple):
    """Batches in two parts: items from the host, and pure functions that run inside the step.

    A data set in memory stays on the device as uint8, and an item holds the [B] row numbers of a
    batch. Full-size images are streamed: the item is the batch itself.

    Attributes:
      arrays: A tree that is replicated on every device.
      batches: batches(k) yields the items of step k and later ones; they are split over devices
        on dimension 0.
      fetch: (arrays, item) -> batch.
      preprocess: (arrays, images, key=None, rows=None) -> [B, H, W, C] float32, as
        `preprocess.preprocess`; without a key as in evaluation.
      images_per_epoch: Number of images of an epoch.
      image_shape: (H, W, C) of a preprocessed image.
    """

    arrays: Any
    batches: BatchIterator
    fetch: Callable[[Any, Any], Batch]
    preprocess: Callable[..., jax.Array]
    images_per_epoch: int
    image_shape: tuple[int, int, int]


def make_loader(
    data: Data, dataset: Dataset, seed: int | None = None, shard: tuple[int, int] = (0, 1)
) -> Loader:
    """Returns the loader of the training images or of the test images.

    Args:
      data: Batch sizes, crops and augmentation.
      dataset: The result of `load_dataset`.
      seed: Seed of the order of the training images, which come in endless epochs. None: the test
        images, each once and in order.
      shard: (i, n): the loader gives the i-th of n equal parts of each batch, for one process among
        n. It decodes no other streamed images.

    Raises:
      UserError: If the data cannot be augmented as asked, or there are no test images.
    """
    if dataset.streamed:
        return _make_streamed(data, dataset, seed, shard)
    return _make_resident(data, dataset, seed, shard)


def _make_resident(
    data: Data, dataset: Dataset, seed: int | None, shard: tuple[int, int]
) -> Loader:
    train = as_arrays(dataset.train)
    part = as_arrays(dataset.test) if seed is None else train
    if not train.count:
        raise UserError(f"data set {data.name} has no training images")
    for arrays in (train, part):
        check_arrays(f"data set {data.name}", arrays, dataset.num_classes)
    shape, count = part.images.shape[1:], part.count
    preprocess.check_augmentation(data, shape)
    arrays = {"image": part.images, "label": part.labels}
    arrays |= preprocess.measure_colors(data, train.images)
    if seed is None:
        batches = functools.partial(_take_once, count, data.eval_batch_size)
    else:
        epoch_order = functools.partial(shuffle_epoch, seed, count=count)
        if data.balance_classes:
            epoch_order = functools.partial(balance_epoch, seed, labels=part.labels)
            count = len(epoch_order(epoch=0))
        batches = functools.partial(_take_shuffled, epoch_order, count, data.batch_size)
    return Loader(
        arrays=arrays,
        batches=functools.partial(_take_shard, batches, shard),
        fetch=_fetch_rows,
        preprocess=functools.partial(preprocess.preprocess, data),
        images_per_epoch=count,
        image_shape=shape,
    )


def _make_streamed(
    data: Data, dataset: Dataset, seed: int | None, shard: tuple[int, int]
) -> Loader:
    from cnn_jax.data import measure, streaming  # Import OpenCV, which small images do not need.

    train = as_streamed(dataset.train)
    part = as_streamed(dataset.test) if seed is None else train
    if not len(part):
        raise UserError(
            f"data set {data.name} has no test images: every {TEST_EVERY}th image of a class is a"
            f" test image, and no class has {TEST_EVERY}; give them in val/ beside train/, or take"
            " training images with --set data.validation_images=N"
        )
    numbered = streaming.StreamedBatches(data, part, seed, shard)
    colors = measure.measure_streamed_colors(data, train)
    shape = colors["mean"].shape[1:]
    preprocess.check_augmentation(data, shape)
    return Loader(
        arrays=colors,
        batches=functools.partial(streaming.iterate_batches, numbered),
        fetch=_fetch_whole,
        preprocess=functools.partial(preprocess.preprocess, data),
        images_per_epoch=numbered.images_per_epoch,
        image_shape=shape,
    )


def _take_shuffled(
    epoch_order: Callable[..., np.ndarray], count: int, batch: int, start: int
) -> HostBatches:
    # Epochs follow one another without a gap: a batch may hold the end of one and the start of the
    # next, so that no image is dropped and each is seen once an epoch.
    epoch_order = functools.lru_cache(maxsize=2)(epoch_order)
    valid = np.ones(batch, bool)
    for first in itertools.count(start * batch, batch):
        index = []
        for epoch in range(first // count, (first + batch - 1) // count + 1):
            begin = first - epoch * count
            index.append(epoch_order(epoch=epoch)[max(0, begin) : begin + batch])
        yield {"index": np.concatenate(index), "valid": valid}


def _take_once(count: int, batch: int, start: int) -> HostBatches:
    for first in range(start * batch, count, batch):
        index = np.arange(first, first + batch, dtype=np.int32)
        yield {"index": np.minimum(index, count - 1), "valid": index < count}


def _take_shard(batches: BatchIterator, shard: tuple[int, int], start: int) -> HostBatches:
    part, parts = shard
    if parts == 1:
        return batches(start)

    def take(x: np.ndarray) -> np.ndarray:
        return x[part * len(x) // parts : (part + 1) * len(x) // parts]

    return ({name: take(x) for name, x in batch.items()} for batch in batches(start))


def _fetch_rows(arrays: Any, rows: dict[str, jax.Array]) -> Batch:
    index = rows["index"]
    return {
        "image": arrays["image"][index],
        "label": arrays["label"][index],
        "valid": rows["valid"],
    }


def _fetch_whole(arrays: Any, batch: dict[str, jax.Array]) -> Batch:
    return batch


def prefetch_to_device(
    batches: Iterable[Any], sharding: Sharding, size: int = 2
) -> Generator[Any, None, None]:
    """Yields the batches as arrays on the devices, ahead of the step that takes them.

    Args:
      batches: Trees of arrays; each process gives its own rows.
      sharding: The sharding of a batch over the devices of all processes.
      size: Number of batches that wait on the devices.
    """

    def place(x: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    waiting: collections.deque = collections.deque()
    iterator = iter(batches)
    try:
        for batch in iterator:
            waiting.append(jax.tree.map(place, batch))
            if len(waiting) > size:
                yield waiting.popleft()
        yield from waiting
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
