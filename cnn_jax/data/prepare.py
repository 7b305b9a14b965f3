"""Prepares MNIST or CIFAR-10 for TFDS to read, without TensorFlow: python -m cnn_jax.data.prepare cifar10.

MNIST: LeCun, Bottou, Bengio, Haffner 1998, as four gzip'd idx files. CIFAR-10: Krizhevsky 2009, the binary
version. They are downloaded and checked against the SHA-256 that TFDS ships, or given with --archive=PATH.
"""

import argparse
import contextlib
import dataclasses
import gzip
import io
import lzma
import os
import shlex
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from cnn_jax.data import resize
from cnn_jax.data.builders import Arrays, Description, ImageBuilder
from cnn_jax.errors import UserError, nearest

MNIST_STEMS = {"train": "train", "test": "t10k"}
MNIST_KINDS = {"images-idx3-ubyte": (28, 28), "labels-idx1-ubyte": ()}  # the shape of one item
CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclasses.dataclass(frozen=True)
class Official:
    """A data set as its authors publish it: what TFDS says of it, its sizes, its files and their reader."""

    described: Description
    counts: dict[str, int]  # images a split
    urls: tuple[str, ...]  # of each TFDS knows the size and SHA-256
    files: str  # what an archive must hold, for error messages
    read: Callable[[Path], Arrays]


def prepare(official: Official, archive: str = "", data_dir: str = "") -> Path:
    """Writes the data set to the folder data_dir/name/version unless it is there, says so, and returns the folder.

    archive: a folder or archive that holds the official files; empty: they are downloaded.
    data_dir: empty: TFDS's own rule ($TFDS_DATA_DIR, else ~/tensorflow_datasets).
    The folder appears in one move at the end: what has its name is whole. Raises UserError for files that are
    missing, damaged or of the wrong size, and where it cannot write; then nothing is left behind.
    """
    name, version = official.described.name, official.described.version
    if "://" in data_dir:
        raise UserError(f"--data_dir={data_dir}: give a local folder, and copy what is written from there")
    folder = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser().absolute() / name / version
    if not os.path.exists(folder):
        with _workplace(folder.parent) as work:
            arrays = _arrays(official, Path(archive).expanduser() if archive else _download(official, work / "files"))
            _write(official, arrays, work, folder)
        said = "wrote"
    else:
        said = "already prepared:"
    _check(official, folder)
    sizes = ", ".join(f"{count} {split}" for split, count in official.counts.items())
    print(f"{said} {name} {version} ({sizes} images) in {folder}")
    return folder


