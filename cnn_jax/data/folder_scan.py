"""Scans class folders for images: splits, classes and skipped files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_jax.data.label_files import LABEL_FORM, read_labels
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import expand_path
from cnn_jax.text import escape_unprintable

TEST_EVERY = 5  # Without a split of its own, every 5th image of a class is a test image.
# Known names of folders, in any case. A folder with a name of `val` is preferred for evaluation.
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", "testing")
LABEL_FILES = ("val_labels.txt", "{test}_labels.txt", "{test}.txt", "{test}/labels.txt")
SYSTEM_FILES = ("thumbs.db", "desktop.ini")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff")
IMAGE_SUFFIXES += (".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
MAX_SHOWN = 3  # Largest number of names in a message.
MAX_LOOKED_AT = 10_000  # Largest number of entries that are searched for an image.


class SplitScan(NamedTuple):
    """The images of one split, by class and file name.

    Attributes:
      folder: The folder that contains them.
      paths: Below the folder.
      labels: A label for each.
      label_file: The file that gives the labels; empty: class folders do.
    """

    folder: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    label_file: str = ""


class FolderScan(NamedTuple):
    """The result of scanning a folder of images.

    Attributes:
      root: The folder.
      train: The training images; None: only test images were asked for.
      test: The test images; without images if no class has TEST_EVERY.
      test_every: Every k-th image of a class is a test image, because there is no other split; 0:
        test images have their own split.
      classes: The classes' names by label.
      class_order: 'text' or 'numbers': how the names were sorted.
      empty_classes: Classes without training images (or test images, if only those were asked for).
      unused: Other folders with images, which are not used.
      nested: Folders in class folders, which are not entered.
      broken_links: Links to files that do not exist; they count as bad images.
      left_out: Other skipped files, by reason.
    """

    root: str
    train: SplitScan | None
    test: SplitScan
    test_every: int
    classes: tuple[str, ...]
    class_order: str
    empty_classes: tuple[str, ...]
    unused: tuple[str, ...]
    nested: tuple[str, ...]
    broken_links: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]


def scan_folder(
    path: str, test_only: bool = False, num_classes: int = 0, listed: set[str] | None = None
) -> FolderScan:
    """Scans a folder of images without reading them.

    Args:
      path: The folder.
      test_only: Return all images of the test split, or of PATH's class folders, as test images.
      num_classes: Number of classes of the model that is tested; 0: unknown.
      listed: Takes the folders and files of labels on which the result depends.

    Raises:
      UserError: If the folder is not of a form that `load_folder` or `load_test_folder` names.
    """
    with explain_os_errors(f"data set folder:{path} cannot be read"):
        scanner = _Scanner(path, test_only, num_classes)
        found = scanner.scan()
    if listed is not None:
        listed |= scanner.listed
    return found


class _Scanner:
    """Collects the results of a scan."""

    def __init__(self, path: str, test_only: bool, num_classes: int) -> None:
        self.path, self.test_only, self.num_classes = path, test_only, num_classes
        self.root = expand_path("data.dataset.path", path)
        self.listed: set[str] = set()
        self.nested: list[str] = []
        self.broken_links: list[str] = []
        self.left_out: dict[str, list[str]] = {}

    def scan(self) -> FolderScan:
        if not self.root.is_dir():
            raise self._make_error("no such folder")
        train, test = self._find_splits()
        return self._scan_test(train, test) if self.test_only else self._scan_both(train, test)

    def _scan_both(self, train: Path | None, test: Path | None) -> FolderScan:
        if train is None and test is not None:
            others = [name for name in _list_folders(self.root) if name != test.name]
            if others:
                raise self._make_error(
                    f"{test.name}/ lies beside {name_some(others)}: move the class folders to"
                    " train/"
                )
            raise self._make_error(
                f"holds {test.name}/ but no train/: training needs train/ of class folders; public"
                " weights can be evaluated on it"
            )
        folder = train or self.root
        if test is None and train is not None and (unused := self._find_unused(train, None)):
            raise self._make_error(
                f"beside {train.name}/ lie {name_some([f'{name}/' for name in unused])} with"
                " images, which have no name of a test split: rename one to val/, or move them away"
            )
        classes, order = self._sort_classes(folder)
        images = self._list_classes(folder, classes, classes)
        if not images.paths:
            raise self._make_error(f"the class folders of {folder} hold no images")
        if test is None:
            images, tested = _take_every(images, len(classes))
        else:
            tested = self._list_test(test, classes)
        return self._finish(train, test, images, tested, classes, order)

    def _scan_test(self, train: Path | None, test: Path | None) -> FolderScan:
        if test is None and train is not None:
            raise self._make_error(
                f"holds {train.name}/ but no val/ to test on: to test on all images of"
                f" {train.name}/, give folder:{os.path.join(self.path, train.name)}"
            )
        folder = test or self.root
        named = train or folder  # The folder that names the classes.
        if _list_folders(named):
            classes, order = self._sort_classes(named)
        else:  # Images and a file of labels: the labels are numbers.
            classes, order = [str(label) for label in range(self.num_classes)], "numbers"
        tested = self._list_test(folder, classes)
        return self._finish(train, test, None, tested, classes, order)

    def _finish(
        self,
        train: Path | None,
        test: Path | None,
        images: SplitScan | None,
        tested: SplitScan,
        classes: list[str],
        order: str,
    ) -> FolderScan:
        filled = set((images or tested).labels)
        return FolderScan(
            root=str(self.root),
            train=images,
            test=tested,
            test_every=TEST_EVERY if test is None and not self.test_only else 0,
            classes=tuple(classes),
            class_order=order,
            empty_classes=tuple(name for i, name in enumerate(classes) if i not in filled),
            unused=tuple(self._find_unused(train, test)) if train or test else (),
            nested=tuple(sorted(self.nested)),
            broken_links=tuple(sorted(self.broken_links)),
            left_out={reason: tuple(sorted(names)) for reason, names in self.left_out.items()},
        )

    def _find_splits(self) -> tuple[Path | None, Path | None]:
        """Returns the folders of training and of test images."""
        self.listed.add(str(self.root))
        found = {}
        for names in (TRAIN_NAMES, VAL_NAMES, TEST_NAMES):
            named = [name for name in _list_folders(self.root) if name.casefold() in names]
            if len(named) > 1:
                both = " and ".join(f"{name}/" for name in named)
                raise self._make_error(f"{both} mean the same split: rename or remove one")
            found[names] = self.root / named[0] if named else None
        return found[TRAIN_NAMES], found[VAL_NAMES] or found[TEST_NAMES]

    def _find_unused(self, train: Path | None, test: Path | None) -> list[str]:
        used = {folder.name for folder in (train, test) if folder}
        others = [name for name in _list_folders(self.root) if name not in used]
        self.listed |= {str(self.root / name) for name in others}
        return [name for name in others if _holds_image(self.root / name)]

    def _sort_classes(self, folder: Path) -> tuple[list[str], str]:
        """Returns the class names in the order of labels, and how they are sorted."""
        self.listed.add(str(folder))
        names = _list_folders(folder)
        broken = [e.name for e in os.scandir(folder) if _is_broken(e) and "." not in e.name]
        if broken:
            raise self._make_error(
                f"{folder / broken[0]} is a link to nowhere: if it is a class, the others' labels"
                " depend on it; repair or remove it"
            )
        if not names:
            raise self._make_error(
                f"{folder} holds no class folders; expected are CLASS/IMAGE, or train/CLASS/IMAGE"
                " and val/CLASS/IMAGE"
            )
        numbers = [str(label) for label in range(self.num_classes)]
        if set(names) == set(numbers):
            return numbers, "numbers"
        return names, "text"

    def _list_test(self, folder: Path, classes: list[str]) -> SplitScan:
        own = _list_folders(folder)
        found = (
            self._list_classes(folder, own, classes) if own else self._list_labeled(folder, classes)
        )
        if not found.paths:
            raise self._make_error(f"{folder} holds no images")
        return found

    def _list_classes(self, folder: Path, own: list[str], classes: list[str]) -> SplitScan:
        """Lists a folder's class folders `own`, whose labels are their numbers in `classes`."""
        self.listed.add(str(folder))
        number = {name: label for label, name in enumerate(classes)}
        if unknown := [name for name in own if name not in number]:
            raise UserError(f"{folder / unknown[0]}: no class of that name is trained on")
        for entry in os.scandir(folder):
            if not _is_folder(entry):
                self._leave_out("files outside class folders", entry, folder)
        paths, labels = [], []
        for name in sorted(own, key=number.__getitem__):
            for file in self._list_images(folder / name):
                paths.append(os.path.join(name, file))
                labels.append(number[name])
        return SplitScan(str(folder), tuple(paths), tuple(labels))

    def _list_images(self, folder: Path) -> list[str]:
        self.listed.add(str(folder))
        names = []
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                self._leave_out("hidden files", entry, folder)
            elif entry.name.casefold() in SYSTEM_FILES:
                self._leave_out("files of the system", entry, folder)
            elif _is_broken(entry):
                self.broken_links.append(entry.path)
                names.append(entry.name)
            elif entry.is_dir():
                self.nested.append(entry.path)
            elif entry.is_file():
                names.append(entry.name)
            else:
                self._leave_out("pipes, sockets and devices", entry, folder)
        return sorted(names)

    def _leave_out(self, reason: str, entry: os.DirEntry, folder: Path) -> None:
        reason = "hidden files" if entry.name.startswith(".") else reason
        self.left_out.setdefault(reason, []).append(os.path.join(folder, entry.name))

    def _list_labeled(self, folder: Path, classes: list[str]) -> SplitScan:
        """Lists the images of a flat folder, labeled by a file beside or inside it."""
        places = [folder.parent / name.format(test=folder.name) for name in LABEL_FILES]
        places = list(dict.fromkeys(places))
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise UserError(
                f"{folder} holds images without class folders: put {LABEL_FORM} in"
                f" {' or '.join(map(str, places))}"
            )
        self.listed.add(str(file))
        images = [name for name in self._list_images(folder) if folder / name != file]
        labels = read_labels(file, set(images), classes)
        if missing := [name for name in images if name not in labels]:
            raise UserError(
                f"{file} has no line for {len(missing)} of the images in {folder}, such as"
                f" {escape_unprintable(missing[0])}"
            )
        return SplitScan(
            str(folder), tuple(images), tuple(labels[name] for name in images), str(file)
        )

    def _make_error(self, why: str) -> UserError:
        return UserError(escape_unprintable(f"data set folder:{self.path}: {why}"))


