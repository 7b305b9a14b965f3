"""Listings: full-size images by number, from folders, prepared TFDS sets and memory."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.config import Data, choose, dataset
from cnn_jax.data import image_sets
from cnn_jax.errors import UserError

SHARED = Path(__file__).parent.parent.parent / "shared/data"


def written(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def elements(part):
    return [part.element(i) for i in range(len(part))]


@pytest.mark.parametrize("tested", ["val", "validation", "test"])
def test_a_folder_of_splits_of_class_folders(tmp_path, tested):
    names = ("train/b/2.png", "train/a/9.png", "train/b/1.png", "train/a/.hidden", f"{tested}/b/3.png")
    source = image_sets.from_folder(written(tmp_path, {name: name.encode() for name in names}))
    assert source.class_names == ("a", "b") and source.num_classes == 2
    assert elements(source.train) == [(b"train/a/9.png", 0), (b"train/b/1.png", 1), (b"train/b/2.png", 1)]
    assert elements(source.test) == [(f"{tested}/b/3.png".encode(), 1)]
    assert source.test.name(0) == str(tmp_path / tested / "b/3.png")


@pytest.mark.parametrize("place", ["val_labels.txt", "val.txt", "val/labels.txt"])
@pytest.mark.parametrize("labels", ["2.JPEG bird\n1.JPEG ant\n", "1.JPEG\t0\nval/2.JPEG 1\n"])
def test_a_flat_val_takes_its_labels_from_a_file(tmp_path, place, labels):
    files = {"train/bird/0": b"", "train/ant/0": b"", "val/1.JPEG": b"one", "val/2.JPEG": b"two"}
    source = image_sets.from_folder(written(tmp_path, files | {place: labels.encode()}))
    assert elements(source.test) == [(b"one", 0), (b"two", 1)]


@pytest.mark.parametrize("around", ["", "train/"])
def test_class_folders_without_splits_give_every_fifth_image_of_a_class_to_the_test(tmp_path, around):
    files = {f"{around}{name}/{i:02}": f"{name}{i}".encode() for name, n in (("a", 11), ("b", 4)) for i in range(n)}
    source = image_sets.from_folder(written(tmp_path, files))
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
        ({"train/a/1": b"", "val/1": b"", "val.txt": b"1 7"}, "line 1: '1 7'"),
        ({"train/a/1": b"", "val/1": b"", "val.txt": b"0"}, "line 1: '0'"),
        ({"train/a/1": b"", "val/1": b"", "val/2": b"", "val.txt": b"1 a"}, "no line for 1 of the images in .* as 2"),
    ],
)
def test_a_folder_of_another_form_is_told(tmp_path, files, words):
    with pytest.raises(UserError, match=words):
        image_sets.from_folder(written(tmp_path / "set", files) if files else str(tmp_path / "set"))


def test_images_held_out_are_of_all_classes_and_in_no_other_part(tmp_path):
    files = {f"{name}/{i}": f"{name}{i}".encode() for name in "abcd" for i in range(4)}
    config = Data(
        dataset=dataset(f"folder:{written(tmp_path, files)}"), train_resize=(8,), image_size=8, validation_images=4
    )
    source = data.splits(config)
    assert source.test.labels.tolist() == [0, 1, 2, 3]
    assert sorted(elements(source.train) + elements(source.test)) == sorted(
        (content, "abcd".index(name[0])) for name, content in files.items()
    )
    assert source.train.name(0).startswith(str(tmp_path))


def test_a_set_that_is_not_there_says_how_to_prepare_it(tmp_path):
    config = Data(dataset=choose("caltech101"), dir=str(tmp_path), train_resize=(74,), image_size=64)
    with pytest.raises(UserError, match=f"looked in {tmp_path}.*tfds build caltech101"):
        data.splits(config)


def test_a_small_set_is_one_of_full_size_images_too():
    source = data.splits(Data(dataset=choose("digits"), train_resize=(36,), image_size=32))
    image, label = source.test.element(3)
    small = data.load("digits").test
    np.testing.assert_array_equal(image, small.images[3])
    assert label == small.labels[3] and len(source.train) == 1437 and source.test.name(3) == "digits test image 3"


@pytest.fixture(scope="module")
def caltech():
    if not (SHARED / "tfds/caltech101").exists():
        pytest.skip("no real data")
    return image_sets.from_tfds("caltech101", str(SHARED / "tfds"))


def test_tfds_and_a_folder_of_the_same_files_give_the_same_elements(caltech, tmp_path):
    assert (len(caltech.train), len(caltech.test), caltech.num_classes) == (3060, 2995, 102)
    rows = range(0, 3060, 60)
    for split, part in (("train", caltech.train), ("val", caltech.test)):
        for name in caltech.class_names:
            (tmp_path / split / name).mkdir(parents=True)
        for i in rows:
            if i < len(part):
                encoded, label = part.element(i)
                (tmp_path / split / caltech.class_names[label] / f"{i:05}.jpg").write_bytes(encoded)
    folder = image_sets.from_folder(str(tmp_path))
    assert folder.class_names == caltech.class_names
    for ours, theirs in ((folder.train, caltech.train), (folder.test, caltech.test)):
        assert sorted(elements(ours)) == sorted(theirs.element(i) for i in rows if i < len(theirs))
        assert elements(ours)[0][0][:2] == b"\xff\xd8"  # JPEG still


def test_what_is_sent_to_workers_is_small(caltech):
    caltech.train.element(0)  # opens the files, which are not sent
    assert len(pickle.dumps(caltech.train)) < 1000
    assert pickle.loads(pickle.dumps(caltech.train)).element(5) == caltech.train.element(5)


def test_labels_of_a_prepared_set_are_those_of_its_elements(caltech):
    assert np.bincount(caltech.train.labels).tolist() == [30] * 102
    assert caltech.train.labels[77] == caltech.train.element(77)[1]
