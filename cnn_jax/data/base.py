"""Data sets: arrays in memory, or full-size images that are read by number, still encoded.

The object of a full-size data set is small. It is pickled for the worker processes, which open its
files.
"""

import math
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnn_jax.errors import UserError

if TYPE_CHECKING:
    from cnn_jax.data.folder_scan import FolderScan

Encoded = bytes | np.ndarray  # A file's bytes, or uint8 [H, W, C].


class Arrays(NamedTuple):
    """Images that are held in memory, in the data set's own order.

    Attributes:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def count(self) -> int:  # type: ignore[override] # Hides tuple.count.
        """The number of images; `len` of a named tuple counts its fields."""
        return len(self.labels)

    def checksum(self) -> int:
        """Returns a checksum of the labels and the images."""
        return _compute_checksum(self.labels, _compute_checksum(self.images))


class ImageDataset:
    """Images by number, each encoded or in memory; `labels` is [N] int32."""

    if TYPE_CHECKING:  # A subclass defines them as an attribute or a property.

        @property
        def labels(self) -> np.ndarray:
            """[N] int32."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self)

    def checksum(self) -> int:
        """Returns a checksum of the labels and of the names of files and their folders."""
        total = _compute_checksum(self.labels)
        for i in range(len(self)):
            name = "/".join(self.name(i).replace("\\", "/").split("/")[-2:])
            total = zlib.crc32(name.encode(errors="replace") + b"\0", total)
        return total

    def name(self, i: int) -> str:
        """Returns the name of image i in messages."""
        raise NotImplementedError

    def __getitem__(self, i: int) -> tuple[Encoded, int]:
        """Returns (the file's bytes or uint8 [H, W, C], the label) of image i.

        Raises:
          OSError: If the file cannot be read.
        """
        raise NotImplementedError

    def read(self, i: int) -> Encoded:
        """Returns the file's bytes, or uint8 [H, W, C], of image i."""
        return self[i][0]


class ArrayDataset(ImageDataset):
    """Images of one size in memory, which are scaled and cut like those in files."""

    labels: np.ndarray

    def __init__(self, name: str, arrays: Arrays) -> None:
        self._name = name
        self.images, self.labels = map(np.asarray, arrays)
        check_arrays(name, Arrays(self.images, self.labels))

    def checksum(self) -> int:
        """Returns a checksum of the labels and the images."""
        return Arrays(self.images, self.labels).checksum()

    def name(self, i: int) -> str:
        """Returns the set's name, and the image's number in it, from 0."""
        return f"{self._name} image {i}"

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Returns (uint8 [H, W, C], the label) of image i."""
        return self.images[i], int(self.labels[i])


class Subset(ImageDataset):
    """Some images of another data set; `rows` [n] are their numbers there."""

    def __init__(self, parent: ImageDataset, rows: np.ndarray) -> None:
        self.parent, self.rows = parent, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """[n] int32."""
        return self.parent.labels[self.rows]

    def checksum(self) -> int:
        """Returns a checksum of the parent's and of the rows."""
        return _compute_checksum(self.rows, self.parent.checksum())

    def name(self, i: int) -> str:
        """Returns the parent's name of the image."""
        return self.parent.name(int(self.rows[i]))

    def __getitem__(self, i: int) -> tuple[Encoded, int]:
        """Returns the parent's image and label."""
        return self.parent[int(self.rows[i])]


class Dataset(NamedTuple):
    """A data set: training images, test images and classes.

    Attributes:
      train: `Arrays` if the set is held in memory, an `ImageDataset` if it is streamed.
      test: The same kind as `train`.
      num_classes: The number of classes.
      class_names: Their names by label; empty: the classes are numbers.
      scan: The result of scanning the folder, if the set is a folder of images.
    """

    train: Arrays | ImageDataset
    test: Arrays | ImageDataset
    num_classes: int
    class_names: tuple[str, ...] = ()
    scan: "FolderScan | None" = None

    @property
    def streamed(self) -> bool:
        """Whether images are decoded for each batch instead of kept in memory."""
        return not isinstance(self.train, Arrays)


def _compute_checksum(array: np.ndarray, total: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes(), total)


def check_arrays(name: str, arrays: Arrays, num_classes: int | None = None) -> None:
    """Checks images in memory, which a user may have made.

    Args:
      name: Begins the message.
      arrays: The images and labels.
      num_classes: The number of classes; None: labels may be any class.

    Raises:
      UserError: If the images are not uint8 [N, H, W, C], or there is not one class for each.
    """
    images, labels = arrays
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            f"{name}: images are {images.dtype} {images.shape}; give uint8 [N, H, W, C], of values"
            " from 0 to 255"
        )
    if labels.dtype.kind not in "biu" or labels.shape != images.shape[:1]:
        raise UserError(
            f"{name}: labels are {labels.dtype} {labels.shape}; give the integer of its class for"
            f" each of the {len(images)} images"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < (num_classes or math.inf):
        most = "" if num_classes is None else f" to {num_classes - 1}"
        raise UserError(
            f"{name}: labels go from {labels.min()} to {labels.max()}; number the classes from"
            f" 0{most}"
        )


def as_arrays(images: Arrays | ImageDataset) -> Arrays:
    """Returns the images of a data set in memory; raises TypeError if it is streamed."""
    if not isinstance(images, Arrays):
        raise TypeError(f"{type(images).__name__} is streamed, not held in memory")
    return images


def as_streamed(images: Arrays | ImageDataset) -> ImageDataset:
    """Returns the images of a streamed data set; raises TypeError if it is in memory."""
    if isinstance(images, Arrays):
        raise TypeError("Arrays are held in memory, not streamed")
    return images


def hold_out(train: Arrays | ImageDataset, count: int) -> tuple:
    """Splits training images into a smaller training set and `count` validation images.

    Of images in memory the last ones are held out. Streamed images may be sorted by class, so of
    these every k-th one is held out.

    Args:
      train: The training images.
      count: Number of validation images, less than all.

    Returns:
      (the other images, the held-out images), both of the same kind as `train`.
    """
    if isinstance(train, Arrays):
        return Arrays(*(a[:-count] for a in train)), Arrays(*(a[-count:] for a in train))
    held = np.arange(count) * len(train) // count
    rest = np.setdiff1d(np.arange(len(train)), held)
    return Subset(train, rest), Subset(train, held)
