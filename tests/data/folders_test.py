"""Folders of images: every known form, and the errors for others."""

import json
import os

import pytest

from cnn_jax.config import Data, choose
from cnn_jax.data import datasets, folder_scan, folders, scan_report
from cnn_jax.errors import UserError


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def elements(part):
    return [part[i] for i in range(len(part))]


@pytest.mark.parametrize("tested", ["val", "validation", "test"])
def test_a_folder_of_splits_of_class_folders(tmp_path, tested):
    names = (
        "train/b/2.png",
        "train/a/9.png",
        "train/b/1.png",
        "train/a/.hidden",
        f"{tested}/b/3.png",
    )
    source = folders.load_folder(write_files(tmp_path, {name: name.encode() for name in names}))
    assert source.class_names == ("a", "b") and source.num_classes == 2
    assert elements(source.train) == [
        (b"train/a/9.png", 0),
        (b"train/b/1.png", 1),
        (b"train/b/2.png", 1),
    ]
    assert elements(source.test) == [(f"{tested}/b/3.png".encode(), 1)]
    assert source.test.name(0) == str(tmp_path / tested / "b/3.png")


@pytest.mark.parametrize("place", ["val_labels.txt", "val.txt", "val/labels.txt"])
@pytest.mark.parametrize("labels", ["2.JPEG bird\n1.JPEG ant\n", "1.JPEG\t0\nval/2.JPEG 1\n"])
def test_a_flat_val_takes_its_labels_from_a_file(tmp_path, place, labels):
    files = {"train/bird/0": b"", "train/ant/0": b"", "val/1.JPEG": b"one", "val/2.JPEG": b"two"}
    source = folders.load_folder(write_files(tmp_path, files | {place: labels.encode()}))
    assert elements(source.test) == [(b"one", 0), (b"two", 1)]


@pytest.mark.parametrize("around", ["", "train/"])
def test_without_splits_every_fifth_image_of_a_class_is_a_test_image(tmp_path, around):
    files = {
        f"{around}{name}/{i:02}": f"{name}{i}".encode()
        for name, n in (("a", 11), ("b", 4))
        for i in range(n)
    }
    source = folders.load_folder(write_files(tmp_path, files))
    assert elements(source.test) == [(b"a4", 0), (b"a9", 0)]
    assert len(source.train) == 13 and source.train.labels.tolist() == [0] * 9 + [1] * 4


@pytest.mark.parametrize(
    "files, words",
    [
        (None, "no such folder"),
        ({"a.png": b""}, "holds no class folders"),
        ({"train/.x/1": b""}, "holds no class folders"),
        ({"a/.hidden": b""}, "hold no images"),
        ({"train/a/1": b"", "val/.hidden": b""}, "labels.txt"),
        ({"train/a/1": b"", "val/a/.hidden": b""}, "val holds no images"),
        ({"train/a/1": b"", "val/c/1": b""}, "val/c: no class of that name is trained on"),
        ({"train/a/1": b"", "val/1": b""}, 'lines of "FILE CLASS"'),
        ({"train/a/1": b"", "train/b/.hidden": b""}, "all training images are of one class, a"),
        ({"a/1": b""}, "all training images are of one class, a"),
        ({"train/a/1": b"", "Train/a/1": b""}, "Train/ and train/ mean the same split"),
        ({"val/a/1": b""}, "holds val/ but no train/"),
        ({"a/1": b"", "b/1": b"", "test/1": b""}, "test/ lies beside a, b: move the class folders"),
        ({"train/a/1": b"", "val/1": b"", "val.txt": b"1 7"}, "line 1: '1 7'"),
        ({"train/a/1": b"", "val/1": b"", "val.txt": b"0"}, "line 1: '0'"),
        (
            {"train/a/1": b"", "val/1": b"", "val/2": b"", "val.txt": b"1 a"},
            "no line for 1 of the images in .* as 2",
        ),
    ],
)
def test_a_folder_of_another_form_is_refused(tmp_path, files, words):
    with pytest.raises(UserError, match=words):
        folders.load_folder(
            write_files(tmp_path / "set", files) if files else str(tmp_path / "set")
        )


IMAGES = {f"{split}/{name}/{i}.jpg": b"" for split in ("A", "B") for name in "ab" for i in range(6)}


def rename_splits(**names):
    """Returns the files of two splits under other names."""
    return {f"{names[path[0]]}{path[1:]}": content for path, content in IMAGES.items()}


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["val", "valid", "Validation", "test", "TESTING"])
def test_the_usual_names_of_splits_are_recognized_in_any_case(tmp_path, train, test):
    scan = folder_scan.scan_folder(write_files(tmp_path, rename_splits(A=train, B=test)))
    assert (scan.train.folder, scan.test.folder) == (str(tmp_path / train), str(tmp_path / test))
    assert len(scan.train.paths) == len(scan.test.paths) == 12 and scan.test_every == 0
    assert scan_report.summarize_scan(scan) == [
        f"folder:{tmp_path}: 12 images of {train}/ to train on, 12 images of {test}/ to test on,"
        " 2 classes sorted as text"
    ]