@contextlib.contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`; on failure no folder made on the way to it is left either."""
    made = [folder for folder in (parent, *parent.parents) if not os.path.exists(folder)]
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            work = tempfile.TemporaryDirectory(prefix="incomplete.", dir=parent, ignore_cleanup_errors=True)
        except OSError as error:
            raise UserError(f"cannot write to {parent}: {error.strerror}; choose another --data_dir") from error
        with work:
            yield Path(work.name)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write(official: Official, arrays: Arrays, work: Path, folder: Path) -> None:
    builder = ImageBuilder(official.described, arrays, str(work))
    tfds.disable_progress_bar()  # its bars and its print tell of the temporary folder
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=work / "downloads",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        os.rename(builder.data_dir, folder)
    except (OSError, RuntimeError) as error:  # array_record's writer raises RuntimeError on a full disk
        if not os.path.exists(folder):  # else another process was first
            raise UserError(f"cannot write {folder}: {error}; make room or choose another --data_dir") from error


def _check(official: Official, folder: Path) -> None:
    """Raises UserError where the folder is not a whole data set that can be read here."""
    try:
        builder = tfds.builder_from_directory(folder)
        splits = builder.as_data_source()
        counts = {split: len(splits[split]) for split in official.counts}
        for rows in splits.values():
            rows[len(rows) - 1]  # the length comes from dataset_info.json alone; this opens the file
    except Exception as error:  # TFDS raises all kinds
        raise UserError(f"{folder} cannot be read: {error}; remove it, or choose another --data_dir") from error
    if counts != official.counts:
        raise UserError(f"{folder} holds {counts} images, not {official.counts}; remove it and run this again")


def _download(official: Official, folder: Path) -> Path:
    """Puts the official files in `folder` under their own names, each of the size and SHA-256 that TFDS knows."""
    print(f"downloading {' '.join(official.urls)} (no network? give them with --archive=PATH)", flush=True)
    downloader.MAX_RETRIES = 3  # TFDS's 10 take more than three minutes to find that there is no network
    manager = tfds.download.DownloadManager(download_dir=folder, force_checksums_validation=True)
    for url in official.urls:  # one by one: TFDS does not stop the others where one fails
        try:
            os.rename(manager.download(url), folder / url.rpartition("/")[2])
        except NonMatchingChecksumError as error:
            raise UserError(
                f"{url} did not arrive with the SHA-256 that TFDS knows, and was thrown away;"
                " try again, or give the files with --archive=PATH"
            ) from error
        except (OSError, ValueError, DownloadError) as error:  # ValueError: TFDS knows no checksum
            raise UserError(f"cannot download {url}: {error}; give the files with --archive=PATH") from error
    return folder


def _arrays(official: Official, archive: Path) -> Arrays:
    """The images and labels in `archive`, of the official sizes; or UserError."""
    remedy = f"give {official.files}, from {os.path.dirname(official.urls[0])}/"
    try:
        arrays = official.read(archive)
    except UserError as error:
        raise UserError(f"{archive} {error}; {remedy}") from error
    except FileNotFoundError as error:
        raise UserError(f"{archive}: no such file or folder; {remedy}") from error
    except (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive} cannot be read, it may be damaged or cut short: {error}; {remedy}") from error
    for split, (images, labels) in arrays.items():
        if len(images) != official.counts[split]:
            raise UserError(f"{archive} holds {len(images)} {split} images, not {official.counts[split]}; {remedy}")
        if labels.max() >= official.described.classes:
            raise UserError(f"{archive} holds a {split} label {labels.max()}; {remedy}")
    return arrays


def _read_files(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """Those of the wanted files that lie in a folder, or at any depth in a .zip or .tar, compressed or not."""
    if archive.is_dir():
        return {name: (archive / name).read_bytes() for name in wanted if (archive / name).is_file()}
    found: dict[str, bytes] = {}

    def keep(path: str, read: Callable[[], bytes]) -> None:
        name = path.rpartition("/")[2]
        if name in found:
            raise UserError(f"holds two files named {name}")
        if name in wanted:
            found[name] = read()

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            for path in files.namelist():
                keep(path, lambda path=path: files.read(path))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as files:
            for member in filter(tarfile.TarInfo.isfile, files):
                keep(member.name, lambda member=member: files.extractfile(member).read())
    else:
        raise UserError("is no folder, .zip or .tar, or is cut short")
    return found


def read_mnist(archive: Path) -> Arrays:
    """MNIST's four idx files, gzip'd or not. Format: http://yann.lecun.com/exdb/mnist/."""
    names = [f"{stem}-{kind}" for stem in MNIST_STEMS.values() for kind in MNIST_KINDS]
    files = _read_files(archive, {name + end for name in names for end in ("", ".gz")})
    arrays = {}
    for split, stem in MNIST_STEMS.items():
        images, labels = (_read_idx(files, f"{stem}-{kind}", shape) for kind, shape in MNIST_KINDS.items())
        if len(images) != len(labels):
            raise UserError(f"has {len(images)} {split} images but {len(labels)} labels")
        arrays[split] = images[..., None], labels
    return arrays


def _read_idx(files: dict[str, bytes], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The items of an idx file of unsigned bytes: [N, *shape]."""
    if name + ".gz" in files:
        raw = gzip.decompress(files[name + ".gz"])
    elif name in files:
        raw = files[name]
    else:
        raise UserError(f"holds no {name}.gz")
    # The magic number is two zeros, the type (8: unsigned byte) and the number of dimensions. Sizes follow.
    magic, header = 0x801 + len(shape), 4 * (2 + len(shape))
    if int.from_bytes(raw[:4]) != magic or len(raw) < header:
        raise UserError(f"has a {name} of the magic number {int.from_bytes(raw[:4])}, not {magic}")
    count, *size = np.frombuffer(raw, ">u4", 1 + len(shape), 4).tolist()
    if tuple(size) != shape or len(raw) - header != count * int(np.prod(shape)):
        raise UserError(f"has a {name} of {len(raw) - header} bytes, not {count} items of shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(count, *shape)


def read_cifar10(archive: Path) -> Arrays:
    """CIFAR-10's binary version: records of a label byte and 32x32 red, then green, then blue bytes.

    Format: https://www.cs.toronto.edu/~kriz/cifar.html. The Python version is pickled, and reading a pickle
    runs what is in it: refused.
    """
    if (packed := archive / "cifar-10-binary.tar.gz").is_file():
        archive = packed
    files = _read_files(archive, {"data_batch_1", *CIFAR10_FILES["train"], *CIFAR10_FILES["test"]})
    if "data_batch_1" in files:
        raise UserError("is the Python version, whose pickles are not read")
    arrays = {}
    for split, names in CIFAR10_FILES.items():
        for name in names:
            if name not in files:
                raise UserError(f"holds no {name}")
            if len(files[name]) % 3073:
                raise UserError(f"has a {name} of {len(files[name])} bytes, not a multiple of 3073")
        rows = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(-1, 3073)
        arrays[split] = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]
    return arrays


OFFICIAL = {
    "mnist": Official(
        Description("mnist", "3.0.1", image=(28, 28, 1), classes=10, class_names=None, ids=False),
        counts={"train": 60_000, "test": 10_000},
        urls=tuple(
            f"https://storage.googleapis.com/cvdf-datasets/mnist/{stem}-{kind}.gz"
            for stem in MNIST_STEMS.values()
            for kind in MNIST_KINDS
        ),
        files="a folder, .zip or .tar of the four idx files",
        read=read_mnist,
    ),
    "cifar10": Official(
        Description("cifar10", "3.0.2", image=(32, 32, 3), classes=10, class_names=CIFAR10_CLASSES, ids=True),
        counts={"train": 50_000, "test": 10_000},
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        files="cifar-10-binary.tar.gz",
        read=read_cifar10,
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """The command: prepares the set, prints what to run next, and returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["resize"]:
        return resize.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m cnn_jax.data.prepare", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help=" | ".join((*OFFICIAL, "resize")) + " (resize --help)")
    parser.add_argument("--archive", default="", metavar="PATH", help="the official files; default: download them")
    parser.add_argument("--data_dir", default="", metavar="DIR", help=f"default: {tfds.core.constants.DATA_DIR}")
    given = parser.parse_args(arguments)
    try:
        if given.name not in OFFICIAL:
            raise UserError(f"data set {given.name!r}: no such set; {nearest(given.name, OFFICIAL)}")
        folder = prepare(OFFICIAL[given.name], given.archive, given.data_dir)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    place = f" --data_dir={shlex.quote(str(folder.parents[1]))}"
    print(f"next: python launch.py --experiment=resnet_degradation --preset=paper --data={given.name}{place}")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # without waiting for TFDS's download threads, which Ctrl-C does not stop
