"""Full-size images re-encoded once: python -m cnn_jax.data.prepare resize --data=... --out=DIR.

Runs that read the new folder decode far fewer pixels. Re-encoding loses a little quality again.
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
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from cnn_jax.data import decode, folders, headers, scan_report, tfds_sets
from cnn_jax.data.base import Dataset, ImageDataset, as_streamed
from cnn_jax.errors import UserError, describe_os_error, explain_os_error
from cnn_jax.files import write_whole
from cnn_jax.optional_packages import lazy_import
from cnn_jax.text import printable

if TYPE_CHECKING:
    import cv2
else:
    cv2 = lazy_import("cv2")

IMAGES_AT_ONCE = 1024  # That are handed to the threads: their list stays small.
RECORD = "resize.json"  # In the folder: what it was made of, and how.
MAX_SIDE = 2**14


class Job(NamedTuple):
    """An image to be written: its data set, its number in it, and its path."""

    images: ImageDataset
    number: int
    path: Path


def resize(dataset: Dataset, out: Path, shorter_side: int, quality: int = 95) -> dict[str, str]:
    """Writes OUT/train/CLASS/NAME and OUT/val/CLASS/NAME as JPEG of a shorter side.

    The split and the names are the data set's, even if a file is no .jpg; images of TFDS are named
    by their number. Images no larger than the shorter side are copied as they are. Each file
    appears whole, in one move, and what is there already is kept.

    Args:
      dataset: Of full-size images.
      out: The folder.
      shorter_side: In pixels.
      quality: JPEG's, 1 to 100.

    Returns:
      {name: why} of the images that cannot be decoded, which are left out.

    Raises:
      OSError: If a file cannot be written.
      UserError: If a class's name cannot be a folder's.
    """
    classes = dataset.class_names
    if wrong := [name for name in classes if os.path.basename(name) != name or name in (".", "..")]:
        raise UserError(
            f"class {printable(wrong[0])!r}: its name must be a folder's in {out}, without slashes:"
            " rename it in the data set"
        )
    parts = {"train": as_streamed(dataset.train), "val": as_streamed(dataset.test)}
    for part, images in parts.items():
        for name in classes if len(images) else ():
            # An empty class keeps its number.
            (out / part / name).mkdir(parents=True, exist_ok=True)
    jobs = (
        Job(images, i, out / part / classes[images.labels[i]] / _name_file(images, i))
        for part, images in parts.items()
        for i in range(len(images))
    )
    bad: dict[str, str] = {}
    write = functools.partial(_write_one, shorter_side, quality)
    total = sum(map(len, parts.values()))
    cv2.setNumThreads(0)  # A thread per image; one image is too little to share.
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
    """Writes an image unless it is there; returns why it cannot be decoded, or nothing."""
    if job.path.exists():
        return ""
    try:
        encoded = job.images.read(job.number)
        assert isinstance(encoded, bytes)  # full-size images are files
        encoded = _encode_smaller(encoded, shorter_side, quality)
    except headers.BadImage as error:
        return str(error)
    except OSError as error:  # Of reading, such as a link to nowhere.
        return describe_os_error(error, job.images.name(job.number))
    write_whole(job.path, encoded)
    return ""


def _encode_smaller(encoded: bytes, shorter_side: int, quality: int) -> bytes:
    """Returns the image as JPEG, or as it is if it is small already; raises BadImage."""
    own = min(headers.read_size(encoded))
    # An image that is copied is decoded too, so that a bad one is reported here.
    image = decode.decode_resized(encoded, min(own, shorter_side))
    if own <= shorter_side:
        return encoded
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()


def main(arguments: list[str]) -> int:
    """Runs the command: writes the folder, names what was left out, and returns the exit code."""
    given = _parse(arguments)
    try:
        if not 1 <= given.shorter_side <= MAX_SIDE:
            raise UserError(f"--shorter_side={given.shorter_side}: must be 1 to {MAX_SIDE}")
        if not 1 <= given.quality <= 100:
            raise UserError(f"--quality={given.quality}: must be 1 to 100")
        kind, _, path = given.data.partition(":")
        if kind == "folder":
            dataset = folders.load_folder(path)
        else:
            dataset = tfds_sets.load_images(given.data, given.data_dir)
        how = {"data": given.data, "shorter_side": given.shorter_side, "quality": given.quality}
        _claim(given.out, how)
        bad = resize(dataset, given.out, given.shorter_side, given.quality)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        what, then = f"cannot write to {given.out}", "run this again: it continues"
        words = explain_os_error(what, error, "choose another --out", then)
        print(f"error: {printable(words)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run this again, it continues", file=sys.stderr)
        return 130
    for line in scan_report.summarize_scan(dataset.scan) if dataset.scan else ():
        print(line, file=sys.stderr)
    for name, why in bad.items():
        print(printable(f"left out: {name}: {why}"), file=sys.stderr)
    count = len(dataset.train) + len(dataset.test) - len(bad)
    words = f"{count} images of shorter side {given.shorter_side} at most in {given.out}"
    print(f"{words}, {len(bad)} left out")
    print(f"next: give runs --data=folder:{shlex.quote(str(given.out))}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.data.prepare resize", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", required=True, metavar="SET", help="folder:PATH, or a prepared TFDS set's name")
    add("--data_dir", default="", metavar="DIR", help="where prepared TFDS sets lie")
    add("--shorter_side", required=True, type=int, metavar="N", help="of the images in pixels")
    add("--out", required=True, type=Path, metavar="DIR", help="the folder that is written")
    add("--quality", default=95, type=int, help="JPEG's, 1 to 100; default: 95")
    given = parser.parse_args(arguments)
    given.out = given.out.expanduser()
    return given


def _claim(out: Path, how: dict[str, object]) -> None:
    """Records in the folder what is put there; raises UserError if that would be mixed up."""
    record = out / RECORD
    if record.exists() and (before := _read_record(record)) != how:
        raise UserError(f"{out} was made of {before}, not {how}: remove it or choose another --out")
    if not record.exists() and out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(record, json.dumps(how))


def _read_record(record: Path) -> object:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(
            f"{record} is damaged: remove {record.parent}, or choose another --out"
        ) from None