def _take_every(images: SplitScan, num_classes: int) -> tuple[SplitScan, SplitScan]:
    """Makes every TEST_EVERY-th image of each class a test image."""
    counts = np.bincount(images.labels, minlength=num_classes)
    ranks = np.concatenate([np.arange(count) for count in counts])
    chosen = ranks % TEST_EVERY == TEST_EVERY - 1
    parts = []
    for rows in (np.flatnonzero(~chosen), np.flatnonzero(chosen)):
        paths = tuple(images.paths[i] for i in rows)
        labels = tuple(images.labels[i] for i in rows)
        parts.append(SplitScan(images.folder, paths, labels))
    return parts[0], parts[1]


def _list_folders(path: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(path) if _is_folder(e) and not e.name.startswith("."))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _is_broken(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _holds_image(folder: Path) -> bool:
    looked_at = 0
    for _, folders, files in os.walk(folder):
        if any(name.casefold().endswith(IMAGE_SUFFIXES) for name in files):
            return True
        looked_at += len(folders) + len(files)
        if looked_at > MAX_LOOKED_AT:
            return False
    return False


def name_some(names: Sequence[str]) -> str:
    """Returns 'a, b, c and 7 more', with unprintable characters escaped."""
    shown = ", ".join(map(escape_unprintable, names[:MAX_SHOWN]))
    return shown + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")
