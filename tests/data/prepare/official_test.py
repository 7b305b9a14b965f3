"""Preparing MNIST and CIFAR-10 without TensorFlow: files written, refused and left behind."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums, downloader

from cnn_jax.data.prepare import __main__ as command_line
from cnn_jax.data.prepare import builders, official

COUNTS = {"train": 12, "test": 6}
# TFDS's order on disk: positions in the official files, sorted by its hash of (split, position).
ORDER = {"train": [6, 5, 4, 10, 0, 8, 3, 1, 9, 7, 11, 2], "test": [1, 4, 3, 2, 5, 0]}
Capture, Patch = pytest.CaptureFixture, pytest.MonkeyPatch
VERSIONS = {"mnist": "3.0.1", "cifar10": "3.0.2"}


def made_up(name: str) -> builders.SplitArrays:
    rng = np.random.default_rng(0)
    shape = official.OFFICIAL[name].described.image
    return {
        split: (
            rng.integers(0, 256, (count, *shape), np.uint8),
            rng.integers(0, 10, count, np.uint8),
        )
        for split, count in COUNTS.items()
    }


def idx(array: np.ndarray) -> bytes:
    return np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def mnist_files() -> dict[str, bytes]:
    files = {}
    for stem, (images, labels) in zip(("train", "t10k"), made_up("mnist").values(), strict=True):
        files[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(idx(images[..., 0]))
        files[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels))
    return files


def cifar10_files() -> dict[str, bytes]:
    planes = {
        split: np.concatenate(
            [labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(labels), -1)], 1
        )
        for split, (images, labels) in made_up("cifar10").items()
    }
    batches = {
        f"data_batch_{i + 1}.bin": rows for i, rows in enumerate(np.array_split(planes["train"], 5))
    }
    return {
        name: rows.tobytes()
        for name, rows in (batches | {"test_batch.bin": planes["test"]}).items()
    }


FILES = {"mnist": mnist_files, "cifar10": cifar10_files}


def pack(files: dict[str, bytes], path: Path) -> Path:
    """Writes the files in the form of the path's extension: .zip, .tar, .tar.gz or a folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"inner/{name}", data)
    elif ".tar" in path.suffixes:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"inner/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        path.mkdir()
        for name, data in files.items():
            (path / name).write_bytes(data)
    return path


def run(name: str, archive: Path | str, data_dir: Path) -> int:
    return command_line.main([name, f"--archive={archive}", f"--data_dir={data_dir}"])


def check_contents(name: str, data_dir: Path) -> None:
    for split, (images, labels) in made_up(name).items():
        rows = tfds.data_source(name, split=split, data_dir=data_dir)
        assert len(rows) == COUNTS[split]
        np.testing.assert_array_equal(
            [row["image"] for row in rows], images[ORDER[split]], strict=True
        )
        assert [row["label"] for row in rows] == labels[ORDER[split]].tolist()
        if name == "cifar10":
            assert [row["id"].decode() for row in rows] == [
                f"{split}_{i:05d}" for i in ORDER[split]
            ]


@pytest.fixture(autouse=True)
def small(monkeypatch: Patch) -> None:
    for name, described in official.OFFICIAL.items():
        monkeypatch.setitem(official.OFFICIAL, name, dataclasses.replace(described, counts=COUNTS))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "made" / "tfds"


def check_refused(capsys: Capture, code: int, data_dir: Path, *words: str) -> None:
    """Checks for exit code 2, one line with the words, and no new folder."""
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert not data_dir.parent.exists()


@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar", "a.tar.gz", "unpacked"])
def test_mnist_is_read_back_in_order(form: str, tmp_path: Path, data_dir: Path) -> None:
    files = mnist_files()
    if form == "unpacked":  # As some browsers save them.
        files = {name.removesuffix(".gz"): gzip.decompress(data) for name, data in files.items()}
    assert run("mnist", pack(files, tmp_path / form), data_dir) == 0
    check_contents("mnist", data_dir)


