"""What a data set is: arrays in memory, or full-size images by number, still encoded.

A full-size data set is small, is pickled to the processes that decode, and opens its files where
they are read.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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
    def count(self) -> int:  # type: ignore[override] # hides tuple.count, which nobody calls
        """The number of images; `len` of a named tuple counts its fields."""
        return len(self.labels)


class ImageDataset:
    """Images by number, each encoded or in memory; `labels` is [N] int32."""

    if TYPE_CHECKING:  # A subclass has them as an attribute, or computes them.

        @property
        def labels(self) -> np.ndarray:
            """[N] int32."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self)

    def name(self, i: int) -> str:
        """Returns what a message calls image i."""
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
    """Images of one size that are in memory already: scaled and cut as those in files are."""

    labels: np.ndarray

    def __init__(self, name: str, arrays: Arrays) -> None:
        self._name, self.images, self.labels = name, arrays.images, arrays.labels

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

    def name(self, i: int) -> str:
        """Returns the parent's name of the image."""
        return self.parent.name(int(self.rows[i]))

    def __getitem__(self, i: int) -> tuple[Encoded, int]:
        """Returns the parent's image and label."""
        return self.parent[int(self.rows[i])]


class Dataset(NamedTuple):
    """A data set: what is learned from, what is tested on, and the classes.

    Attributes:
      train: `Arrays` if the set is held in memory, an `ImageDataset` if it is streamed.
      test: Likewise.
      num_classes: The number of classes.
      class_names: Their names by label; empty: the classes are numbers.
      scan: What was found in a folder of images, if the set is one.
    """

    train: Arrays | ImageDataset
    test: Arrays | ImageDataset
    num_classes: int
    class_names: tuple[str, ...] = ()
    scan: "FolderScan | None" = None

    @property
    def streamed(self) -> bool:
        """Whether images are decoded for each batch, and not held in memory."""
        return not isinstance(self.train, Arrays)


def as_arrays(images: Arrays | ImageDataset) -> Arrays:
    """Returns the images of a data set that is held in memory; TypeError: it is streamed."""
    if not isinstance(images, Arrays):
        raise TypeError(f"{type(images).__name__} is streamed, not held in memory")
    return images


def as_streamed(images: Arrays | ImageDataset) -> ImageDataset:
    """Returns the images of a data set that is streamed; TypeError: it is held in memory."""
    if isinstance(images, Arrays):
        raise TypeError("Arrays are held in memory, not streamed")
    return images


def hold_out(train: Arrays | ImageDataset, count: int) -> tuple:
    """Splits training images into those that are trained on and `count` that are evaluated.

    Of images in memory the last ones are held out. Files lie by class, so that the last ones would
    be the last classes: of full-size images every k-th is held out.

    Args:
      train: The training images.
      count: How many are held out; less than there are.

    Returns:
      (the rest, the held-out images), each of train's kind.
    """
    if isinstance(train, Arrays):
        return Arrays(*(a[:-count] for a in train)), Arrays(*(a[-count:] for a in train))
    held = np.arange(count) * len(train) // count
    rest = np.setdiff1d(np.arange(len(train)), held)
    return Subset(train, rest), Subset(train, held)
