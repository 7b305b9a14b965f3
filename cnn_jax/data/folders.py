"""Data sets of images in class folders."""

import os
from collections.abc import Sequence

import numpy as np

from cnn_jax.data.base import Dataset, ImageDataset
from cnn_jax.data.folder_index import scan_with_index
from cnn_jax.data.folder_scan import FolderScan
from cnn_jax.errors import UserError
from cnn_jax.text import escape_unprintable


class FolderDataset(ImageDataset):
    """Images in files: paths below a folder, and labels [N] int32."""

    labels: np.ndarray

    def __init__(self, folder: str, paths: Sequence[str], labels: Sequence[int]) -> None:
        self.folder, self.paths, self.labels = folder, tuple(paths), np.array(labels, np.int32)

    def name(self, i: int) -> str:
        """Returns the file's path."""
        return os.path.join(self.folder, self.paths[i])

    def __getitem__(self, i: int) -> tuple[bytes, int]:
        """Returns the file as it is, and its label."""
        with open(self.name(i), "rb") as file:
            return file.read(), int(self.labels[i])


def load_folder(path: str) -> Dataset:
    """Returns the data set of a folder of images, numbered by the classes' sorted names.

    PATH/train and PATH/val contain class folders; any of TRAIN_NAMES, VAL_NAMES and TEST_NAMES is
    accepted, in any case. Or PATH/val contains images, and one of LABEL_FILES their labels. If
    there is no split besides train/, or PATH itself contains the class folders, every 5th of each
    class's files, sorted by name, is a test image.

    Raises:
      UserError: If the folder is of another form, or has one class.
    """
    scan = scan_with_index(path)
    full = [name for name in scan.classes if name not in scan.empty_classes]
    if len(full) == 1:
        raise UserError(
            f"data set folder:{path}: all training images are of one class,"
            f" {escape_unprintable(full[0])}: there is nothing to learn; the folders in"
            " PATH/train, or in PATH, are the classes"
        )
    return _make_dataset(scan)


def load_test_folder(path: str, num_classes: int) -> Dataset:
    """Returns all test images of a folder, for a model that was trained elsewhere.

    They are those of PATH/val, by any name that `load_folder` knows, or of PATH's own class
    folders. Class folders named exactly 0 ... num_classes - 1 are sorted as numbers.

    Args:
      path: The folder.
      num_classes: Number of classes of the model.

    Raises:
      UserError: If the folder is of another form.
    """
    return _make_dataset(scan_with_index(path, test_only=True, num_classes=num_classes))


def _make_dataset(scan: FolderScan) -> Dataset:
    test = FolderDataset(scan.test.folder, scan.test.paths, scan.test.labels)
    train = FolderDataset(scan.root, (), ())
    if scan.train is not None:
        train = FolderDataset(scan.train.folder, scan.train.paths, scan.train.labels)
    return Dataset(train, test, len(scan.classes), scan.classes, scan)