@pytest.mark.parametrize("form", ["folder", "cifar-10-binary.tar.gz", "its folder"])
def test_cifar10_is_read_back_in_order(form: str, tmp_path: Path, data_dir: Path) -> None:
    archive = pack(cifar10_files(), tmp_path / form.replace("its folder", "cifar-10-binary.tar.gz"))
    assert run("cifar10", tmp_path if form == "its folder" else archive, data_dir) == 0
    check_contents("cifar10", data_dir)
    names = (data_dir / "cifar10/3.0.2/label.labels.txt").read_text()
    assert names.strip() == "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck"


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_name_version_features_and_urls_are_those_of_tfds(
    name: str, tmp_path: Path, data_dir: Path
) -> None:
    run(name, pack(FILES[name](), tmp_path / "folder"), data_dir)
    ours = tfds.builder_from_directory(data_dir / name / VERSIONS[name]).info
    theirs = tfds.builder_cls(name)(data_dir=str(tmp_path / "empty")).info
    assert ours.full_name == theirs.full_name
    assert ours.features.to_json() == theirs.features.to_json()
    assert ours.supervised_keys == theirs.supervised_keys
    assert set(official.OFFICIAL[name].urls) <= checksums.get_all_url_infos().keys()


def test_official_sizes(
    monkeypatch: Patch, tmp_path: Path, data_dir: Path, capsys: Capture
) -> None:
    monkeypatch.undo()
    assert official.OFFICIAL["mnist"].counts == {"train": 60_000, "test": 10_000}
    assert official.OFFICIAL["cifar10"].counts == {"train": 50_000, "test": 10_000}
    code = run("cifar10", pack(cifar10_files(), tmp_path / "folder"), data_dir)
    check_refused(capsys, code, data_dir, "holds 12 train images, not 50000", "cs.toronto.edu")


def test_the_last_lines_give_the_folder_and_the_next_command(
    tmp_path: Path, data_dir: Path, capsys: Capture
) -> None:
    run("cifar10", pack(cifar10_files(), tmp_path / "folder"), data_dir)
    *_, where, following = capsys.readouterr().out.splitlines()
    assert where == f"wrote cifar10 3.0.2 (12 train, 6 test images) in {data_dir}/cifar10/3.0.2"
    command = "python launch.py --experiment=resnet_degradation --preset=paper --data=cifar10"
    assert following.endswith(f"{command} --data_dir={data_dir}")


def test_a_second_run_changes_nothing(tmp_path: Path, data_dir: Path, capsys: Capture) -> None:
    archive = pack(mnist_files(), tmp_path / "folder")
    run("mnist", archive, data_dir)
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    shutil.rmtree(archive)
    capsys.readouterr()
    assert run("mnist", archive, data_dir) == 0
    assert capsys.readouterr().out.startswith("already prepared: mnist 3.0.1")
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == before


def test_default_folder_is_that_of_tfds(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "default"))
    archive = pack(mnist_files(), tmp_path / "folder")
    folder = official.prepare(official.OFFICIAL["mnist"], str(archive))
    assert folder == tmp_path / "default/mnist/3.0.1"


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
BAD_MNIST = {
    "a file is missing": ({TRAIN_LABELS: None}, "has no file train-labels-idx1-ubyte.gz"),
    "cut short gzip": ({TRAIN_IMAGES: mnist_files()[TRAIN_IMAGES][:-100]}, "damaged or cut short"),
    "empty": ({TRAIN_IMAGES: b""}, "has no file"),
    "no gzip": ({TRAIN_IMAGES: b"<html>not found</html>"}, "damaged or cut short"),
    "labels for images": (
        {TRAIN_IMAGES: mnist_files()[TRAIN_LABELS]},
        "magic number 2049, not 2051",
    ),
    "wrong shape": (
        {TRAIN_IMAGES: gzip.compress(idx(np.zeros((12, 27, 28), np.uint8)))},
        "items of shape (28, 28)",
    ),
    "fewer than told": (
        {TRAIN_IMAGES: gzip.compress(idx(np.zeros((12, 28, 28), np.uint8))[:-1])},
        "9407 bytes, not 12 items",
    ),
    "fewer labels": (
        {TRAIN_LABELS: gzip.compress(idx(np.zeros(11, np.uint8)))},
        "12 train images but 11 labels",
    ),
    "wrong label": (
        {TRAIN_LABELS: gzip.compress(idx(np.full(12, 10, np.uint8)))},
        "a train label 10",
    ),
    "wrong count": (
        {
            TRAIN_IMAGES: gzip.compress(idx(np.zeros((11, 28, 28), np.uint8))),
            TRAIN_LABELS: gzip.compress(idx(np.zeros(11, np.uint8))),
        },
        "11 train images, not 12",
    ),
}


