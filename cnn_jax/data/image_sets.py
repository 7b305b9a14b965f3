"""Full-size images by number, still encoded: a folder of class folders, a prepared TFDS set, or arrays in memory.

A listing is small, is pickled to the processes that decode, and opens its files where it is read.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data.datasets import Source, Split, load, prepared
from cnn_jax.errors import UserError

EVERY = 5  # of a class's images that lie in no split of their own, each such one is a test image
TESTED_ON = ("val", "validation", "test")
LABEL_FILES = ("val_labels.txt", "{test}_labels.txt", "{test}.txt", "{test}/labels.txt")


class Listing:
    """What each kind of listing has: images, each encoded or in memory, and labels [N] int32."""

    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """What a message calls image i."""
        raise NotImplementedError

    def element(self, i: int) -> tuple[Any, int]:
        """The file's bytes, or uint8 [H, W, C], and the label."""
        raise NotImplementedError

    def read(self, i: int) -> Any:
        """The file's bytes, or uint8 [H, W, C]."""
        return self.element(i)[0]


class Files(Listing):
    """Images in files: paths below a folder, and labels [N] int32."""

    def __init__(self, folder: str, paths: Sequence[str], labels: Sequence[int]) -> None:
        self.folder, self.paths, self.labels = folder, tuple(paths), np.array(labels, np.int32)

    def name(self, i: int) -> str:
        """The file's path."""
        return os.path.join(self.folder, self.paths[i])

    def element(self, i: int) -> tuple[bytes, int]:
        """The file as it is; OSError where it cannot be read."""
        with open(self.name(i), "rb") as file:
            return file.read(), int(self.labels[i])


class Records(Listing):
    """One split of a prepared TFDS set, whose images are not decoded by TFDS."""

    def __init__(self, folder: str, split: str, count: int) -> None:
        self.folder, self.split, self.count = folder, split, count

    def __len__(self) -> int:
        return self.count

    def name(self, i: int) -> str:
        """The set's folder, the split and the place in it, from 0."""
        return f"{self.folder}: {self.split} image {i}"

    def element(self, i: int) -> tuple[bytes, int]:
        """The encoded image that TFDS was given."""
        rows, image, label = _opened(self.folder, self.split)
        row = rows[i]
        return row[image], int(row[label])

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """[N] int32. TFDS keeps labels with the images: this reads the whole split once."""
        return np.array([self.element(i)[1] for i in range(self.count)], np.int32)


@functools.lru_cache(maxsize=8)
def _opened(folder: str, split: str) -> tuple[Any, str, str]:
    """(a split's rows, the key of the image, the key of the label), opened once a process."""
    from tensorflow_datasets.core import decode, read_only_builder

    builder = read_only_builder.builder_from_directory(folder)
    image, label = builder.info.supervised_keys or ("image", "label")
    return builder.as_data_source(split=split, decoders={image: decode.SkipDecoding()}), image, label


class Arrays(Listing):
    """Images that are in memory already, of one size: they are scaled and cut like those in files."""

    def __init__(self, name: str, split: Split) -> None:
        self._name, self.images, self.labels = name, split.images, split.labels

    def name(self, i: int) -> str:
        """The set's name, and the place in it, from 0."""
        return f"{self._name} image {i}"

    def element(self, i: int) -> tuple[np.ndarray, int]:
        """uint8 [H, W, C] and the label."""
        return self.images[i], int(self.labels[i])


class Part(Listing):
    """Some images of another listing: rows [n] are their numbers there."""

    def __init__(self, whole: Listing, rows: np.ndarray) -> None:
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """[n] int32."""
        return self.whole.labels[self.rows]

    def name(self, i: int) -> str:
        """As the other listing has it."""
        return self.whole.name(int(self.rows[i]))

    def element(self, i: int) -> tuple[Any, int]:
        """As the other listing has it."""
        return self.whole.element(int(self.rows[i]))


def hold_out(train: Listing, count: int) -> tuple[Listing, Listing]:
    """(the rest, `count` images evenly spread): files lie by class, so the last ones would be the last classes."""
    held = np.arange(count) * len(train) // count
    return Part(train, np.setdiff1d(np.arange(len(train)), held)), Part(train, held)


@functools.lru_cache(maxsize=2)
def from_memory(name: str, data_dir: str = "") -> Source:
    """One of the small sets, as full-size images."""
    source = load(name, data_dir)
    return source._replace(train=Arrays(f"{name} train", source.train), test=Arrays(f"{name} test", source.test))