def test_val_is_preferred_to_test_and_reported(tmp_path):
    write_files(tmp_path, rename_splits(A="test", B="valid"))
    scan = folder_scan.scan_folder(write_files(tmp_path, rename_splits(A="train", B="more")))
    assert scan.test.folder == str(tmp_path / "valid") and scan.unused == ("more", "test")
    assert (
        "folders with images beside the splits, not used (2): more/, test/"
        in scan_report.summarize_scan(scan)[1]
    )


def test_train_is_not_split_if_other_folders_hold_images(tmp_path):
    path = write_files(tmp_path, rename_splits(A="train", B="holdout"))
    with pytest.raises(
        UserError, match=r"beside train/ lie holdout/ with images.*rename one to val/"
    ):
        folders.load_folder(path)
    os.rename(tmp_path / "holdout", tmp_path / "train/holdout")
    write_files(tmp_path, {"notes/readme.txt": b"", "notes/a.py": b""})  # Not images.
    assert folder_scan.scan_folder(path).test_every == folder_scan.TEST_EVERY


def test_public_weights_are_evaluated_on_all_images(tmp_path):
    settings = Data(
        dataset=choose("folder", path=write_files(tmp_path, rename_splits(A="x", B="val"))),
        train_resize=(8,),
        image_size=8,
    )
    (tmp_path / "x").rename(tmp_path / ".x")
    found = datasets.load_test_images(settings, 2)
    assert len(found.test) == 12 and len(found.train) == 0 and found.class_names == ("a", "b")
    inside = choose("folder", path=str(tmp_path / "val"))
    found = datasets.load_test_images(Data(dataset=inside, train_resize=(8,), image_size=8), 2)
    assert len(found.test) == 12 and found.num_classes == 2
    (tmp_path / "val").rename(tmp_path / "train")
    with pytest.raises(UserError, match=r"holds train/ but no val/.*give folder:.*/train"):
        datasets.load_test_images(settings, 2)


def test_labels_of_a_flat_test_folder_are_numbers(tmp_path):
    files = {"val/x.jpg": b"", "val/y.jpg": b"", "val.txt": b"x.jpg 11\ny.jpg 2\n"}
    scan = folder_scan.scan_folder(write_files(tmp_path, files), test_only=True, num_classes=12)
    assert scan.test.labels == (11, 2) and len(scan.classes) == 12
    with pytest.raises(UserError, match=r"line 1: 'x\.jpg 11'"):
        folder_scan.scan_folder(str(tmp_path), test_only=True, num_classes=11)


def test_class_names_that_are_numbers_are_the_labels_of_the_weights(tmp_path):
    path = write_files(tmp_path, {f"val/{n}/1.jpg": b"" for n in range(12)})
    scan = folder_scan.scan_folder(path, test_only=True, num_classes=12)
    assert scan.classes == tuple(map(str, range(12))) and scan.class_order == "numbers"
    assert [os.path.dirname(name) for name in scan.test.paths] == list(scan.classes)
    assert scan.test.labels == tuple(range(12))
    scan = folder_scan.scan_folder(path, test_only=True, num_classes=1000)
    assert scan.classes[2] == "10" and scan.class_order == "text"
    assert "numbers sorted as text: 10 has label 2" in scan_report.summarize_scan(scan)[1]
    padded = write_files(tmp_path / "padded", {f"{n:02}/1.jpg": b"" for n in range(12)})
    assert len(scan_report.summarize_scan(folder_scan.scan_folder(padded, test_only=True))) == 1


