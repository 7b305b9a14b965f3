"""Reads the official files of MNIST and CIFAR-10.

Messages of UserErrors lack the archive's name, which the caller puts in front: "has no file
train-images-idx3-ubyte.gz".
"""

import functools
import gzip
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn_jax.data.prepare.builders import SplitArrays
from cnn_jax.errors import UserError

MNIST_STEMS = {"train": "train", "test": "t10k"}
# {kind of file: shape of one item}.
MNIST_KINDS = {"images-idx3-ubyte": (28, 28), "labels-idx1-ubyte": ()}
CIFAR10_FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}


def _read_files(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """Returns {name: content} of wanted files in a folder, or anywhere in a .zip or .tar."""
    if archive.is_dir():
        return {
            name: (archive / name).read_bytes() for name in wanted if (archive / name).is_file()
        }
    found: dict[str, bytes] = {}

    def keep(path: str, read: Callable[[], bytes]) -> None:
        name = path.rpartition("/")[2]
        if name in found:
            raise UserError(f"has two files named {name}")
        if name in wanted:
            found[name] = read()

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            for path in files.namelist():
                keep(path, functools.partial(files.read, path))
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                keep(member.name, functools.partial(_read_member, tar, member))
    else:
        raise UserError("is not a folder, .zip or .tar, or is cut short")
    return found


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # only folders have none
    return file.read()


def read_mnist(archive: Path) -> SplitArrays:
    """Reads MNIST's four idx files, gzip'd or not.

    Format: http://yann.lecun.com/exdb/mnist/.

    Args:
      archive: A folder, .zip or .tar.

    Returns:
      {split: (images [N, 28, 28, 1] uint8, labels [N] uint8)}.

    Raises:
      UserError: If a file is missing or damaged.
    """
    names = [f"{stem}-{kind}" for stem in MNIST_STEMS.values() for kind in MNIST_KINDS]
    files = _read_files(archive, {name + end for name in names for end in ("", ".gz")})
    arrays = {}
    for split, stem in MNIST_STEMS.items():
        images, labels = (
            _read_idx(files, f"{stem}-{kind}", shape) for kind, shape in MNIST_KINDS.items()
        )
        if len(images) != len(labels):
            raise UserError(f"has {len(images)} {split} images but {len(labels)} labels")
        arrays[split] = images[..., None], labels
    return arrays


def _read_idx(files: dict[str, bytes], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the items of an idx file of unsigned bytes: [N, *shape]."""
    if name + ".gz" in files:
        raw = gzip.decompress(files[name + ".gz"])
    elif name in files:
        raw = files[name]
    else:
        raise UserError(f"has no file {name}.gz")
    # The file starts with a magic number (two zero bytes, the type, where 8 is unsigned byte, and
    # the number of dimensions) and the sizes.
    magic, header = 0x801 + len(shape), 4 * (2 + len(shape))
    if int.from_bytes(raw[:4]) != magic or len(raw) < header:
        raise UserError(f"has a {name} with magic number {int.from_bytes(raw[:4])}, not {magic}")
    count, *size = np.frombuffer(raw, ">u4", 1 + len(shape), 4).tolist()
    if tuple(size) != shape or len(raw) - header != count * int(np.prod(shape)):
        raise UserError(
            f"has a {name} of {len(raw) - header} bytes, not {count} items of shape {shape}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(count, *shape)


def read_cifar10(archive: Path) -> SplitArrays:
    """Reads CIFAR-10's binary version: records of a label byte and 32x32 red, green, blue bytes.

    Format: https://www.cs.toronto.edu/~kriz/cifar.html. The Python version is refused, because
    reading a pickle executes code in it.

    Args:
      archive: A folder, .zip or .tar.

    Returns:
      {split: (images [N, 32, 32, 3] uint8, labels [N] uint8)}.

    Raises:
      UserError: If a file is missing or damaged.
    """
    if (packed := archive / "cifar-10-binary.tar.gz").is_file():
        archive = packed
    files = _read_files(archive, {"data_batch_1", *CIFAR10_FILES["train"], *CIFAR10_FILES["test"]})
    if "data_batch_1" in files:
        raise UserError("is the Python version, but pickles are not read")
    arrays = {}
    for split, names in CIFAR10_FILES.items():
        for name in names:
            if name not in files:
                raise UserError(f"has no file {name}")
            if len(files[name]) % 3073:
                raise UserError(f"has a {name} of {len(files[name])} bytes, not a multiple of 3073")
        rows = np.frombuffer(b"".join(files[name] for name in names), np.uint8).reshape(-1, 3073)
        arrays[split] = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]
    return arrays