@pytest.mark.parametrize("case", BAD_MNIST)
def test_bad_mnist_is_refused(case: str, tmp_path: Path, data_dir: Path, capsys: Capture) -> None:
    changes, words = BAD_MNIST[case]
    files = {name: data for name, data in (mnist_files() | changes).items() if data is not None}
    if case == "empty":
        files = {}
    code = run("mnist", pack(files, tmp_path / "folder"), data_dir)
    check_refused(
        capsys, code, data_dir, str(tmp_path / "folder"), words, "https://storage.googleapis.com"
    )


BAD_CIFAR10 = {
    "a file is missing": ({"test_batch.bin": None}, "has no file test_batch.bin"),
    "half a record": ({"test_batch.bin": b"0" * 3072}, "not a multiple of 3073"),
    "wrong label": ({"test_batch.bin": bytes([11]) * 3073 * 6}, "a test label 11"),
    "wrong count": ({"test_batch.bin": bytes(3073 * 5)}, "5 test images, not 6"),
}


@pytest.mark.parametrize("case", BAD_CIFAR10)
def test_bad_cifar10_is_refused(case: str, tmp_path: Path, data_dir: Path, capsys: Capture) -> None:
    changes, words = BAD_CIFAR10[case]
    files = {name: data for name, data in (cifar10_files() | changes).items() if data is not None}
    code = run("cifar10", pack(files, tmp_path / "a.tar.gz"), data_dir)
    check_refused(
        capsys, code, data_dir, str(tmp_path / "a.tar.gz"), words, "cifar-10-binary.tar.gz"
    )


@pytest.mark.parametrize("form", ["cifar-10-python.tar.gz", "cifar-10-batches-py"])
def test_pickles_are_refused(form: str, tmp_path: Path, data_dir: Path, capsys: Capture) -> None:
    archive = pack({"data_batch_1": b"cos\nsystem\n", "test_batch": b""}, tmp_path / form)
    check_refused(
        capsys,
        run("cifar10", archive, data_dir),
        data_dir,
        "Python version",
        "cifar-10-binary.tar.gz",
    )


@pytest.mark.parametrize("kept", [20, 2000])
def test_archive_cut_short_is_refused(
    kept: int, tmp_path: Path, data_dir: Path, capsys: Capture
) -> None:
    archive = pack(cifar10_files(), tmp_path / "a.tar.gz")
    archive.write_bytes(archive.read_bytes()[:kept])
    check_refused(capsys, run("cifar10", archive, data_dir), data_dir, "cut short", str(archive))