@functools.lru_cache(maxsize=2)
def from_tfds(name: str, data_dir: str = "") -> Source:
    """Any prepared TFDS set of labelled images, read without TensorFlow, by its labels' own numbers.

    Tested on is its test split, and else its validation split; of imagenet2012, whose test images have no labels, the
    validation split. A folder numbers classes by their sorted names: the same numbers where TFDS's names are sorted,
    as those of caltech101 and imagenet2012 are. Raises UserError where the set is not prepared or is none of that kind.
    """
    builder = prepared(name, data_dir)
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    tested = next((s for s in ("validation", "test")[:: 1 if name == "imagenet2012" else -1] if s in sizes), None)
    folder, (_, label) = str(builder.data_dir), builder.info.supervised_keys or ("image", "label")
    if "train" not in sizes or tested is None or not hasattr(dict(builder.info.features).get(label), "num_classes"):
        raise UserError(f"data set {name} in {folder} has not images with labels in splits to train and to test on")
    train, test = (Records(folder, split, sizes[split]) for split in ("train", tested))
    for listing in (train, test):
        try:
            listing.element(len(listing) - 1)
        except Exception as e:  # TFDS and array_record raise all kinds
            why = str(e).strip().partition("\n")[0] or type(e).__name__
            raise UserError(
                f"data set {name} in {folder} cannot be read ({why}): it must be whole, and in array_record form"
                " (tfds build --file_format=array_record)"
            ) from None
    found = builder.info.features[label]
    return Source(train, test, found.num_classes, tuple(found.names))


@functools.lru_cache(maxsize=2)
def from_folder(path: str) -> Source:
    """Images in class folders, numbered by the classes' sorted names; what lies in a class folder is an image.

    PATH/train and PATH/val (or validation, or test) of class folders; or PATH/val of images and a file of labels, as
    LABEL_FILES, with lines of a file name and a class, by name or number from 0. A PATH of class folders, with or
    without train/ around them, is split: of each class's files, sorted by name, every 5th is a test image. Where no
    class has 5, there are no test images. Hidden files are passed over. Raises UserError for a folder of another form.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data set folder:{path}: no such folder")
    train = root / "train" if (root / "train").is_dir() else root
    tested = next((root / name for name in TESTED_ON if (root / name).is_dir()), None) if train != root else None
    classes = _folders(train)
    if not classes:
        raise UserError(
            f"data set folder:{path}: {train} holds no class folders; expected are CLASS/IMAGE, or train/CLASS/IMAGE"
            " and val/CLASS/IMAGE"
        )
    paths, labels = _in_classes(train, classes, classes)
    if not paths:
        raise UserError(f"data set folder:{path}: the class folders of {train} hold no images")
    if tested is None:
        ranks = np.concatenate([np.arange(n) for n in np.bincount(labels, minlength=len(classes))])
        chosen = ranks % EVERY == EVERY - 1
        parts = (np.flatnonzero(~chosen), np.flatnonzero(chosen))
        split = [Files(str(train), [paths[i] for i in rows], [labels[i] for i in rows]) for rows in parts]
        return Source(*split, len(classes), tuple(classes))
    found = _in_classes(tested, _folders(tested), classes) if _folders(tested) else _labelled(tested, classes)
    if not found[0]:
        raise UserError(f"data set folder:{path}: {tested} holds no images")
    return Source(Files(str(train), paths, labels), Files(str(tested), *found), len(classes), tuple(classes))


def _folders(path: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))


def _files(path: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(path) if e.is_file() and not e.name.startswith("."))


def _in_classes(path: Path, folders: list[str], classes: list[str]) -> tuple[list[str], list[int]]:
    """(paths below a folder of class folders, their labels), by class and file name."""
    if unknown := sorted(set(folders) - set(classes)):
        raise UserError(f"{path / unknown[0]}: no class of that name is trained on")
    number = {name: label for label, name in enumerate(classes)}
    found = [(os.path.join(name, file), number[name]) for name in folders for file in _files(path / name)]
    return [file for file, _ in found], [label for _, label in found]


def _labelled(path: Path, classes: list[str]) -> tuple[list[str], list[int]]:
    """(names of the images in a flat folder, their labels), by name, from the file that tells them."""
    places = list(dict.fromkeys(path.parent / name.format(test=path.name) for name in LABEL_FILES))
    form = 'lines of "FILE CLASS", the class by its folder\'s name or its number from 0 among the sorted names'
    told = next((place for place in places if place.is_file()), None)
    if told is None:
        raise UserError(f"{path} holds images without class folders: put {form} in {' or '.join(map(str, places))}")
    number = {str(label): label for label in range(len(classes))}
    number |= {name: label for label, name in enumerate(classes)}
    labels = {}
    for i, line in enumerate(told.read_text().splitlines(), 1):
        if not line.strip():
            continue
        file, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not file or label not in number:
            raise UserError(f"{told}, line {i}: {line.strip()!r}; expected are {form}")
        labels[os.path.basename(file.strip())] = number[label]
    files = [name for name in _files(path) if path / name != told]
    if missing := [name for name in files if name not in labels]:
        raise UserError(f"{told} has no line for {len(missing)} of the images in {path}, such as {missing[0]}")
    return files, [labels[name] for name in files]
