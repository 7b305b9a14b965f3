"""The data sets that fit in memory, decoded once: uint8 images and labels as NumPy arrays."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnn_jax.errors import UserError, nearest


class Split(NamedTuple):
    """Images [N, H, W, C] uint8 and their labels [N] int32, in the data set's own order."""

    images: np.ndarray
    labels: np.ndarray


class Source(NamedTuple):
    """A data set: what may be learnt from, what is tested on, and the classes.

    In memory, images are a Split; full-size ones, a `listing.Listing`.
    """

    train: Any
    test: Any
    num_classes: int
    class_names: tuple[str, ...] = ()  # empty: they are numbers


def digits(_: str) -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8: the first 1,437 to train, the last 360 to test.

    Real images that come inside a package: the test part of UCI's Optical Recognition of Handwritten Digits.
    The split is ours; the set has none.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = found.target.astype(np.int32)
    return Source(Split(images[:1437], labels[:1437]), Split(images[1437:], labels[1437:]), 10)


def fake(_: str) -> Source:
    """Noise with a bright square whose place tells the class (8x8x3, 10 classes, 96 + 40): for smoke tests."""
    rng = np.random.default_rng(0)
    labels = np.arange(136, dtype=np.int32) % 10
    images = rng.integers(0, 96, (136, 8, 8, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 128
    return Source(Split(images[:96], labels[:96]), Split(images[96:], labels[96:]), 10)


def from_tfds(name: str, data_dir: str) -> Source:
    """A prepared TFDS set of small images of one size, read and decoded without TensorFlow.

    Raises UserError where it is not prepared, is damaged, or is of another form.
    """
    builder = prepared(name, data_dir)
    try:
        splits = [_decoded(builder, split) for split in ("train", "test")]
    except (KeyError, NotImplementedError, OSError, RuntimeError, ValueError) as e:
        why = str(e).strip().partition("\n")[0] or type(e).__name__
        raise UserError(
            f"data set {name} in {builder.data_dir} cannot be read ({why}): it must be whole, in array_record form,"
            f" as `python -m cnn_jax.data.prepare {name} --data_dir=ANOTHER_FOLDER` writes it"
        ) from None
    return Source(*splits, builder.info.features["label"].num_classes)


def prepared(name: str, data_dir: str) -> Any:
    """TFDS's reader of a prepared set.

    data_dir: where prepared folders lie; empty: TFDS's own rule ($TFDS_DATA_DIR, else ~/tensorflow_datasets).
    Raises UserError, with the command that prepares the set, where it is not there.
    """
    from tensorflow_datasets.core import constants, read_only_builder, registered

    try:
        return read_only_builder.builder_from_files(name, **({"data_dir": data_dir} if data_dir else {}))
    except registered.DatasetNotFoundError:
        looked, said = data_dir or constants.DATA_DIR, f" --data_dir={data_dir}" if data_dir else ""
        command = f"python -m cnn_jax.data.prepare {name}"
        if name not in SOURCES:  # with TensorFlow, which TFDS downloads and prepares by
            command = f"tfds build {name} --file_format=array_record"
        raise UserError(
            f"data set {name} is not prepared (looked in {looked}): run `{command}{said}`, or say where it is with"
            " --data_dir=FOLDER"
        ) from None


def _decoded(builder: Any, split: str) -> Split:
    rows = builder.as_data_source(split=split)
    images = np.empty((len(rows), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(rows), np.int32)
    for i, row in enumerate(rows):
        images[i], labels[i] = row["image"], row["label"]
    return Split(images, labels)


def option_types(name: str) -> dict[str, Any]:
    """Returns {option: type} of a data set."""
    return {"path": str} if name == "folder" else {}


SOURCES: dict[str, Callable[[str], Source]] = {
    "digits": digits,
    "mnist": functools.partial(from_tfds, "mnist"),
    "cifar10": functools.partial(from_tfds, "cifar10"),
    "fake": fake,
}


# Image shape and number of classes, known without the data (a dry run needs no more).
SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((8, 8, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "fake": ((8, 8, 3), 10),
    "caltech101": ((224, 224, 3), 102),
    "imagenet2012": ((224, 224, 3), 1000),
}

# Images to train and to test on, of the sets that are held in memory: likewise.
IMAGES: dict[str, tuple[int, int]] = {
    "digits": (1_437, 360),
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "fake": (96, 40),
}


@functools.lru_cache(maxsize=2)  # the runs of a study share what was decoded
def load(name: str, data_dir: str = "") -> Source:
    """The named data set; raises UserError where the name is unknown or the set is not prepared."""
    if name not in SOURCES:
        raise UserError(f"data set {name!r}: no such set; {nearest(name, SOURCES)}")
    return SOURCES[name](data_dir)
