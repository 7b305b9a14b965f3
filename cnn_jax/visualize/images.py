"""Images to visualize: N of a data set, or the files of a folder."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_jax import data
from cnn_jax.config import Data, parse_dataset
from cnn_jax.data.base import ArrayDataset, Arrays, Encoded, ImageDataset
from cnn_jax.data.decode import decode_windows, find_center
from cnn_jax.data.folder_scan import IMAGE_SUFFIXES
from cnn_jax.data.headers import BadImage
from cnn_jax.data.image_files import list_images
from cnn_jax.errors import UserError, describe_os_error
from cnn_jax.files import expand_path
from cnn_jax.text import escape_unprintable
from cnn_jax.trained import TrainedModel

DEFAULT_IMAGES, MAX_IMAGES = 8, 64
IMAGENET_CLASSES = 1000


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

    Images that cannot be decoded are left out if model.data.on_bad_image is skip.

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
    pixels, rows = _cut_all(model, spread(len(test), count), test.read, test.name)
    labels = test.labels[rows] if known else np.full(len(rows), -1)
    names = tuple(map(test.name, rows))
    return Images(pixels, labels, names, f"{len(rows)} of {len(test):,} {_name_set(test)} images")


def load_gallery(model: TrainedModel, source: Source, most: int) -> Images:
    """Loads up to `most` images of the same source, to look for what excites a channel."""
    name, _ = _split_count(source.name)
    if name and expand_path("images", name).is_dir():
        return _load_folder(model, expand_path("images", name), most)
    test, _ = _open_test_images(model, name, source.data_dir)
    pixels, rows = _cut_all(model, spread(len(test), most), test.read, test.name)
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
    own = model.folder is not None and name in ("", model.data.name)
    crop = model.image_shape[0]
    config = model.data
    if name:
        config = Data(dataset=parse_dataset(name), dir=data_dir)
        if data.is_streamed(config):
            config = replace(config, image_size=crop, train_resize=(crop,))
    # Of a folder, --evaluate of public weights takes all images. A run's own has its split.
    source = data.load_dataset(config) if own else data.load_test_images(config, model.num_classes)
    label = f"{config.name} test"
    test = ArrayDataset(label, source.test) if isinstance(source.test, Arrays) else source.test
    if not len(test):
        raise UserError(f"images={name}: the data set has no test images")
    return test, own or _share_classes(model, source)


def _share_classes(model: TrainedModel, source: data.Dataset) -> bool:
    """Returns whether the classes of a data set other than a run's own are those of the model.

    As many classes are not the same classes. Weights do not name theirs; a thousand are ImageNet's.
    """
    if source.num_classes != model.num_classes:
        return False
    if model.class_names and source.class_names:
        return model.class_names == source.class_names
    return model.folder is None and model.num_classes == IMAGENET_CLASSES


def _name_set(test: ImageDataset) -> str:
    return test.name(0).removesuffix(" image 0") if isinstance(test, ArrayDataset) else "test"


def _load_folder(model: TrainedModel, folder: Path, count: int) -> Images:
    """Loads image files below a folder; the name of their own folder may be their class."""
    every = [folder / name for name in list_images("images", folder)]
    if not every:
        raise UserError(f"images={folder}: no image files found ({', '.join(IMAGE_SUFFIXES)})")
    pixels, rows = _cut_all(
        model, spread(len(every), count), lambda i: every[i].read_bytes(), lambda i: str(every[i])
    )
    chosen = [every[i] for i in rows]
    names = list(model.class_names)
    labels = [names.index(p.parent.name) if p.parent.name in names else -1 for p in chosen]
    shown = tuple(str(path.relative_to(folder)) for path in chosen)
    return Images(
        pixels,
        np.array(labels),
        shown,
        f"{len(chosen)} of {len(every):,} files of {folder}",
    )


def _cut_all(
    model: TrainedModel,
    rows: Sequence[int],
    read: Callable[[int], Encoded],
    name: Callable[[int], str],
) -> tuple[np.ndarray, list[int]]:
    """Returns the middle of each image, [N, H, W, C] uint8, and the rows that are not left out."""
    pixels, kept = [], []
    for row in rows:
        try:
            pixels.append(_cut(model, read(row), name(row)))
            kept.append(row)
        except (BadImage, OSError) as error:
            why = describe_os_error(error, name(row)) if isinstance(error, OSError) else error
            why = escape_unprintable(f"{name(row)}: {why}")
            if model.data.on_bad_image != "skip":
                remedy = "take it out, or leave it out with --set data.on_bad_image=skip"
                raise UserError(f"{why}; {remedy}") from None
            print(f"left out: {why}", file=sys.stderr, flush=True)
    if not kept:
        first = escape_unprintable(name(rows[0]))
        raise UserError(f"none of the {len(rows)} images can be decoded, such as {first}")
    return np.concatenate(pixels), kept


def _cut(model: TrainedModel, encoded: Encoded, name: str) -> np.ndarray:
    """Returns the center crop of an image, [1, H, W, C] uint8; raises BadImage."""
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

    return decode_windows(encoded, model.resize, find_middle, side, channels, model.interpolation)
