"""The data sets by name. To add one, write a function here and give it a line in DATASETS."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from cnn_jax import registry
from cnn_jax.config import Choice, Data
from cnn_jax.data import alter, crops, folders, scan_report, tfds_sets
from cnn_jax.data.base import ArrayDataset, Arrays, Dataset, as_arrays, hold_out
from cnn_jax.data.crops import Box
from cnn_jax.data.resample import resample
from cnn_jax.errors import UserError, suggest_names
from cnn_jax.optional_packages import find_folder, require
from cnn_jax.values import Bound

DIGITS_SIDE = 8


def load_digits(
    data_dir: str,
    *,
    side: Annotated[int, Bound(1, 512), "Pixels to which each digit is enlarged"] = DIGITS_SIDE,
    margin: Annotated[int, Bound(0, 512), "Pixels of background around it"] = 0,
    scatter: Annotated[bool, "Put each digit at a random position instead of the center"] = False,
) -> Dataset:
    """Returns scikit-learn's 1,797 handwritten digits, 8x8: 1,437 to train, the last 360 to test.

    They are the test part of UCI's Optical Recognition of Handwritten Digits, and come inside the
    package. The split is ours; the set has none. With a side of 20 and a margin of 4 the digits lie
    in their images as MNIST's do. With `scatter` each digit has its own position, drawn once and
    uniformly within the margins.
    """
    images, labels = _read_digits()
    images = np.round(images * (255 / 16)).astype(np.uint8)[..., None]
    if side != DIGITS_SIDE:
        whole = Box(0, 0, DIGITS_SIDE, DIGITS_SIDE)
        images = np.stack([resample(image, whole, (side, side)) for image in images])
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    if scatter:
        moves = np.random.default_rng(0).integers(-margin, margin + 1, (len(images), 2))
        pairs = zip(images, moves, strict=True)
        images = np.stack([np.roll(image, tuple(move), (0, 1)) for image, move in pairs])
    train, test = Arrays(images[:1437], labels[:1437]), Arrays(images[1437:], labels[1437:])
    return Dataset(train, test, 10)


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images [1797, 8, 8] of 0 to 16, and labels [1797] int32."""
    # The package's file is read without the package, whose import takes a second.
    path = find_folder("sklearn") / "datasets" / "data" / "digits.csv.gz"
    if not path.exists():
        found = require("sklearn.datasets").load_digits()
        return found.images, found.target.astype(np.int32)
    rows = np.loadtxt(path, delimiter=",")
    return rows[:, :-1].reshape(-1, DIGITS_SIDE, DIGITS_SIDE), rows[:, -1].astype(np.int32)


def make_fake(data_dir: str) -> Dataset:
    """Returns noise with a bright square whose place gives the class: for smoke tests.

    8x8x3, 10 classes, 96 images to train and 40 to test.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(136, dtype=np.int32) % 10
    images = rng.integers(0, 96, (136, 8, 8, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 128
    train, test = Arrays(images[:96], labels[:96]), Arrays(images[96:], labels[96:])
    return Dataset(train, test, 10)


def load_mnist(data_dir: str) -> Dataset:
    """Returns MNIST, which `python -m cnn_jax.data.prepare mnist` prepares."""
    return tfds_sets.load_arrays("mnist", data_dir)


def load_cifar10(
    data_dir: str,
    *,
    jpeg_quality: Annotated[
        int, Bound(0, 100), "Encode each image as JPEG of this quality, to see what it costs; 0: no"
    ] = 0,
) -> Dataset:
    """Returns CIFAR-10, which `python -m cnn_jax.data.prepare cifar10` prepares."""
    found = tfds_sets.load_arrays("cifar10", data_dir)
    if not jpeg_quality:
        return found
    parts = (as_arrays(part) for part in (found.train, found.test))
    train, test = (
        part._replace(images=alter.encode_as_jpeg(part.images, jpeg_quality)) for part in parts
    )
    return found._replace(train=train, test=test)


def load_folder(
    data_dir: str, *, path: Annotated[str, "The folder; `--data=folder:PATH` sets it"] = ""
) -> Dataset:
    """Returns the images of a folder of class folders."""
    if not path:
        raise UserError("data.dataset=folder: give the folder's path, as folder:PATH")
    return folders.load_folder(path)


# Functions (data_dir, *, options) -> Dataset. Any other name is that of a prepared TFDS set of
# full-size images.
DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
    "fake": make_fake,
    "folder": load_folder,
}


class DatasetInfo(NamedTuple):
    """What is known about a data set before it is read.

    Attributes:
      image_shape: (H, W, C); of full-size images the usual crop.
      num_classes: The number of classes.
      train_images: The number of training images.
      test_images: The number of test images.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    train_images: int
    test_images: int


DATASET_INFO: dict[str, DatasetInfo] = {
    "digits": DatasetInfo((8, 8, 1), 10, 1_437, 360),
    "mnist": DatasetInfo((28, 28, 1), 10, 60_000, 10_000),
    "cifar10": DatasetInfo((32, 32, 3), 10, 50_000, 10_000),
    "fake": DatasetInfo((8, 8, 3), 10, 96, 40),
    "caltech101": DatasetInfo((224, 224, 3), 102, 3_029, 6_084),
    "imagenet2012": DatasetInfo((224, 224, 3), 1000, 1_281_167, 50_000),
}


def get_option_types(name: str) -> dict[str, Any]:
    """Returns {option: type} of a data set; a TFDS set has none."""
    return registry.get_option_types(DATASETS[name]) if name in DATASETS else {}


def get_defaults(name: str) -> dict[str, Any]:
    """Returns {option: default} of a data set; a TFDS set has none."""
    return registry.get_defaults(DATASETS[name]) if name in DATASETS else {}


