"""Resizes full-size images once: python -m cnn_jax.data.prepare resize --data=... --out=DIR.

Runs that read the new folder decode far fewer pixels. Encoding the images again as JPEG loses a
little quality.
"""

import argparse
import functools
import itertools
import json
import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from cnn_jax.commands import run_command
from cnn_jax.data import datasets, decode, folders, headers, scan_report, tfds_sets
from cnn_jax.data.base import Dataset, ImageDataset, as_streamed
from cnn_jax.errors import UserError, describe_os_error, explain_os_errors
from cnn_jax.files import expand_path, write_whole
from cnn_jax.optional_packages import lazy_import
from cnn_jax.text import escape_unprintable

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_import("cv2")

IMAGES_AT_ONCE = 1024  # number of images that are submitted to the threads at once, to save memory
RECORD = "resize.json"  # file in the output folder with the command's arguments and its images
SOURCE = "source"  # its field with the number and the checksum of the images
MAX_SIDE = 2**14


class Job(NamedTuple):
    """An image to write: its data set, its index there, and its new path."""

    images: ImageDataset
    number: int
    path: Path


def resize(
    dataset: Dataset, out: Path, shorter_side: int, quality: int = 95, data: str = ""
) -> dict[str, str]:
    """Writes resized images as JPEG to OUT/train/CLASS/NAME and OUT/val/CLASS/NAME.

    Splits and file names are the data set's, even names that do not end in .jpg; images of TFDS are
    named by their index. Small images are copied unchanged. Existing files are kept unless their
    image has changed since they were written. Files are written atomically. OUT/resize.json records
    the sizes and the data set's images.

    Args:
      dataset: A data set of full-size images.
      out: Folder to write to: an empty one, or one that was written from the same images.
      shorter_side: Shorter side of the resized images, in pixels.
      quality: JPEG quality, 1 to 100.
      data: The data set's name, as --data takes it, for the record; empty: not known.

    Returns:
      {name: reason} of images that cannot be decoded, which are left out.

    Raises:
      OSError: If a file cannot be written.
      UserError: If a class's name cannot be the name of a folder, or OUT holds files of another
        size or quality, of other images, or of something else.
    """
    classes = dataset.class_names
    if wrong := [name for name in classes if os.path.basename(name) != name or name in (".", "..")]:
        raise UserError(
            f"class {escape_unprintable(wrong[0])!r}: must be the name of a folder in {out},"
            " without slashes: rename it in the data set"
        )
    how = {"data": data, "shorter_side": shorter_side, "quality": quality}
    _write_record(out, how, dataset)
    parts = {"train": as_streamed(dataset.train), "val": as_streamed(dataset.test)}
    for part, images in parts.items():
        for name in classes if len(images) else ():
            # Folders of empty classes are needed, so that classes keep their numbers.
            (out / part / name).mkdir(parents=True, exist_ok=True)
    jobs = (
        Job(images, i, out / part / classes[images.labels[i]] / _name_file(images, i))
        for part, images in parts.items()
        for i in range(len(images))
    )
    bad: dict[str, str] = {}
    write = functools.partial(_write_one, shorter_side, quality)
    total = sum(map(len, parts.values()))
    cv2.setNumThreads(0)  # Each image has its own thread, and needs no others.
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=total, unit="image", disable=None) as bar,
    ):
        while some := list(itertools.islice(jobs, IMAGES_AT_ONCE)):
            for job, why in zip(some, pool.map(write, some), strict=True):
                if why:
                    bad[job.images.name(job.number)] = why
                bar.update()
    return bad


def _name_file(images: ImageDataset, i: int) -> str:
    if isinstance(images, folders.FolderDataset):
        return os.path.basename(images.name(i))
    return f"{i:08}.jpg"


def _write_one(shorter_side: int, quality: int, job: Job) -> str:
    """Writes an image unless its file is up to date; returns why it cannot be decoded, or ""."""
    if _is_up_to_date(job):
        return ""
    try:
        encoded = job.images.read(job.number)
        assert isinstance(encoded, bytes)  # full-size images are files
        encoded = _encode_smaller(encoded, shorter_side, quality)
    except headers.BadImage as error:
        job.path.unlink(missing_ok=True)  # Of the image before it was damaged.
        return str(error)
    except OSError as error:  # It cannot be read, such as a broken link.
        return describe_os_error(error, job.images.name(job.number))
    write_whole(job.path, encoded)
    return ""


