"""Images to visualize: N of a data set, or the files of a folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_jax import data
from cnn_jax.config import Data, dataset
from cnn_jax.data.base import ArrayDataset, Arrays, Encoded, ImageDataset
from cnn_jax.data.decode import decode_windows, find_center
from cnn_jax.data.folder_scan import IMAGE_SUFFIXES
from cnn_jax.data.headers import BadImage
from cnn_jax.data.image_files import list_images
from cnn_jax.errors import UserError
from cnn_jax.files import expand_path
from cnn_jax.text import printable
from cnn_jax.trained import TrainedModel

DEFAULT_IMAGES, MAX_IMAGES = 8, 64


class Images(NamedTuple):
    """Images with their labels and names.

    Attributes:
      pixels: As the user knows them, [N, H, W, C] uint8.
      labels: Their classes, [N] int; -1: not known.
      names: What messages and titles call them.
      source: Where they are from.
    """

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    source: str


class Source(NamedTuple):
    """Where images are from.

    Attributes:
      name: FOLDER of image files, or DATASET:N for N test images of a data set; empty: the run's
        own test images. Of more images than are asked for, every k-th is taken.
      data_dir: Where prepared TFDS folders lie; empty: TFDS's own rule.
    """

    name: str = ""
    data_dir: str = ""


def load_images(model: TrainedModel, source: Source) -> Images:
    """Loads images for a model.

    Args:
      model: The model that will see them.
      source: Where they are from.

    Raises:
      UserError: If there are no such images, one cannot be read, or there are too many.
    """
    name, count = _split_count(source.name)
    if name and expand_path("images", name).is_dir():
        return _load_folder(model, expand_path("images", name), count)
    test, known = _open_test_images(model, name, source.data_dir)
    rows = spread(len(test), count)
    pixels = np.concatenate([_cut(model, test.read(i), test.name(i)) for i in rows])
    labels = test.labels[rows] if known else np.full(len(rows), -1)
    names = tuple(map(test.name, rows))
    return Images(pixels, labels, names, f"{len(rows)} of {len(test):,} {_name_set(test)} images")


def load_gallery(model: TrainedModel, source: Source, most: int) -> Images:
    """Loads up to `most` images of the same source, to look for what excites a channel."""
    name, _ = _split_count(source.name)
    if name and expand_path("images", name).is_dir():
        return _load_folder(model, expand_path("images", name), most)
    test, _ = _open_test_images(model, name, source.data_dir)
    rows = spread(len(test), most)
    pixels = np.concatenate([_cut(model, test.read(i), test.name(i)) for i in rows])
    return Images(pixels, test.labels[rows], tuple(map(test.name, rows)), _name_set(test))


def spread(length: int, count: int) -> list[int]:
    """Returns `count` numbers below `length`, evenly spread; all, if there are fewer."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def _split_count(asked: str) -> tuple[str, int]:
    """Returns the name and the number of NAME:N."""
    name, colon, number = asked.rpartition(":")
    if not colon or not number.isdigit():
        return asked, DEFAULT_IMAGES
    if not 1 <= int(number) <= MAX_IMAGES:
        raise UserError(f"images={asked}: must be 1 to {MAX_IMAGES} images")
    return name, int(number)


def _open_test_images(model: TrainedModel, name: str, data_dir: str) -> tuple[ImageDataset, bool]:
    """Returns test images, and whether their labels are classes of the model."""
    if not name and model.folder is None:
        raise UserError(f"images: {model.name} has no data of its own: give FOLDER or DATASET:N")
    if name:
        crop = model.image_shape[0]
        config = Data(dataset=dataset(name), dir=data_dir)
        if data.is_streamed(config):
            config = replace(config, image_size=crop, train_resize=(crop,))
    else:
        config = model.data
    source = data.load_dataset(config)
    label = f"{config.name} test"
    test = ArrayDataset(label, source.test) if isinstance(source.test, Arrays) else source.test
    if not len(test):
        raise UserError(f"images={name}: the data set has no test images")
    return test, source.num_classes == model.num_classes


def _name_set(test: ImageDataset) -> str:
    return test.name(0).removesuffix(" image 0") if isinstance(test, ArrayDataset) else "test"


def _load_folder(model: TrainedModel, folder: Path, count: int) -> Images:
    """Loads image files below a folder; the name of their own folder may be their class."""
    every = [folder / name for name in list_images("images", folder)]
    if not every:
        raise UserError(f"images={folder}: no image files found ({', '.join(IMAGE_SUFFIXES)})")
    chosen = [every[i] for i in spread(len(every), count)]
    pixels = []
    for path in chosen:
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise UserError(f"{printable(path)} cannot be read: {error.strerror}") from None
        pixels.append(_cut(model, encoded, str(path)))
    names = list(model.class_names)
    labels = [names.index(p.parent.name) if p.parent.name in names else -1 for p in chosen]
    shown = tuple(str(path.relative_to(folder)) for path in chosen)
    return Images(
        np.concatenate(pixels),
        np.array(labels),
        shown,
        f"{len(chosen)} of {len(every):,} files of {folder}",
    )


def _cut(model: TrainedModel, encoded: Encoded, name: str) -> np.ndarray:
    """Returns the center crop of an image that the model sees, [1, H, W, C] uint8."""
    side, _, channels = model.image_shape
    if isinstance(encoded, np.ndarray) and encoded.shape[-1] != channels:
        kinds = {1: "gray", 3: "color"}
        raise UserError(
            f"{name}: a {kinds.get(encoded.shape[-1], 'strange')} image, and the model takes"
            f" {kinds.get(channels, 'other')} ones"
        )
    if isinstance(encoded, np.ndarray) and encoded.shape == model.image_shape:
        return encoded[None]

    def find_middle(size: tuple[int, int]) -> Sequence[tuple[int, int]]:
        return find_center(size, side)

    try:
        return decode_windows(encoded, model.resize, find_middle, side, channels)
    except BadImage as error:
        raise UserError(f"{printable(name)}: {error}; take it out, or repair it") from None