def is_streamed(data: Data) -> bool:
    """Returns whether a run decodes its images for each batch; if not, it holds them in memory.

    `load_dataset` returns an `ImageDataset` or `Arrays` accordingly.
    """
    in_memory = data.dataset.name in DATASETS and data.dataset.name != "folder"
    return bool(data.image_size or data.train_resize) or not in_memory


def find_image_shape(data: Data) -> tuple[tuple[int, int, int], int]:
    """Returns ((H, W, C) of what the model sees, the number of classes).

    Sets that are not in DATASET_INFO are opened.
    """
    if data.dataset.name in DATASET_INFO:
        info = DATASET_INFO[data.dataset.name]
        (height, width, channels), classes = info.image_shape, info.num_classes
        if data.dataset.name == "digits":
            options: dict[str, Any] = {"side": height, "margin": 0} | data.dataset.args
            height = width = options["side"] + 2 * options["margin"]
    else:
        (height, width, channels) = (data.image_size, data.image_size, 3)
        classes = load_dataset(data).num_classes
    return (data.image_size or height, data.image_size or width, channels), classes


def check_dataset(data: Data) -> None:
    """Checks what can be checked of a data set's fields before it is opened.

    Raises:
      UserError: If there is no such set, or the sizes of full-size images are missing or wrong.
    """
    name = data.dataset.name
    if name not in DATASETS and not (data.image_size or data.train_resize):
        remedy = "a TFDS set of full-size images: set data.train_resize and data.image_size"
        if name in DATASET_INFO:
            raise UserError(f"data set {name} is {remedy}")
        near = suggest_names(name, DATASETS)
        if Path(name).is_dir():
            raise UserError(f"data set {name!r}: no such set; name a folder as folder:{name}")
        other = "" if name.casefold() in DATASETS else f"; if it is {remedy}"
        raise UserError(f"data set {name!r}: no such set; {near}{other}")
    if is_streamed(data):
        crops.check_sizes(data)


def check_held_out(data: Data, train_images: int) -> None:
    """Raises UserError if data.validation_images leaves no training image."""
    if data.validation_images >= train_images:
        raise UserError(
            f"data.validation_images={data.validation_images}: must be less than the"
            f" {train_images} training images of {data.name}"
        )


def load_dataset(data: Data) -> Dataset:
    """Returns the data set as a run sees it.

    data.validation_images training images replace the test set, unless it is 0: see
    `base.hold_out`.

    Raises:
      UserError: If there is no such set, it is not prepared, or the fields do not go together.
    """
    check_dataset(data)
    if is_streamed(data):
        dataset = _open_streamed(data.dataset, data.dir)
    else:
        dataset = open_dataset(data.dataset, data.dir)
    check_held_out(data, dataset.train.count)
    if held := data.validation_images:
        train, test = hold_out(dataset.train, held)
        dataset = dataset._replace(train=train, test=test)
    if data.long_tail > 1:
        dataset = dataset._replace(train=alter.cut_tail(dataset, data.long_tail))
    return alter.shuffle_pixels(dataset) if data.shuffle_pixels else dataset


def load_test_images(data: Data, num_classes: int) -> Dataset:
    """Returns the images on which a model that was trained elsewhere is evaluated.

    For a folder these are all images of its val/, or of its own class folders: see
    `folders.load_test_folder`. For other sets they are the test images.

    Args:
      data: The data set and the sizes of full-size images.
      num_classes: Number of classes of the model.

    Raises:
      UserError: As `load_dataset` does.
    """
    if data.dataset.name != "folder":
        return load_dataset(data)
    crops.check_sizes(data)
    return folders.load_test_folder(str(data.dataset.args.get("path", "")), num_classes)


def summarize_dataset(dataset: Dataset) -> list[str]:
    """Returns the lines that a run prints about its data: two for a folder, else none."""
    return scan_report.summarize_scan(dataset.scan) if dataset.scan else []


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Returns the description of a data set that a run stores as JSON.

    Returns:
      {train_images, test_images, num_classes, class_names, checksum: of the images' order, folder:
      what was found in a folder of images (`folder_scan.FolderScan`, with counts in place of the
      images), or None}.
    """
    return {
        "train_images": dataset.train.count,
        "test_images": dataset.test.count,
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "checksum": f"{dataset.train.checksum():08x}{dataset.test.checksum():08x}",
        "folder": scan_report.describe_scan(dataset.scan) if dataset.scan else None,
    }


@functools.lru_cache(maxsize=4)  # The runs of a study share the data.
def open_dataset(dataset: Choice, data_dir: str = "") -> Dataset:
    """Returns the named data set, by its function in DATASETS.

    Args:
      dataset: A name of DATASETS and its options, or the name of a prepared TFDS set.
      data_dir: The folder of prepared TFDS sets; empty: TFDS's own rule.

    Raises:
      UserError: If there is no such set, or it is not prepared.
    """
    if dataset.name in DATASETS:
        return registry.build("data.dataset", dataset, DATASETS, data_dir)
    try:
        return tfds_sets.load_tfds_set(dataset.name, data_dir)
    except UserError as e:
        near = suggest_names(dataset.name, DATASETS)
        if "is not prepared" in str(e) and near.startswith("nearest"):
            raise UserError(f"{e}; {near}") from None
        raise


@functools.lru_cache(maxsize=2)
def _open_streamed(choice: Choice, data_dir: str) -> Dataset:
    dataset = open_dataset(choice, data_dir)
    if dataset.streamed:
        return dataset
    return dataset._replace(
        train=ArrayDataset(f"{choice.name} train", as_arrays(dataset.train)),
        test=ArrayDataset(f"{choice.name} test", as_arrays(dataset.test)),
    )
