"""Prepared TensorFlow Datasets, read without TensorFlow."""

import functools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.data.base import Arrays, Dataset, ImageDataset
from cnn_jax.data.headers import BadImage
from cnn_jax.errors import UserError, summarize_error
from cnn_jax.optional_packages import require

if TYPE_CHECKING:
    from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder

OWN_BUILDERS = ("mnist", "cifar10")  # Prepared by `cnn_jax.data.prepare`, not by TFDS.


class TfdsDataset(ImageDataset):
    """One split of a prepared set, whose images TFDS does not decode."""

    def __init__(self, folder: str, split: str, count: int) -> None:
        self.folder, self.split, self._count = folder, split, count

    def __len__(self) -> int:
        return self._count

    def checksum(self) -> int:
        """Returns a checksum of the split's name and size; reading it would take too long."""
        return zlib.crc32(f"{self.split} {self._count}".encode())

    def name(self, i: int) -> str:
        """Returns the set's folder, the split, and the image's number in it, from 0."""
        return f"{self.folder}: {self.split} image {i}"

    def __getitem__(self, i: int) -> tuple[bytes, int]:
        """Returns the encoded image that TFDS was given, and its label.

        Raises:
          BadImage: If the record is damaged.
        """
        try:
            return _read_row(self.folder, self.split, i)
        except UserError:  # A package is missing.
            raise
        except Exception as error:  # TFDS and array_record raise many kinds.
            raise BadImage(f"its record cannot be read ({summarize_error(error)})") from None

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """[N] int32. TFDS keeps labels with the images: this reads the whole split once."""
        labels = np.empty(len(self), np.int32)
        for i in range(len(self)):
            try:
                labels[i] = self[i][1]
            except BadImage as error:
                raise UserError(
                    f"{self.name(i)}: {error}, which holds the image's label too: all labels are"
                    " needed here; prepare the set again"
                ) from None
        return labels


def open_builder(name: str, data_dir: str) -> "ReadOnlyBuilder":
    """Returns TFDS's reader of a prepared set.

    Args:
      name: The set's name.
      data_dir: Where prepared folders lie; empty: TFDS's rule ($TFDS_DATA_DIR, else
        ~/tensorflow_datasets).

    Raises:
      UserError: If the set is not prepared; the message holds the command that prepares it.
    """
    require("tensorflow_datasets")
    require("array_record")
    from tensorflow_datasets.core import constants, read_only_builder, registered

    options = {"data_dir": data_dir} if data_dir else {}
    try:
        return read_only_builder.builder_from_files(name, **options)
    except registered.DatasetNotFoundError:
        command = f"python -m cnn_jax.data.prepare {name}"
        if name not in OWN_BUILDERS:  # Needs TensorFlow, with which TFDS downloads and prepares.
            command = f"tfds build {name} --file_format=array_record"
        command += f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"data set {name} is not prepared (looked in {data_dir or constants.DATA_DIR}): run"
            f" `{command}`, or say where it is with --data_dir=FOLDER"
        ) from None
    except Exception as error:  # TFDS raises many kinds, such as for a name of another form.
        raise UserError(f"data set {name} cannot be opened ({summarize_error(error)})") from None


def load_arrays(name: str, data_dir: str) -> Dataset:
    """Reads a prepared set of small images of one size into memory.

    Args:
      name: Name of the data set in TFDS.
      data_dir: Folder of TFDS data sets; empty: TFDS's default.

    Raises:
      UserError: If the set is not prepared, is damaged, or is of another form.
    """
    builder = open_builder(name, data_dir)
    try:
        train, test = (_decode_split(builder, split) for split in ("train", "test"))
    except (KeyError, NotImplementedError, OSError, RuntimeError, ValueError) as e:
        raise UserError(
            f"data set {name} in {builder.data_dir} cannot be read ({summarize_error(e)}): it"
            " must be whole, in array_record form, as `python -m cnn_jax.data.prepare"
            f" {name} --data_dir=ANOTHER_FOLDER` writes it"
        ) from None
    return Dataset(train, test, builder.info.features["label"].num_classes)


def load_tfds_set(name: str, data_dir: str = "") -> Dataset:
    """Opens any prepared TFDS set of labeled images, which stay encoded, with the labels of TFDS.

    The test images are those of the split `test`, or of the split `validation` if `test` is missing
    or has no labels. For imagenet2012 `validation` is preferred. A folder of images numbers its
    classes by their sorted names. These are the numbers of TFDS if TFDS sorts the names too, as in
    caltech101 and imagenet2012.

    Args:
      name: Name of the data set in TFDS.
      data_dir: Folder of TFDS data sets; empty: TFDS's default.

    Raises:
      UserError: If the set is not prepared, is damaged, or is of another form.
    """
    builder = open_builder(name, data_dir)
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    preferred = ("validation", "test") if name == "imagenet2012" else ("test", "validation")
    folder = str(builder.data_dir)
    _, label = builder.info.supervised_keys or ("image", "label")
    feature = dict(builder.info.features).get(label)
    splits = [split for split in preferred if split in sizes]
    if "train" not in sizes or not splits or feature is None or not hasattr(feature, "num_classes"):
        raise UserError(
            f"data set {name} in {folder} must have labeled images in splits to train and to test"
            " on"
        )
    tested, unlabeled = "", list[str]()
    for split in ("train", *splits):
        try:
            _, number = _read_row(folder, split, sizes[split] - 1)
        except Exception as e:  # TFDS and array_record raise many kinds.
            raise UserError(
                f"data set {name} in {folder} cannot be read ({summarize_error(e)}): it must be"
                " whole, and in array_record form (tfds build --file_format=array_record)"
            ) from None
        if number < 0:  # Labels that were not published are -1.
            unlabeled.append(split)
        elif split != "train":
            tested = split
            break
    if not tested or "train" in unlabeled:
        raise UserError(
            f"data set {name} in {folder}: its images of {' and '.join(unlabeled)} have no labels:"
            " choose a data set with labels to train and to test on"
        )
    train, test = (TfdsDataset(folder, split, sizes[split]) for split in ("train", tested))
    return Dataset(train, test, feature.num_classes, tuple(feature.names))


def _read_row(folder: str, split: str, i: int) -> tuple[bytes, int]:
    """Returns the encoded image and the label of a row."""
    rows, image, label = _open_split(folder, split)
    row = rows[i]
    return row[image], int(row[label])


@functools.lru_cache(maxsize=8)
def _open_split(folder: str, split: str) -> tuple[Any, str, str]:
    """Returns (a split's rows, the key of the image, that of the label), opened once a process."""
    from tensorflow_datasets.core import decode, read_only_builder

    builder = read_only_builder.builder_from_directory(folder)
    image, label = builder.info.supervised_keys or ("image", "label")
    rows = builder.as_data_source(split=split, decoders={image: decode.SkipDecoding()})
    return rows, image, label


def _decode_split(builder: "ReadOnlyBuilder", split: str) -> Arrays:
    rows = builder.as_data_source(split=split)
    images = np.empty((len(rows), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(rows), np.int32)
    for i, row in enumerate(rows):
        images[i], labels[i] = row["image"], row["label"]
    return Arrays(images, labels)
