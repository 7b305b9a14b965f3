"""Stores the list of a large folder of images, so that the next launch need not list it again.

The index is a file in the user's cache folder. It holds the modification time of every folder that
was listed: the set, its splits and its classes. Adding, removing or renaming a file changes its
folder's time. An index is used only if none of these times has changed. It does not contain the
images, which each run reads.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cnn_jax.data.folder_scan import FolderScan, SplitScan, scan_folder
from cnn_jax.files import expand_path, find_cache_folder, write_whole

VERSION = 1  # Version of the format.
MIN_IMAGES = 50_000  # Smaller folders are listed in under a second.
# A folder that changed this shortly before it was listed may change again within the same tick of
# the file system's clock, without a new time.
SETTLED_NS = 2 * 10**9
SPLITS = ("train", "test")
LISTS = ("classes", "empty_classes", "unused", "nested", "broken_links")  # Lists of a FolderScan.


def scan_with_index(path: str, test_only: bool = False, num_classes: int = 0) -> FolderScan:
    """Scans a folder of images, or returns its index if that is up to date.

    Args:
      path: The folder.
      test_only: As in `folder_scan.scan_folder`.
      num_classes: As in `folder_scan.scan_folder`.

    Raises:
      UserError: As `folder_scan.scan_folder` does.
    """
    root = expand_path("data.dataset.path", path)
    if known := read_index(root, test_only, num_classes):
        return known
    began, listed = time.time_ns(), set[str]()
    scan = scan_folder(path, test_only, num_classes, listed)
    write_index(scan, began, listed, test_only, num_classes)
    return scan


def read_index(path: Path, test_only: bool, num_classes: int) -> FolderScan | None:
    """Returns the result of an earlier scan of the folder if nothing has changed since.

    Args:
      path: The folder.
      test_only: As in `folder_scan.scan_folder`.
      num_classes: As in `folder_scan.scan_folder`.

    Returns:
      The scan, or None if there is no index, or it is damaged or out of date.
    """
    file = _find_index(path, test_only, num_classes)
    if file is None:
        return None
    try:
        checksum, content = file.read_bytes().split(b"\n", 1)
        if checksum != _compute_checksum(content):
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            known = json.loads(arrays["scan"].tobytes())
            folders = _split_names(arrays["folders"])
            if known["version"] != VERSION or _find_times(folders) != arrays["times"].tolist():
                return None
            splits = {name: _take_split(arrays, known, name) for name in SPLITS if name in known}
        fields = {key: tuple(known[key]) for key in LISTS}
        return FolderScan(
            root=str(path),
            train=splits.get("train"),
            test=splits["test"],
            test_every=known["test_every"],
            class_order=known["class_order"],
            left_out={reason: tuple(names) for reason, names in known["left_out"].items()},
            **fields,
        )
    except (OSError, ValueError):
        return None


def write_index(
    scan: FolderScan, began_ns: int, listed: Iterable[str], test_only: bool, num_classes: int
) -> None:
    """Writes an index of a large folder, unless it cannot be written or would be unreliable.

    Args:
      scan: The result of the scan.
      began_ns: When the scan began, in nanoseconds of `time.time_ns`.
      listed: The folders that were listed, and files of labels.
      test_only: As in `folder_scan.scan_folder`.
      num_classes: As in `folder_scan.scan_folder`.
    """
    images = len(scan.test.paths) + (len(scan.train.paths) if scan.train else 0)
    file = _find_index(Path(scan.root), test_only, num_classes)
    if images < MIN_IMAGES or file is None:
        return
    folders = sorted(set(listed))
    try:
        times = _find_times(folders)
        if max(times) > began_ns - SETTLED_NS:
            return
        described = scan._asdict() | {"version": VERSION}
        arrays = {"folders": _join_names(folders), "times": np.array(times, np.int64)}
        for name in SPLITS:
            split: SplitScan | None = described.pop(name)
            if split is not None:
                described[name] = {"folder": split.folder, "label_file": split.label_file}
                arrays[f"{name}_paths"] = _join_names(split.paths)
                arrays[f"{name}_labels"] = np.array(split.labels, np.int32)
        arrays["scan"] = np.frombuffer(json.dumps(described).encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, _compute_checksum(content.getvalue()) + b"\n" + content.getvalue())
    except OSError:
        return  # The next launch lists the folder again.


def _find_index(path: Path, test_only: bool, num_classes: int) -> Path | None:
    cache = find_cache_folder()
    if cache is None:
        return None
    key = json.dumps([os.path.realpath(path), str(path), test_only, num_classes])
    name = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
    return cache / "folders" / name


def _compute_checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _find_times(folders: Iterable[str]) -> list[int]:
    return [os.stat(folder).st_mtime_ns for folder in folders]


def _join_names(names: Iterable[str]) -> np.ndarray:
    """Joins names as bytes by null characters, which no file name contains."""
    return np.frombuffer(os.fsencode("\0".join(names)), np.uint8)


def _split_names(joined: np.ndarray) -> tuple[str, ...]:
    return tuple(os.fsdecode(joined.tobytes()).split("\0")) if joined.size else ()


def _take_split(arrays: np.lib.npyio.NpzFile, known: dict, name: str) -> SplitScan:
    paths = _split_names(arrays[f"{name}_paths"])
    labels = tuple(arrays[f"{name}_labels"].tolist())
    return SplitScan(known[name]["folder"], paths, labels, known[name]["label_file"])
