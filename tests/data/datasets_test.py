"""Data sets by name: validation images, small sets read as full-size ones, prepared TFDS sets."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from helpers import prepared_sets

from cnn_jax import data
from cnn_jax.config import Data, choose
from cnn_jax.data import alter, datasets, folders, headers, streaming, tfds_sets
from cnn_jax.errors import UserError


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def elements(part):
    return [part[i] for i in range(len(part))]


def test_validation_images_are_of_all_classes_and_in_no_other_split(tmp_path):
    files = {f"{name}/{i}": f"{name}{i}".encode() for name in "abcd" for i in range(4)}
    config = Data(
        dataset=choose("folder", path=write_files(tmp_path, files)),
        train_resize=(8,),
        image_size=8,
        validation_images=4,
    )
    source = data.load_dataset(config)
    assert source.test.labels.tolist() == [0, 1, 2, 3]
    assert sorted(elements(source.train) + elements(source.test)) == sorted(
        (content, "abcd".index(name[0])) for name, content in files.items()
    )
    assert source.train.name(0).startswith(str(tmp_path))


def test_a_missing_set_gives_the_command_that_prepares_it(tmp_path):
    config = Data(
        dataset=choose("caltech101"), dir=str(tmp_path), train_resize=(74,), image_size=64
    )
    with pytest.raises(UserError, match=f"looked in {tmp_path}.*tfds build caltech101"):
        data.load_dataset(config)


def test_a_small_set_can_be_read_as_full_size_images():
    source = data.load_dataset(Data(dataset=choose("digits"), train_resize=(36,), image_size=32))
    image, label = source.test[3]
    small = data.open_dataset(choose("digits")).test
    np.testing.assert_array_equal(image, small.images[3])
    assert (
        label == small.labels[3]
        and len(source.train) == 1437
        and source.test.name(3) == "digits test image 3"
    )


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Returns a prepared TFDS set of nine JPEG files: six training and three test images."""
    folder = tmp_path_factory.mktemp("tfds")
    prepared_sets.prepare(prepared_sets.Photographs("photographs", ("test",), str(folder)), folder)
    return tfds_sets.load_tfds_set("photographs", str(folder))


def test_a_prepared_set_gives_each_file_unchanged_with_its_label(photographs):
    assert photographs.class_names == ("colors", "plain", "sizes") and photographs.num_classes == 3
    classes = enumerate(prepared_sets.CLASSES.values())
    expected = [(label, *files) for label, files in classes]
    train = [(prepared_sets.encoded(name), label) for label, names, _ in expected for name in names]
    test = [(prepared_sets.encoded(name), label) for label, _, name in expected]
    assert sorted(elements(photographs.train)) == sorted(train)
    assert sorted(elements(photographs.test)) == sorted(test)


def test_tfds_and_a_folder_of_the_same_files_give_the_same_elements(photographs, tmp_path):
    for split, part in (("train", photographs.train), ("val", photographs.test)):
        for i in range(len(part)):
            encoded, label = part[i]
            path = tmp_path / split / photographs.class_names[label] / f"{i:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
    folder = folders.load_folder(str(tmp_path))
    assert folder.class_names == photographs.class_names
    for ours, theirs in ((folder.train, photographs.train), (folder.test, photographs.test)):
        assert len(ours) == len(theirs) and sorted(elements(ours)) == sorted(elements(theirs))


def test_a_data_set_pickles_to_few_bytes(photographs):
    train = tfds_sets.TfdsDataset(photographs.train.folder, "train", 6)
    opened = train[0]  # Opens the files, which are not pickled.
    assert len(pickle.dumps(train)) < 1000 < len(opened[0])
    again = pickle.loads(pickle.dumps(train))
    assert [again[i] for i in range(6)] == elements(photographs.train)