def test_skipped_files_are_reported(tmp_path):
    files = {
        "train/a/1.jpg": b"",
        "train/a/more/2.jpg": b"",
        "train/a/.DS_Store": b"",
        "train/a/Thumbs.db": b"",
        "train/b/1.jpg": b"",
        "train/stray.jpg": b"",
    }
    path = write_files(tmp_path, files)
    (tmp_path / "train/c").mkdir()
    (tmp_path / "train/a/3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "train/a/4.jpg").symlink_to(tmp_path / "train/a/4.jpg")
    os.mkfifo(tmp_path / "train/a/pipe")
    scan = folder_scan.scan_folder(path)
    assert scan.train.paths == ("a/1.jpg", "a/3.jpg", "a/4.jpg", "b/1.jpg")
    assert scan.classes == ("a", "b", "c") and scan.empty_classes == ("c",)
    assert scan.nested == (f"{path}/train/a/more",)
    assert list(scan.broken_links) == [f"{path}/train/a/3.jpg", f"{path}/train/a/4.jpg"]
    assert {reason: len(names) for reason, names in scan.left_out.items()} == {
        "hidden files": 1,
        "files of the system": 1,
        "pipes, sockets and devices": 1,
        "files outside class folders": 1,
    }
    _, line = scan_report.summarize_scan(scan)
    for words in (
        "classes without training images (1): c",
        "folders in class folders, not entered (1)",
        "links to nowhere (2)",
    ):
        assert words in line
    described = json.loads(json.dumps(datasets.describe_dataset(folders.load_folder(path))))
    assert described["train_images"] == 4 and described["folder"]["nested"] == list(scan.nested)
    assert described["folder"]["train"]["images_by_class"] == [3, 1, 0]
    with pytest.raises(OSError):
        folders.load_folder(path).train[1]


def test_classes_without_test_images_are_reported(tmp_path):
    files = {f"train/{name}/1.jpg": b"" for name in "abc"} | {"val/b/1.jpg": b""}
    scan = folder_scan.scan_folder(write_files(tmp_path / "split", files))
    assert "classes without test images (2): a, c" in scan_report.summarize_scan(scan)[1]
    files = {f"{name}/{i}.jpg": b"" for name, count in (("a", 5), ("b", 4)) for i in range(count)}
    scan = folder_scan.scan_folder(write_files(tmp_path / "every", files))
    assert "classes without test images (1): b" in scan_report.summarize_scan(scan)[1]


def test_the_checksum_changes_with_names_labels_and_order(tmp_path):
    files = {"train/a/1": b"", "train/a/2": b"", "train/b/1": b"", "val/a/1": b"", "val/b/1": b""}
    path = write_files(tmp_path, files)

    def find_checksum():
        return datasets.describe_dataset(folders.load_folder(path))["checksum"]

    seen = [find_checksum()]
    for old, new in (("train/a/2", "train/a/0"), ("val/a/1", "val/b/2"), ("train/b", "train/c")):
        (tmp_path / old).rename(tmp_path / new)
        if new == "train/c":
            (tmp_path / "val/b").rename(tmp_path / "val/c")
            (tmp_path / "val/a").mkdir(exist_ok=True)
        seen.append(find_checksum())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("target", ["gone", "b"])  # To nowhere, and to itself.
def test_a_broken_link_as_a_class_is_refused(target, tmp_path):
    path = write_files(tmp_path, {"a/1": b"", "c/1": b""})
    (tmp_path / "b").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"b is a link to nowhere.*labels depend on it"):
        folders.load_folder(path)


BASE = {"train/ant/0": b"", "train/tree frog/0": b"", "val/a b.jpg": b"", "val/c.jpg": b""}
LINES = "a b.jpg tree frog\nc.jpg ant\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_labels_may_begin_with_a_byte_order_mark_and_names_hold_spaces(tmp_path, encoding):
    path = write_files(tmp_path, BASE | {"val.txt": LINES.encode(encoding)})
    assert folder_scan.scan_folder(path).test.labels == (1, 0)


@pytest.mark.parametrize(
    "encoding, words",
    [
        ("latin-1", "is perhaps ISO-8859-1, not UTF-8.*iconv -f ISO-8859-1"),
        ("utf-16", "is UTF-16, not UTF-8.*iconv -f UTF-16"),
        ("utf-32", "is UTF-32, not UTF-8"),
    ],
)
def test_labels_in_another_encoding_are_refused(tmp_path, encoding, words):
    path = write_files(tmp_path, BASE | {"val.txt": f"caf\xe9.jpg ant\n{LINES}".encode(encoding)})
    with pytest.raises(UserError, match=f"val.txt {words}") as error:
        folders.load_folder(path)
    assert "\n" not in str(error.value)


def test_two_labels_of_an_image_are_refused(tmp_path):
    path = write_files(tmp_path, BASE | {"val.txt": b"c.jpg ant\na b.jpg ant\nc.jpg 1\n"})
    with pytest.raises(UserError, match=r"line 3: another class for c\.jpg"):
        folders.load_folder(path)


def test_an_unreadable_folder_is_refused(tmp_path, monkeypatch):
    path = write_files(tmp_path, {"a/1": b"", "b/1": b""})
    own = os.scandir

    def scandir(folder):
        if str(folder).endswith("b"):
            raise PermissionError(13, "Permission denied", str(folder))
        return own(folder)

    monkeypatch.setattr(folder_scan.os, "scandir", scandir)
    with pytest.raises(UserError, match=rf"cannot be read \({tmp_path}/b: Permission denied\)"):
        folders.load_folder(path)


def test_names_that_are_not_utf8_are_printed(tmp_path):
    name = os.fsdecode(b"caf\xe9\n\x1b[31m")
    path = write_files(tmp_path, {"a/1": b"", f"{name}/more/2": b"", "b/1": b""})
    (line,) = scan_report.summarize_scan(folder_scan.scan_folder(path))[1:]
    assert "caf\\xe9\\n\\x1b[31m" in line and line.isprintable()
