"""Prepares the official files of MNIST and CIFAR-10 for TFDS, without TensorFlow.

MNIST: LeCun, Bottou, Bengio, Haffner 1998, as four gzip'd idx files. CIFAR-10: Krizhevsky 2009, the
binary version. The files are downloaded and checked against TFDS's SHA-256 sums, or given with
--archive=PATH.
"""

import contextlib
import dataclasses
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from cnn_jax.data.prepare.builders import ImageBuilder, SplitArrays, TfdsDescription
from cnn_jax.data.prepare.readers import MNIST_KINDS, MNIST_STEMS, read_cifar10, read_mnist
from cnn_jax.errors import UserError, explain_os_error
from cnn_jax.files import expand_path

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclasses.dataclass(frozen=True)
class Official:
    """The official files of a data set.

    Attributes:
      described: Its description in TFDS.
      counts: {split: number of images}.
      urls: URLs of the files; TFDS knows their sizes and SHA-256 sums.
      files: What an archive must contain, for error messages.
      read: Reads an archive or a folder of the files.
    """

    described: TfdsDescription
    counts: dict[str, int]
    urls: tuple[str, ...]
    files: str
    read: Callable[[Path], SplitArrays]


def prepare(official: Official, archive: str = "", data_dir: str = "") -> Path:
    """Writes the data set to data_dir/name/version unless it exists, and prints a line about it.

    The folder is moved to its final name at the end, so that it is never incomplete.

    Args:
      official: The data set.
      archive: A folder or archive with the official files; empty: they are downloaded.
      data_dir: Folder of TFDS data sets; empty: TFDS's default ($TFDS_DATA_DIR, else
        ~/tensorflow_datasets).

    Returns:
      The folder of the data set.

    Raises:
      UserError: If files are missing, damaged or of the wrong size, or the folder cannot be
        written. Incomplete output is removed.
    """
    name, version = official.described.name, official.described.version
    if "://" in data_dir:
        raise UserError(
            f"--data_dir={data_dir}: must be a local folder, whose content you can copy later"
        )
    place = expand_path("--data_dir", data_dir or tfds.core.constants.DATA_DIR)
    folder = place.absolute() / name / version
    if not os.path.exists(folder):
        with _make_temporary_folder(folder.parent) as work:
            given = expand_path("--archive", archive) if archive else None
            arrays = _read_arrays(official, given or _download(official, work / "files"))
            _write(official, arrays, work, folder)
        said = "wrote"
    else:
        said = "already prepared:"
    _check(official, folder)
    sizes = ", ".join(f"{count} {split}" for split, count in official.counts.items())
    print(f"{said} {name} {version} ({sizes} images) in {folder}")
    return folder


@contextlib.contextmanager
def _make_temporary_folder(parent: Path) -> Iterator[Path]:
    """Yields a temporary folder in `parent`; if the block fails, created parents are removed."""
    made = [folder for folder in (parent, *parent.parents) if not os.path.exists(folder)]
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            work = tempfile.TemporaryDirectory(
                prefix="incomplete.", dir=parent, ignore_cleanup_errors=True
            )
        except OSError as error:
            what = f"cannot write to {parent}"
            raise explain_os_error(what, error, "choose another --data_dir") from error
        with work:
            yield Path(work.name)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write(official: Official, arrays: SplitArrays, work: Path, folder: Path) -> None:
    builder = ImageBuilder(official.described, arrays, str(work))
    tfds.disable_progress_bar()  # TFDS's output would name the temporary folder
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=work / "downloads",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        os.rename(builder.data_dir, folder)
    except (
        OSError,
        RuntimeError,
    ) as error:  # array_record's writer raises RuntimeError on a full disk
        if not os.path.exists(folder):  # if it exists, another process was faster
            raise UserError(
                f"cannot write {folder}: {error}; make room or choose another --data_dir"
            ) from error


def _check(official: Official, folder: Path) -> None:
    """Raises UserError if the folder is not a complete data set, or cannot be read."""
    try:
        builder = tfds.builder_from_directory(folder)
        splits = builder.as_data_source()
        counts = {split: len(splits[split]) for split in official.counts}
        for rows in splits.values():
            # The length is read from dataset_info.json; an example is read from the data file.
            rows[len(rows) - 1]
    except Exception as error:  # TFDS raises many types
        raise UserError(
            f"{folder} cannot be read: {error}; remove it, or choose another --data_dir"
        ) from error
    if counts != official.counts:
        raise UserError(
            f"{folder} holds {counts} images, not {official.counts}; remove it and run this again"
        )


def _download(official: Official, folder: Path) -> Path:
    """Downloads the official files to a folder and checks their sizes and SHA-256 sums."""
    print(
        f"downloading {' '.join(official.urls)} (no network? give them with --archive=PATH)",
        flush=True,
    )
    downloader.MAX_RETRIES = (
        3  # TFDS's 10 take more than three minutes to find that there is no network
    )
    manager = tfds.download.DownloadManager(download_dir=folder, force_checksums_validation=True)
    for url in official.urls:  # one by one: TFDS does not stop the others where one fails
        try:
            os.rename(manager.download(url), folder / url.rpartition("/")[2])
        except NonMatchingChecksumError as error:
            raise UserError(
                f"{url}: the downloaded file does not have the SHA-256 that TFDS knows, and was"
                " deleted; try again, or give the files with --archive=PATH"
            ) from error
        except (OSError, ValueError, DownloadError) as error:  # ValueError: TFDS knows no checksum
            raise UserError(
                f"cannot download {url}: {error}; give the files with --archive=PATH"
            ) from error
    return folder


def _read_arrays(official: Official, archive: Path) -> SplitArrays:
    """Returns the images and labels in `archive`; raises UserError if sizes are not official."""
    remedy = f"give {official.files}, from {os.path.dirname(official.urls[0])}/"
    try:
        arrays = official.read(archive)
    except UserError as error:
        raise UserError(f"{archive} {error}; {remedy}") from error
    except FileNotFoundError as error:
        raise UserError(f"{archive}: no such file or folder; {remedy}") from error
    except (
        OSError,
        EOFError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(
            f"{archive} cannot be read, it may be damaged or cut short: {error}; {remedy}"
        ) from error
    for split, (images, labels) in arrays.items():
        if len(images) != official.counts[split]:
            raise UserError(
                f"{archive} holds {len(images)} {split} images, not {official.counts[split]};"
                f" {remedy}"
            )
        if labels.max() >= official.described.classes:
            raise UserError(f"{archive} holds a {split} label {labels.max()}; {remedy}")
    return arrays


OFFICIAL = {
    "mnist": Official(
        TfdsDescription(
            "mnist", "3.0.1", image=(28, 28, 1), classes=10, class_names=None, ids=False
        ),
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
        TfdsDescription(
            "cifar10", "3.0.2", image=(32, 32, 3), classes=10, class_names=CIFAR10_CLASSES, ids=True
        ),
        counts={"train": 50_000, "test": 10_000},
        urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        files="cifar-10-binary.tar.gz",
        read=read_cifar10,
    ),
}