def test_labels_of_a_prepared_set_are_those_of_its_elements(photographs):
    assert photographs.train.labels.tolist() == [label for _, label in elements(photographs.train)]
    assert np.bincount(photographs.train.labels).tolist() == [2, 2, 2]
    assert sorted(photographs.test.labels.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("name, tested", [("imagenet2012", "validation"), ("photographs", "test")])
def test_imagenet_is_evaluated_on_validation_and_others_on_test(name, tested, tmp_path):
    made = prepared_sets.Photographs(name, ("validation", "test"), str(tmp_path))
    prepared_sets.prepare(made, tmp_path)
    source = tfds_sets.load_tfds_set(name, str(tmp_path))
    assert (len(source.train), len(source.test)) == (6, 3)
    assert f"{tested} image 1" in source.test.name(1)


@pytest.mark.parametrize(
    "unlabeled, words",
    [
        (("test",), ""),
        (("test", "validation"), "its images of test and validation have no labels"),
        (("train",), "its images of train have no labels"),
    ],
)
def test_images_without_labels_are_not_tested_on(unlabeled, words, tmp_path):
    made = prepared_sets.Photographs("places", ("validation", "test"), str(tmp_path), unlabeled)
    prepared_sets.prepare(made, tmp_path)
    if words:
        with pytest.raises(UserError, match=words):
            tfds_sets.load_tfds_set("places", str(tmp_path))
    else:
        source = tfds_sets.load_tfds_set("places", str(tmp_path))
        assert "validation image 0" in source.test.name(0)
        assert sorted(source.test.labels) == [0, 1, 2]


@pytest.fixture
def damaged(photographs, tmp_path):
    """Returns a copy of the set, of which a training record is damaged, and the record's number."""
    name = Path(photographs.train.folder).relative_to(Path(photographs.train.folder).parents[1])
    shutil.copytree(photographs.train.folder, tmp_path / name)
    (file,) = (tmp_path / name).glob("*train*array_record*")
    content = bytearray(file.read_bytes())
    before = [len(photographs.train.read(i)) for i in range(3)]
    content[before[0] + before[1] + before[2] // 2] ^= 255  # Records lie there in their order.
    file.write_bytes(content)
    return tfds_sets.load_tfds_set("photographs", str(tmp_path)), 2


def test_a_damaged_record_is_a_bad_image(damaged, photographs, capsys):
    source, row = damaged
    with pytest.raises(headers.BadImage, match="its record cannot be read"):
        source.train[row]
    others = [i for i in range(6) if i != row]
    assert [source.train[i] for i in others] == [photographs.train[i] for i in others]
    config = Data(on_bad_image="skip")
    found = streaming.decode_or_next(config, source.train, row, lambda encoded: np.zeros(1))
    assert (found.index, found.replaced) == (row + 1, True)
    assert f"train image {row}: its record cannot be read" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"train image {row}: its record .*on_bad_image=skip"):
        streaming.decode_or_next(Data(), source.train, row, lambda encoded: np.zeros(1))
    with pytest.raises(UserError, match=f"train image {row}: its record .*all labels are needed"):
        source.train.labels  # noqa: B018


@pytest.mark.parametrize("file", ["as installed", "elsewhere"])
def test_digits_are_those_of_scikit_learn(file, tmp_path, monkeypatch):
    if file == "elsewhere":  # In a later version of the package.
        monkeypatch.setattr(datasets, "find_folder", lambda name: tmp_path)
    found, theirs = datasets.load_digits(""), sklearn.datasets.load_digits()
    images, labels = (np.concatenate(both) for both in zip(found.train, found.test, strict=True))
    np.testing.assert_array_equal(images[..., 0], np.round(theirs.images * 255 / 16))
    np.testing.assert_array_equal(labels, theirs.target)
    assert labels.dtype == np.int32 and len(found.test.labels) == 360


def test_digits_are_enlarged_and_framed():
    config = Data(dataset=choose("digits", side=20, margin=4))
    found, plain = data.load_dataset(config).test.images, data.load_dataset(Data()).test.images
    assert found.shape == (360, 28, 28, 1) and data.find_image_shape(config)[0] == (28, 28, 1)
    assert not found[:, :4].any() and not found[:, :, -4:].any()
    means = [images.mean((1, 2, 3), dtype=float) for images in (found[:, 4:24, 4:24], plain)]
    # Enlarging keeps the ink but for what the edge's pixels weigh.
    assert np.corrcoef(*means)[0, 1] > 0.99
    scattered = data.load_dataset(Data(dataset=choose("digits", margin=4, scatter=True))).test
    np.testing.assert_array_equal(scattered.images.sum((1, 2, 3)), plain.sum((1, 2, 3)))
    rows = [np.flatnonzero(image.any((1, 2)))[0] for image in scattered.images]
    assert set(rows) == set(range(9))  # A digit's first row is the first of its eight.
    same = data.load_dataset(Data(dataset=choose("digits", side=8, margin=0)))
    np.testing.assert_array_equal(same.test.images, plain)


def test_cifar10_is_encoded_once_more_where_a_quality_is_given(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    part = data.Arrays(images[:4], np.arange(4, dtype=np.int32))
    tested = data.Arrays(images[4:], np.arange(2, dtype=np.int32))
    whole = data.Dataset(part, tested, 10)
    monkeypatch.setattr(datasets.tfds_sets, "load_arrays", lambda name, data_dir: whole)
    for found, given in zip(datasets.load_cifar10("", jpeg_quality=75)[:2], whole, strict=False):
        np.testing.assert_array_equal(found.labels, given.labels)
        np.testing.assert_array_equal(found.images, alter.encode_as_jpeg(given.images, 75))
    np.testing.assert_array_equal(datasets.load_cifar10("").train.images, part.images)
