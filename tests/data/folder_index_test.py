"""The index of a large folder of images."""

import os

import pytest

from cnn_jax.data import folder_index, folder_scan, folders

OLD = 1_500_000_000  # Seconds since 1970: the folders changed long ago.


def settle(root):
    for folder, _, _ in os.walk(root):
        os.utime(folder, (OLD, OLD))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Returns train/ and val/ with two classes, a nested folder, a hidden file, a broken link."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_index, "MIN_IMAGES", 1)
    made = tmp_path / "set"
    for split in ("train", "val"):
        for name in ("cat", "dög"):
            (made / split / name).mkdir(parents=True)
            for i in range(3):
                (made / split / name / f"{name}_{i}.jpg").touch()
    (made / "train/cat/more").mkdir()
    (made / "train/cat/.hidden").touch()
    (made / "val/cat/nowhere.jpg").symlink_to("gone")
    (made / "train/cat" / os.fsdecode(b"latin-\xe9.jpg")).touch()
    settle(made)
    return made


@pytest.fixture
def scans(monkeypatch):
    """Returns a list that gets an entry whenever a folder is listed."""
    done = []

    def scan(*arguments):
        done.append(arguments[0])
        return folder_scan.scan_folder(*arguments)

    monkeypatch.setattr(folder_index, "scan_folder", scan)
    return done


def index_of(tmp_path):
    return next((tmp_path / "cache/cnn_jax/folders").iterdir())


@pytest.mark.parametrize("test_only", [False, True])
def test_an_index_gives_the_result_of_the_scan(root, scans, test_only):
    first = folder_index.scan_with_index(str(root), test_only, 2)
    assert folder_index.scan_with_index(str(root), test_only, 2) == first
    assert first == folder_scan.scan_folder(str(root), test_only, 2)
    assert len(scans) == 1


def test_other_arguments_have_other_indexes(root, scans):
    for arguments in ((False, 0), (True, 0), (True, 2)):
        folder_index.scan_with_index(str(root), *arguments)
    assert len(scans) == 3


def add(root):
    (root / "train/cat/new.jpg").touch()


def remove(root):
    (root / "val/cat/cat_1.jpg").unlink()


def rename(root):
    (root / "train/cat/cat_0.jpg").rename(root / "train/cat/zebra.jpg")


def add_class(root):
    (root / "train/emu").mkdir()
    (root / "train/emu/emu.jpg").touch()


def add_split(root):
    (root / "more").mkdir()
    (root / "more/image.jpg").touch()


@pytest.mark.parametrize("change", [add, remove, rename, add_class, add_split])
def test_a_change_is_detected(root, scans, change):
    before = folder_index.scan_with_index(str(root))
    change(root)
    after = folder_index.scan_with_index(str(root))
    assert after != before and after == folder_scan.scan_folder(str(root))
    assert len(scans) == 2


def test_changed_labels_are_detected(root, scans):
    for file in (root / "val").rglob("*.jpg"):
        file.unlink()
    for name in ("cat", "dög"):
        (root / "val" / name).rmdir()
    for i in range(2):
        (root / f"val/{i}.jpg").touch()
    labels = root / "val_labels.txt"
    labels.write_text("0.jpg cat\n1.jpg dög\n")
    settle(root)
    os.utime(labels, (OLD, OLD))
    assert folder_index.scan_with_index(str(root)).test.labels == (0, 1)
    labels.write_text("0.jpg dög\n1.jpg cat\n")
    assert folder_index.scan_with_index(str(root)).test.labels == (1, 0)
    assert len(scans) == 2


def test_a_folder_that_has_just_changed_is_not_indexed(root, scans):
    add(root)
    for _ in range(2):
        assert len(folder_index.scan_with_index(str(root)).train.paths) == 8
    assert len(scans) == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", "half"])
def test_a_damaged_index_is_rebuilt(root, scans, tmp_path, content):
    first = folder_index.scan_with_index(str(root))
    index = index_of(tmp_path)
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert folder_index.scan_with_index(str(root)) == first
    assert folder_index.scan_with_index(str(root)) == first
    assert len(scans) == 2


def test_a_flipped_bit_is_always_detected(root, scans, tmp_path):
    """Each array of the index has a checksum."""
    first = folder_index.scan_with_index(str(root))
    index = index_of(tmp_path)
    whole = index.read_bytes()
    for position in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        index.write_bytes(damaged)
        assert folder_index.scan_with_index(str(root)) == first


def test_small_sets_and_unwritable_homes_have_no_index(root, scans, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        folder_index.scan_with_index(str(root))
    assert len(scans) == 2


def test_a_data_set_is_the_same_from_an_index(root, scans):
    first, second = (folders.load_folder(str(root)) for _ in range(2))
    assert len(scans) == 1
    assert first.train.paths == second.train.paths and first.class_names == second.class_names
    assert (first.train.labels == second.train.labels).all()
