"""Reports what was found in a folder of images: as lines of text, and as a value for JSON."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_jax.data.folder_scan import FolderScan, SplitScan, name_some
from cnn_jax.text import escape_unprintable


def summarize_scan(scan: FolderScan) -> list[str]:
    """Returns a line on what is used and, if anything is unusual, a line on what to check."""
    found, *remarks = describe_remarks(scan)
    lines = [found]
    if remarks:
        lines.append(f"folder:{escape_unprintable(scan.root)}: {'; '.join(remarks)}")
    return lines


def describe_remarks(scan: FolderScan) -> list[str]:
    """Returns a line on what is used, and then a line for each thing that is unusual."""
    parts = [f"{_spell_split(scan.root, scan.train)} to train on"] if scan.train else []
    parts.append(f"{_spell_split(scan.root, scan.test)} to test on")
    if scan.test_every:
        parts[-1] += f" (every {scan.test_every}th of each class)"
    classes = f"{len(scan.classes)} classes sorted as {scan.class_order}"
    lines = [f"folder:{scan.root}: {', '.join(parts)}, {classes}"]
    kind = "training" if scan.train else "test"
    unused = [f"{name}/" for name in scan.unused]
    for names, what in (
        (unused, "folders with images beside the splits, not used"),
        (scan.empty_classes, f"classes without {kind} images"),
        (_find_untested(scan), "classes without test images"),
        (scan.nested, "folders in class folders, not entered"),
        (scan.broken_links, "links to nowhere"),
        *((names, f"{reason}, left out") for reason, names in scan.left_out.items()),
    ):
        if names:
            lines.append(f"{what} ({len(names)}): {name_some(names)}")
    if scan.class_order == "text" and (shifted := _find_shifted_number(scan.classes)):
        name, label = shifted
        lines.append(f"class folders are numbers sorted as text: {name} has label {label}")
    return [escape_unprintable(line) for line in lines]


def _spell_split(root: str, split: SplitScan) -> str:
    folder = os.path.relpath(split.folder, root)
    return f"{len(split.paths):,} images" + ("" if folder == "." else f" of {folder}/")


def _find_untested(scan: FolderScan) -> list[str]:
    """Returns the classes that are trained on but have no test images, if there are any images."""
    if scan.train is None or not scan.test.labels:
        return []
    trained, tested = set(scan.train.labels), set(scan.test.labels)
    return [scan.classes[label] for label in sorted(trained - tested)]


def _find_shifted_number(classes: Sequence[str]) -> tuple[str, int] | None:
    """Returns the first class whose label is not its rank as a number, if all are numbers."""
    if not all(name.isascii() and name.isdigit() for name in classes):
        return None
    ranks = sorted(classes, key=int)
    wrong = (i for i, name in enumerate(classes) if ranks[i] != name)
    return next(((classes[i], i) for i in wrong), None)


def describe_scan(scan: FolderScan) -> dict[str, Any]:
    """Returns a scan as JSON holds it: counts in place of the images."""

    def describe_split(split: SplitScan | None) -> dict[str, Any] | None:
        if split is None:
            return None
        counts = np.bincount(split.labels or (0,), minlength=len(scan.classes))
        counts = counts if split.labels else counts * 0
        return {
            "folder": split.folder,
            "images": len(split.paths),
            "images_by_class": counts.tolist(),
            "label_file": split.label_file,
        }

    described = scan._asdict()
    return described | {"train": describe_split(scan.train), "test": describe_split(scan.test)}
