"""The one door to data: batches(...) gives a Feed, whatever lies behind it, restartable at any step."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.config import Data
from cnn_jax.data import augment, image_sets
from cnn_jax.data.datasets import IMAGES, SHAPES, SOURCES, Source, Split, load
from cnn_jax.data.sampler import balanced, order
from cnn_jax.errors import UserError, nearest

__all__ = ["IMAGES", "SHAPES", "SOURCES", "Feed", "Source", "Split", "balanced", "batches", "load", "order", "shape"]
__all__ += ["splits"]

Batch = dict[str, jax.Array]  # image [B, H, W, C] uint8, label [B] int32, valid [B] bool; streamed: bad [B] bool too
FOLDER = "folder:"


class Feed(NamedTuple):
    """Batches in two halves: an item a step from the host, and pure functions that run inside the step.

    A data set in memory lies on the device as uint8, and an item is the [B] row numbers of a batch. Full-size images
    are streamed: an item is the batch.
    """

    arrays: Any  # a tree that lies whole on every device
    items: Callable[[int], Iterator[Any]]  # items(k): those of step k and on; split over devices on dimension 0
    fetch: Callable[[Any, Any], Batch]  # (arrays, item) -> batch
    prepare: Callable[..., jax.Array]  # (arrays, images, key, rows) -> float32 [B, H, W, C]; key None: as in a test
    images: int  # in one epoch
    shape: tuple[int, int, int]  # H, W, C


def shape(data: Data) -> tuple[tuple[int, int, int], int]:
    """Height, width and channels of what the net sees, and the number of classes; of known sets without the data."""
    if data.name in SHAPES:
        (height, width, channels), classes = SHAPES[data.name]
    else:
        (height, width, channels), classes = (data.image_size, data.image_size, 3), splits(data).num_classes
    return (data.image_size or height, data.image_size or width, channels), classes


def splits(data: Data) -> Source:
    """The data set as the run sees it: with data.validation_images, so many training images stand for the test set.

    In memory they are the last ones; of full-size images, whose last ones are the last classes, every so manieth.
    """
    if data.image_size or data.train_resize or data.name.startswith(FOLDER):
        source = _full_size(data)
        split, counted = image_sets.hold_out, len(source.train)
    else:
        if data.name not in SOURCES and data.name in SHAPES:
            raise UserError(f"data set {data.name} is of full-size images: set data.train_resize and data.image_size")
        source = load(data.name, data.dir)
        split, counted = _last, len(source.train.labels)
    if not 0 <= data.validation_images < counted:
        raise UserError(f"data.validation_images={data.validation_images}: {data.name} has {counted} training images")
    return source._replace(**dict(zip(("train", "test"), split(source.train, data.validation_images), strict=True))
                           if data.validation_images else {})  # fmt: skip


def _last(train: Split, count: int) -> tuple[Split, Split]:
    return Split(*(a[:-count] for a in train)), Split(*(a[-count:] for a in train))


def _full_size(data: Data) -> Source:
    from cnn_jax.data import streaming  # brings Grain's and OpenCV's import times, which small images need not

    streaming.check(data)
    if data.name.startswith(FOLDER):
        return image_sets.from_folder(data.name.removeprefix(FOLDER))
    if data.name in SOURCES:
        return image_sets.from_memory(data.name, data.dir)
    try:
        return image_sets.from_tfds(data.name, data.dir)
    except UserError as e:
        if "is not prepared" in str(e) and (near := nearest(data.name, SOURCES)).startswith("nearest"):
            raise UserError(f"{e}; {near}") from None
        raise


def batches(data: Data, source: Source, seed: int | None = None, shard: tuple[int, int] = (0, 1)) -> Feed:
    """Training batches shuffled by the seed, without end; or without a seed each test image once, in order.

    shard (i, n): of each batch, the i-th of n equal parts: that of one process among several. A streamed one decodes no
    more than that.
    """
    if not isinstance(source.train, Split):
        return _streamed(data, source, seed, shard)
    split = source.test if seed is None else source.train
    shape = source.train.images.shape[1:]
    _check(data, shape)
    count = len(split.labels)
    arrays = {"image": split.images, "label": split.labels, **_colours(data, source.train.images)}
    if seed is None:
        items = lambda start: itertools.islice(_once(count, data.eval_batch_size), start, None)  # noqa: E731
    else:
        epoch_order = functools.partial(order, seed, count=count)
        if data.balance_classes:
            epoch_order = functools.partial(balanced, seed, labels=split.labels)
            count = len(epoch_order(epoch=0))
        items = functools.partial(_shuffled, epoch_order, count, data.batch_size)
    items = functools.partial(_part, items, shard)
    return Feed(arrays, items, _fetch, functools.partial(_prepare, data), count, shape)


def _streamed(data: Data, source: Source, seed: int | None, shard: tuple[int, int]) -> Feed:
    from cnn_jax.data import streaming

    part = source.test if seed is None else source.train
    if not len(part):
        raise UserError(
            f"data set {data.name} has no test images: no class has the {image_sets.EVERY} of which one is taken; give"
            " them in val/ beside train/, or take training images with --set data.validation_images=N"
        )
    fed = streaming.Batches(data, part, seed, shard)
    middles = streaming.middles(data, source.train)
    _check(data, middles.shape[1:])
    items = functools.partial(streaming.items, fed)
    return Feed(_colours(data, middles), items, _whole_item, functools.partial(_prepare, data), fed.images,
                middles.shape[1:])  # fmt: skip


def _check(data: Data, shape: tuple[int, ...]) -> None:
    """Raises UserError for colour augmentation that images of this shape cannot have."""
    if data.color_jitter and len(data.color_jitter) != 4:
        raise UserError(f"data.color_jitter={list(data.color_jitter)}: wants brightness, contrast, saturation and hue")
    if shape[-1] != 3 and (data.color_pca or any(data.color_jitter[2:])):
        raise UserError(
            f"data set {data.name} is grey: data.color_pca=true, and saturation and hue in data.color_jitter, want colours"
        )


def _shuffled(epoch_order: Callable, count: int, batch: int, start: int) -> Iterator[dict[str, np.ndarray]]:
    # Epochs follow one another without a gap: a batch may hold the end of one and the start of the next,
    # so that no image is dropped and each is seen once an epoch.
    epoch_order = functools.lru_cache(maxsize=2)(epoch_order)
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


def _part(items: Callable, shard: tuple[int, int], start: int) -> Iterator[dict[str, np.ndarray]]:
    part, parts = shard
    rows = lambda x: x[part * len(x) // parts : (part + 1) * len(x) // parts]
    return ({name: rows(x) for name, x in item.items()} for item in items(start)) if parts > 1 else items(start)


def _fetch(arrays: Any, item: dict[str, jax.Array]) -> Batch:
    index = item["index"]
    return {"image": arrays["image"][index], "label": arrays["label"][index], "valid": item["valid"]}


def _whole_item(arrays: Any, item: dict[str, jax.Array]) -> Batch:
    return item


def _prepare(
    data: Data, arrays: Any, images: jax.Array, key: jax.Array | None = None, rows: jax.Array | None = None
) -> jax.Array:
    # The mean goes before what moves pixels, so that the zeros that come in are the mean's colour. The scale is for
    # nets without batch norm; a convolution followed by batch norm gives the same for any scale.
    images = images.astype(jnp.float32)
    if key is None:
        return (images - arrays["mean"]) / 255
    names = ("pad", "flip", "jitter", "pca", "shift", "rotate", "vertical_flip", "noise")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    # A key of its own for each, so that one more leaves what the others draw as it was.
    changed = lambda name, function, x, *options: function(augment.row_keys(keys[name], rows), x, *options)
    if any(data.color_jitter):
        images = 255 * changed("jitter", augment.colour_jitter, images / 255, *data.color_jitter)
    images = (images - arrays["mean"]) / 255
    if data.color_pca:
        images = changed("pca", augment.pca_colour, images, *arrays["pca"])
    if data.pad_and_crop:
        images = changed("pad", augment.pad_and_crop, images, data.pad_and_crop)
    if data.shift:
        images = changed("shift", augment.shift, images, data.shift)
    if data.rotate:
        images = changed("rotate", augment.rotate, images, data.rotate)
    if data.flip:
        images = changed("flip", augment.flip, images)
    if data.vertical_flip:
        images = changed("vertical_flip", augment.vertical_flip, images)
    if data.gaussian_noise:
        images = changed("noise", augment.noise, images, data.gaussian_noise)
    return images


def _colours(data: Data, images: np.ndarray) -> dict[str, Any]:
    """What is measured of training images [N, H, W, C] uint8: the mean, and the principal components of colours."""
    return {"mean": _mean(data.subtract_mean, images)} | ({"pca": augment.pca(images)} if data.color_pca else {})


def _mean(kind: str, images: np.ndarray) -> np.ndarray:
    """What is subtracted, [1, H, W, C] float32 on the scale 0 to 255, always of the training images."""
    axes = {"pixel": (0,), "channel": (0, 1, 2), "none": ()}
    mean = images.mean(axes[kind], dtype=np.float64) if axes[kind] else np.zeros(images.shape[1:])
    return np.broadcast_to(mean, images.shape[1:]).astype(np.float32)[None]