def _is_up_to_date(job: Job) -> bool:
    """Returns whether the image was written, and after the last change of its own file."""
    if not job.path.exists():
        return False
    if not isinstance(job.images, folders.FolderDataset):
        return True
    name = job.images.name(job.number)
    # A file that takes the place of another may keep an old time of modification, and a link may
    # be pointed at an old file. Only the times of these changes show it.
    try:
        times = [max(s.st_mtime_ns, s.st_ctime_ns) for s in (os.stat(name), os.lstat(name))]
    except OSError:  # The image is out of reach, but what was written of it is not.
        return True
    return max(times) <= job.path.stat().st_mtime_ns


def _encode_smaller(encoded: bytes, shorter_side: int, quality: int) -> bytes:
    """Returns the resized image as JPEG, or a small image unchanged; raises BadImage."""
    own = min(headers.read_size(encoded))
    # Small images are decoded only to find damaged ones.
    image = decode.decode_resized(encoded, min(own, shorter_side))
    if own <= shorter_side:
        return encoded
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()


def main(arguments: list[str]) -> int:
    """Writes the folder, prints which images were left out, and returns the exit code."""
    return run_command(
        lambda: _resize(_parse(arguments)),
        describe_interrupt=lambda: "interrupted: run this again, it continues",
    )


def _resize(given: argparse.Namespace) -> None:
    if not 1 <= given.shorter_side <= MAX_SIDE:
        raise UserError(f"--shorter_side={given.shorter_side}: must be 1 to {MAX_SIDE}")
    if not 1 <= given.quality <= 100:
        raise UserError(f"--quality={given.quality}: must be 1 to 100")
    out = expand_path("--out", given.out)
    kind, _, path = given.data.partition(":")
    if kind == "folder":
        dataset = folders.load_folder(path)
    else:
        dataset = tfds_sets.load_tfds_set(given.data, given.data_dir)
    then = "run this again: it continues"
    with explain_os_errors(f"cannot write to {out}", "choose another --out", then):
        bad = resize(dataset, out, given.shorter_side, given.quality, given.data)
    for line in scan_report.summarize_scan(dataset.scan) if dataset.scan else ():
        print(line, file=sys.stderr)
    for name, why in bad.items():
        print(escape_unprintable(f"left out: {name}: {why}"), file=sys.stderr)
    count = len(dataset.train) + len(dataset.test) - len(bad)
    words = f"{count} images of shorter side at most {given.shorter_side} in {out}"
    print(escape_unprintable(f"{words}, {len(bad)} left out"))
    print(escape_unprintable(f"next: run with --data=folder:{shlex.quote(str(out))}"))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.data.prepare resize", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", required=True, metavar="SET", help="folder:PATH, or a prepared TFDS set's name")
    add("--data_dir", default="", metavar="DIR", help="folder of prepared TFDS data sets")
    add(
        "--shorter_side",
        required=True,
        type=int,
        metavar="N",
        help="shorter side of the resized images, in pixels",
    )
    add("--out", required=True, metavar="DIR", help="folder to write to")
    add("--quality", default=95, type=int, help="JPEG quality, 1 to 100; default: 95")
    return parser.parse_args(arguments)


def _write_record(out: Path, how: dict[str, object], dataset: Dataset) -> None:
    """Writes RECORD; raises UserError if the folder has files of other arguments or images.

    Names of the data set are compared only if both are known.
    """
    described = datasets.describe_dataset(dataset)
    source = {name: described[name] for name in ("train_images", "test_images", "checksum")}
    record = out / RECORD
    if record.exists():
        before = _read_record(record)
        known = before.pop(SOURCE, None)
        remedy = "remove it or choose another --out"
        if not how["data"] or not before.get("data"):
            name = how["data"] or before.get("data", "")
            how, before = how | {"data": name}, before | {"data": name}
        if before != how:
            raise UserError(f"{out} was written with {before}, not {how}: {remedy}")
        if known != source:
            change, name = _describe_change(known, source), how["data"] or "the data set"
            raise UserError(f"{out} holds other images than {name}: {change}: {remedy}")
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} contains other files: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(record, json.dumps(how | {SOURCE: source}))


def _describe_change(before: Any, now: dict[str, Any]) -> str:
    """Returns what has changed between two records of a data set's images."""
    if not isinstance(before, dict):
        return "it was written by an earlier version, which did not record them"
    counts = [
        tuple(each.get(f"{part}_images") for part in ("train", "test")) for each in (before, now)
    ]
    if counts[0] == counts[1]:
        return "as many, but of other names or classes"
    old, new = (f"{train} training and {test} test images" for train, test in counts)
    return f"there were {old}, and now there are {new}, which may be split in another way"


def _read_record(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise UserError(
            f"{record} is damaged: remove {record.parent}, or choose another --out"
        ) from None