def test_same_name_twice_in_an_archive_is_refused(
    tmp_path: Path, data_dir: Path, capsys: Capture
) -> None:
    archive = pack(mnist_files(), tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as files:
        files.writestr(f"fashion/{TRAIN_IMAGES}", mnist_files()[TRAIN_IMAGES])
    check_refused(
        capsys, run("mnist", archive, data_dir), data_dir, f"two files named {TRAIN_IMAGES}"
    )


def test_a_missing_archive_an_unknown_set_and_a_remote_folder_are_refused(
    tmp_path: Path, data_dir: Path, capsys: Capture
) -> None:
    check_refused(
        capsys, run("mnist", tmp_path / "none", data_dir), data_dir, "none: no such file", "idx"
    )
    check_refused(
        capsys, run("cifra10", tmp_path, data_dir), data_dir, "cifra10", "nearest: cifar10"
    )
    code = command_line.main(["mnist", "--data_dir=gs://bucket/tfds"])
    check_refused(capsys, code, data_dir, "gs://bucket/tfds", "local folder")


def test_an_unwritable_folder_is_refused(tmp_path: Path, data_dir: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    code = run("mnist", pack(mnist_files(), tmp_path / "folder"), tmp_path / "file" / "below")
    check_refused(capsys, code, data_dir, "cannot write to", "--data_dir")


def test_a_full_disk_gives_one_line(
    tmp_path: Path, data_dir: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr("tensorflow_datasets.core.writer.ExampleWriter.write", fail)
    monkeypatch.setattr(builders.tqdm, "tqdm", lambda rows, *_, **__: rows)
    code = run("mnist", pack(mnist_files(), tmp_path / "folder"), data_dir)
    check_refused(capsys, code, data_dir, "No space left", "--data_dir")


def test_an_incomplete_folder_is_not_used(tmp_path: Path, data_dir: Path, capsys: Capture) -> None:
    archive, folder = pack(mnist_files(), tmp_path / "folder"), data_dir / "mnist/3.0.1"
    run("mnist", archive, data_dir)
    next(folder.glob("mnist-train*")).unlink()
    capsys.readouterr()
    assert run("mnist", archive, data_dir) == 2
    assert re.fullmatch(
        r"error: .*mnist/3.0.1 cannot be read: .*train.*remove it.*\n", capsys.readouterr().err
    )
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert run("mnist", archive, data_dir) == 2
    assert "TFRECORD" in capsys.readouterr().err


def test_other_counts_than_the_official_ones_are_refused(
    tmp_path: Path, data_dir: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    archive = pack(mnist_files(), tmp_path / "folder")
    run("mnist", archive, data_dir)
    capsys.readouterr()
    monkeypatch.undo()
    assert run("mnist", archive, data_dir) == 2
    assert "remove it" in capsys.readouterr().err


def test_an_interrupt_leaves_no_files(
    tmp_path: Path, data_dir: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    calls = []

    def interrupt(*_: object) -> tuple[bool, np.ndarray]:
        calls.append(data_dir.exists())
        if len(calls) > 15:  # In the second split.
            raise KeyboardInterrupt
        return True, np.zeros(9, np.uint8)

    monkeypatch.setattr(builders.cv2, "imencode", interrupt)
    assert run("mnist", pack(mnist_files(), tmp_path / "folder"), data_dir) == 130
    assert calls[-1]
    assert not data_dir.parent.exists()
    assert capsys.readouterr().err.endswith("interrupted: nothing was written\n")


def test_the_folder_appears_in_one_move(tmp_path: Path, data_dir: Path, monkeypatch: Patch) -> None:
    rename, folder = os.rename, data_dir / "mnist/3.0.1"

    def interrupt(source: str, target: str) -> None:
        if Path(target) == folder:
            assert (Path(source) / "dataset_info.json").exists()
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupt)
    assert run("mnist", pack(mnist_files(), tmp_path / "folder"), data_dir) == 130
    assert not data_dir.parent.exists()


def test_another_process_may_finish_first(
    tmp_path: Path, data_dir: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    archive = pack(mnist_files(), tmp_path / "folder")
    run("mnist", archive, tmp_path / "first")

    def late(*args: object) -> tuple[bool, np.ndarray]:
        if not (data_dir / "mnist/3.0.1").exists():
            shutil.copytree(tmp_path / "first/mnist/3.0.1", data_dir / "mnist/3.0.1")
        return True, np.zeros(9, np.uint8)

    monkeypatch.setattr(builders.cv2, "imencode", late)
    assert run("mnist", archive, data_dir) == 0
    check_contents("mnist", data_dir)
    assert [path.name for path in (data_dir / "mnist").iterdir()] == ["3.0.1"]


# In a process that finds no TensorFlow even if it is installed. The kill, if any, comes while
# it writes.
ALONE = """
import dataclasses, importlib.machinery, os, signal, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, *args):
        return None if name.split(".")[0] == "tensorflow" else super().find_spec(name, *args)
sys.meta_path = [Finder if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
from cnn_jax.data.prepare import __main__ as command_line
from cnn_jax.data.prepare import builders, official
name, archive, data_dir, kill = sys.argv[1:]
counts = {"train": 12, "test": 6}
official.OFFICIAL[name] = dataclasses.replace(official.OFFICIAL[name], counts=counts)
if kill == "True":
    encode, calls = builders.cv2.imencode, []
    def imencode(*args):
        calls.append(len(calls) > 15 and os.kill(os.getpid(), signal.SIGKILL))
        return encode(*args)
    builders.cv2.imencode = imencode
sys.exit(command_line.main([name, f"--archive={archive}", f"--data_dir={data_dir}"]))
"""


def test_a_killed_run_does_not_count_as_prepared_and_the_next_succeeds(
    tmp_path: Path, data_dir: Path
) -> None:
    archive = pack(cifar10_files(), tmp_path / "folder")
    command = [sys.executable, "-c", ALONE, "cifar10", archive, data_dir]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run([*command, "True"], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name.split(".")[0] for path in (data_dir / "cifar10").iterdir()] == ["incomplete"]
    assert not tfds.builder("cifar10", data_dir=data_dir).is_prepared()
    after = subprocess.run([*command, "False"], env=environment, capture_output=True, text=True)
    assert after.returncode == 0, after.stderr
    assert tfds.builder("cifar10", data_dir=data_dir).is_prepared()
    check_contents("cifar10", data_dir)


def test_the_command_refuses_in_one_line() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "cnn_jax.data.prepare", "minst"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == "error: data set 'minst': no such set; nearest: mnist\n"


def serve(monkeypatch: Patch, pages: dict[str, bytes], promised: dict[str, bytes]) -> None:
    """Makes TFDS's download manager return `pages`, with the checksums of `promised`."""

    @contextlib.contextmanager
    def open_url(url: str, **_: object) -> Iterator:
        if url not in pages:
            raise downloader.download_utils_lib.DownloadError(
                f"Failed to get url {url}. HTTP code: 404."
            )
        yield types.SimpleNamespace(url=url, headers={}), iter([pages[url]])

    infos = {
        url: checksums.UrlInfo(
            tfds.core.utils.Size(len(data)),
            hashlib.sha256(data).hexdigest(),
            url.rpartition("/")[2],
        )
        for url, data in promised.items()
    }
    monkeypatch.setattr(downloader, "_open_url", open_url)
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: infos)


def pages(name: str, tmp_path: Path) -> dict[str, bytes]:
    if name == "cifar10":
        return {
            official.OFFICIAL[name].urls[0]: pack(
                cifar10_files(), tmp_path / "a.tar.gz"
            ).read_bytes()
        }
    return {url: mnist_files()[url.rpartition("/")[2]] for url in official.OFFICIAL[name].urls}


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_download(name: str, tmp_path: Path, data_dir: Path, monkeypatch: Patch) -> None:
    there = pages(name, tmp_path)
    serve(monkeypatch, there, there)
    assert command_line.main([name, f"--data_dir={data_dir}"]) == 0
    check_contents(name, data_dir)
    assert [path.name for path in data_dir.iterdir()] == [name]
    assert [path.name for path in (data_dir / name).iterdir()] == [VERSIONS[name]]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_download_with_a_wrong_checksum(
    name: str, tmp_path: Path, data_dir: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    there = pages(name, tmp_path)
    url = official.OFFICIAL[name].urls[-1]
    serve(monkeypatch, there, there | {url: there[url][:-1] + b"!"})
    assert command_line.main([name, f"--data_dir={data_dir}"]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert f"{url}: the downloaded file does not have the SHA-256" in error
    assert not data_dir.parent.exists()


def test_download_without_a_known_checksum_or_page(
    tmp_path: Path, data_dir: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    there = pages("cifar10", tmp_path)
    for found, promised, words in ((there, {}, "checksum"), ({}, there, "404")):
        serve(monkeypatch, found, promised)
        assert command_line.main(["cifar10", f"--data_dir={data_dir}"]) == 2
        *_, error = capsys.readouterr().err.splitlines()
        assert error.startswith("error: cannot download")
        assert words in error
        assert "--archive=PATH" in error
        assert not data_dir.parent.exists()
