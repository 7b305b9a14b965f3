"""Images as a model takes them: center crops of a data set, a folder or a file."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_jax import data as datasets
from cnn_jax.config import Data
from cnn_jax.data import eval_views
from cnn_jax.data.decode import Interpolation
from cnn_jax.data.eval_views import MAX_PIXELS_PER_BATCH
from cnn_jax.data.folder_scan import IMAGE_SUFFIXES
from cnn_jax.data.image_files import list_images
from cnn_jax.errors import UserError
from cnn_jax.evaluation.protocols import CENTER
from cnn_jax.evaluation.retrieval import codes
from cnn_jax.evaluation.scoring import cut_views
from cnn_jax.trained import TrainedModel

LUMINANCE = (0.299, 0.587, 0.114)  # Weights of red, green and blue: ITU-R BT.601.


class LoadedImages(NamedTuple):
    """Images of one size, in memory.

    Attributes:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      rows: [N], the images' numbers in their data set, of which some may not be decodable.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


class EncodedImages(NamedTuple):
    """Codes of images.

    Attributes:
      codes: [N, D] float32.
      labels: [N] int32.
      rows: [N], the images' numbers in their data set, of which some may not be decodable.
    """

    codes: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


def iterate_images(
    config: Data,
    images: datasets.ImageDataset,
    resize: int,
    crop: int,
    interpolation: Interpolation = "bilinear",
) -> Iterator[LoadedImages]:
    """Yields batches of at least one image: the center crop of each, after it is scaled.

    Images that cannot be decoded stop it, or are named and left out, as config.on_bad_image says.

    Args:
      config: How images are decoded.
      images: The images.
      resize: The shorter side, in pixels.
      crop: Side of the center crop, in pixels.
      interpolation: By which images are scaled.

    Raises:
      UserError: If an image cannot be decoded, or with on_bad_image=skip none can.
    """
    batch = max(1, min(512, MAX_PIXELS_PER_BATCH // resize**2))
    cut = functools.partial(cut_views, CENTER, crop)
    for found in eval_views.iterate_views(config, images, resize, cut, batch, interpolation):
        valid = found["valid"]
        if not valid.any():  # None of the batch's images can be decoded.
            continue
        yield LoadedImages(found["crops"][valid, 0], found["label"][valid], found["index"][valid])


def read_images(
    config: Data, images: datasets.Arrays | datasets.ImageDataset, resize: int, crop: int
) -> LoadedImages:
    """Returns all images at once.

    Images of a data set in memory are returned as they are. Others are scaled and cut.

    Args:
      config: How images are decoded.
      images: The images.
      resize: The shorter side, in pixels.
      crop: Side of the center crop, in pixels.

    Raises:
      UserError: As `iterate_images` does.
    """
    if isinstance(images, datasets.Arrays):
        return LoadedImages(images.images, images.labels, np.arange(images.count))
    parts = list(iterate_images(config, images, resize, crop))
    return LoadedImages(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def iterate_model_images(
    model: TrainedModel, images: datasets.ImageDataset
) -> Iterator[LoadedImages]:
    """Yields batches of images as a model takes them, [B, H, W, C] uint8.

    Color images become gray for a model of gray ones, and gray images get three equal channels for
    a model of color ones.
    """
    side, _, channels = model.image_shape
    for part in iterate_images(model.data, images, model.resize, side, model.interpolation):
        yield part._replace(images=match_channels(part.images, channels))


def encode_dataset(
    model: TrainedModel, layer: codes.CodeLayer, images: datasets.ImageDataset
) -> EncodedImages:
    """Returns the codes of all images that can be decoded. One batch at a time is in memory.

    Args:
      model: The model.
      layer: The layer whose activations are the codes.
      images: The images.

    Raises:
      UserError: As `iterate_images` does.
    """
    labels: list[np.ndarray] = []
    rows: list[np.ndarray] = []

    def iterate_batches() -> Iterator[np.ndarray]:
        for part in iterate_model_images(model, images):
            labels.append(part.labels)
            rows.append(part.rows)
            yield part.images

    encode = codes.make_trained_encoder(model, layer)
    found = codes.encode_batches(encode, iterate_batches())
    return EncodedImages(found, np.concatenate(labels), np.concatenate(rows))


def match_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Returns images [N, H, W, channels] uint8: gray by luminance, or with three equal channels.

    Args:
      images: [N, H, W, C] uint8, with 1 or 3 channels.
      channels: 1 or 3.
    """
    if images.shape[-1] == channels:
        return images
    if channels == 1:
        return np.round(images @ np.array(LUMINANCE))[..., None].astype(np.uint8)
    return np.repeat(images, channels, axis=-1)


def open_images(what: str, path: str) -> datasets.FolderDataset:
    """Returns the images of a file, or of a folder and all folders in it: see `list_images`.

    A label is the number of the folder in which an image lies.

    Args:
      what: What messages call it, such as gallery.
      path: The file or folder.

    Raises:
      UserError: If there is no such path or no image in it, or a folder cannot be read.
    """
    place = Path(path)
    if place.is_file():
        return datasets.FolderDataset(str(place.parent), [place.name], [0])
    if not place.is_dir():
        raise UserError(f"{what}={path}: there is no such file or folder")
    names = list_images(what, path)
    if not names:
        suffixes = ", ".join(IMAGE_SUFFIXES[:6])
        raise UserError(f"{what}={path}: holds no images ({suffixes} and the like)")
    folders = sorted({os.path.dirname(name) for name in names})
    number = {name: i for i, name in enumerate(folders)}
    return datasets.FolderDataset(str(place), names, [number[os.path.dirname(n)] for n in names])
