"""Images in class folders."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn_jax.data.base import Dataset, ImageDataset
from cnn_jax.errors import UserError

TEST_EVERY = 5  # Without a split of its own, every 5th image of a class is a test image.
TESTED_ON = ("val", "validation", "test")
LABEL_FILES = ("val_labels.txt", "{test}_labels.txt", "{test}.txt", "{test}/labels.txt")

FolderScan = None


class FolderDataset(ImageDataset):
    """Images in files: paths below a folder, and labels [N] int32."""

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
        chosen = ranks % TEST_EVERY == TEST_EVERY - 1
        parts = (np.flatnonzero(~chosen), np.flatnonzero(chosen))
        split = [FolderDataset(str(train), [paths[i] for i in rows], [labels[i] for i in rows]) for rows in parts]
        return Dataset(*split, len(classes), tuple(classes))
    found = _in_classes(tested, _folders(tested), classes) if _folders(tested) else _labelled(tested, classes)
    if not found[0]:
        raise UserError(f"data set folder:{path}: {tested} holds no images")
    return Dataset(FolderDataset(str(train), paths, labels), FolderDataset(str(tested), *found), len(classes), tuple(classes))


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
