"""A set of full-size images re-encoded once: python -m cnn_jax.data.prepare resize --data=... --out=DIR.

Runs that read it decode far fewer pixels. What is re-encoded loses a little again.
"""

import argparse
import itertools
import json
import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from tqdm import tqdm

from cnn_jax.data import decode, folders, headers, tfds_sets
from cnn_jax.data.base import Dataset
from cnn_jax.errors import UserError
from cnn_jax.files import write_whole

AT_ONCE = 1024  # images that are handed to the threads before the next are: their list stays small
TOLD = "resize.json"  # what a folder was made of, and how


def resize(source: Dataset, out: Path, shorter_side: int, quality: int = 95) -> dict[str, str]:
    """Writes OUT/train/CLASS/NAME and OUT/val/CLASS/NAME as JPEG of this shorter side; what is there already is kept.

    The split and the names are the source's, even where the file is no .jpg; images of TFDS are named by their place.
    Images no larger than the shorter side are copied as they are. Each file appears whole, in one move.
    Returns {name: why} of the images that cannot be decoded, which are left out. Raises OSError where it cannot write.
    """
    parts = {"train": source.train, "val": source.test}
    jobs = [(part, i) for part, images_of in parts.items() for i in range(len(images_of))]
    for part, images_of in parts.items():
        for name in source.class_names if len(images_of) else ():
            (out / part / name).mkdir(parents=True, exist_ok=True)  # an empty class keeps its number

    def one(job: tuple[str, int]) -> tuple[str, str] | None:
        part, i = job
        images_of = parts[part]
        label = source.class_names[images_of.labels[i]]
        file = os.path.basename(images_of.name(i)) if isinstance(images_of, folders.FolderDataset) else f"{i:08}.jpg"
        path = out / part / label / file
        if path.exists():
            return None
        try:
            write_whole(path, _smaller(images_of.read(i), shorter_side, quality))
        except headers.BadImage as error:
            return images_of.name(i), str(error)

    if wrong := [name for name in source.class_names if os.path.basename(name) != name or name in (".", "..")]:
        raise UserError(
            f"class {wrong[0]!r}: is to be a folder in {out}, so without slashes: rename it in the data set"
        )
    bad: dict[str, str] = {}
    cv2.setNumThreads(0)  # a thread an image; one is too little to share
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=len(jobs), unit="image", disable=None) as bar:
        for first in range(0, len(jobs), AT_ONCE):
            for found in pool.map(one, itertools.islice(jobs, first, first + AT_ONCE)):
                bad.update([found] if found else [])
                bar.update()
    return bad


def _smaller(encoded: bytes, shorter_side: int, quality: int) -> bytes:
    """The image as JPEG, or as it is where it is small already; BadImage where it cannot be decoded."""
    own = min(headers.read_size(encoded))
    image = decode.decode_resized(encoded, min(own, shorter_side))  # one that is copied is decoded too: a bad one is told here
    if own <= shorter_side:
        return encoded
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def main(arguments: list[str]) -> int:
    """The command: writes the folder, names what was left out, prints what to run next, returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.data.prepare resize", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--data", required=True, metavar="SET", help="folder:PATH, or a prepared TFDS set's name")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="where prepared TFDS sets lie")
    parser.add_argument("--shorter_side", required=True, type=int, metavar="N", help="of the images that are written")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder that is written")
    parser.add_argument("--quality", default=95, type=int, help="JPEG's, 1 to 100; default: 95")
    given = parser.parse_args(arguments)
    try:
        if given.shorter_side < 1 or not 1 <= given.quality <= 100:
            raise UserError(f"--shorter_side={given.shorter_side} --quality={given.quality}: wants N >= 1, 1 to 100")
        kind, _, path = given.data.partition(":")
        source = folders.load_folder(path) if kind == "folder" else tfds_sets.load_images(given.data, given.data_dir)
        _claim(given.out, {"data": given.data, "shorter_side": given.shorter_side, "quality": given.quality})
        bad = resize(source, given.out, given.shorter_side, given.quality)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; make room or choose another --out, and run this again: it goes on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run this again, it goes on", file=sys.stderr)
        return 130
    for name, why in bad.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    count = len(source.train) + len(source.test) - len(bad)
    print(f"{count} images of shorter side {given.shorter_side} at most in {given.out}, {len(bad)} left out")
    print(f"next: give runs --data=folder:{shlex.quote(str(given.out))}")
    return 0


def _claim(out: Path, how: dict[str, object]) -> None:
    """Notes in the folder what is put there; UserError where something else was, which would be mixed with it."""
    told = out / TOLD
    if told.exists() and (before := json.loads(told.read_text())) != how:
        raise UserError(f"{out} was made of {before}, not {how}: remove it or choose another --out")
    if not told.exists() and out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(told, json.dumps(how))
