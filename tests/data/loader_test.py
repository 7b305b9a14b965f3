"""The resident loader: its batches, their order and their augmentation."""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import prepared_sets

from cnn_jax import data
from cnn_jax.config import Data, choose
from cnn_jax.data.prepare import builders, official
from cnn_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 2)


def make_loader(seed=None, **changes):
    config = Data(dataset=choose("fake"), batch_size=36, eval_batch_size=16, **changes)
    return data.make_loader(config, data.load_dataset(config), seed)


def test_an_epoch_has_each_image_once_even_if_the_batch_does_not_divide_it():
    three_epochs = np.concatenate(
        [item["index"] for item in itertools.islice(make_loader(seed=1).batches(0), 8)]
    )
    assert len(three_epochs) == 3 * 96
    for epoch in three_epochs.reshape(3, 96):
        assert sorted(epoch) == list(range(96))
    assert not np.array_equal(three_epochs[:96], three_epochs[96:192])


def test_the_order_depends_on_the_seed_and_can_start_at_any_step():
    whole = [item["index"] for item in itertools.islice(make_loader(seed=1).batches(0), 9)]
    for start in (1, 4, 8):
        np.testing.assert_array_equal(
            next(make_loader(seed=1).batches(start))["index"], whole[start]
        )
    assert not np.array_equal(next(make_loader(seed=2).batches(0))["index"], whole[0])


def test_a_batch_larger_than_the_data_spans_epochs():
    config = Data(dataset=choose("fake"), batch_size=250)
    index = next(data.make_loader(config, data.load_dataset(config), seed=0).batches(0))["index"]
    assert np.bincount(index[:192]).tolist() == [2] * 96 and len(index) == 250


def test_evaluation_gives_each_image_once_in_order():
    items = list(make_loader().batches(0))
    index = np.concatenate([i["index"] for i in items])
    valid = np.concatenate([i["valid"] for i in items])
    assert [len(i["index"]) for i in items] == [
        16
    ] * 3  # 40 images: the last batch is padded and masked.
    assert index[valid].tolist() == list(range(40))


def test_digits_are_scikit_learn_s():
    source = data.open_dataset(choose("digits"))
    assert source.train.images.shape == (1437, 8, 8, 1) and source.test.images.shape == (
        360,
        8,
        8,
        1,
    )
    assert source.train.images.dtype == np.uint8 and source.train.images.max() == 255
    assert source.train.labels[:10].tolist() == list(range(10))


def test_validation_images_are_the_last_training_images_and_the_test_set_is_unchanged():
    whole, chosen = (
        data.load_dataset(Data(dataset=choose("digits"))),
        data.load_dataset(Data(dataset=choose("digits"), validation_images=100)),
    )
    assert len(chosen.train.labels) == 1337 and len(chosen.test.labels) == 100
    np.testing.assert_array_equal(chosen.test.images, whole.train.images[-100:])
    with pytest.raises(UserError, match="1437 training images"):
        data.load_dataset(Data(dataset=choose("digits"), validation_images=1437))


@pytest.mark.parametrize("kind, axes", [("pixel", 0), ("channel", (0, 1, 2))])
def test_the_training_mean_is_subtracted(kind, axes):
    config = Data(dataset=choose("fake"), subtract_mean=kind, pad_and_crop=0, flip=False)
    source = data.load_dataset(config)
    test = data.make_loader(config, source)
    prepared = test.preprocess(test.arrays, jnp.asarray(source.test.images))
    expected = (source.test.images - source.train.images.mean(axes)) / 255
    np.testing.assert_allclose(prepared, expected.astype(np.float32), atol=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"dataset": choose("cifar")}, "nearest: cifar10"),
        ({"dataset": choose("folder"), "train_resize": (9,), "image_size": 9}, "folder:PATH"),
        ({"image_size": 224}, "must be one side, or the smallest"),
        (
            {"image_size": 32, "train_resize": (24,)},
            "data.image_size=32 is larger than data.train_resize=24",
        ),
        ({"train_resize": (24,)}, "data.image_size must be set to the side of the square"),
        (
            {"image_size": 32, "train_resize": (64,), "eval_resize": 16},
            "data.eval_resize=16 is smaller",
        ),
        ({"dataset": choose("caltech101")}, "full-size images: set data.train_resize"),
        ({"dataset": choose("imagenet2012")}, "full-size images: set data.train_resize"),
        ({"color_jitter": (0.1, 0.1)}, "must be 4 numbers: brightness, contrast"),
        ({"dataset": choose("digits"), "color_pca": True}, "digits is gray"),
    ],
)
def test_invalid_settings_are_refused(change, words):
    config = Data(**({"dataset": choose("fake")} | change))
    with pytest.raises(UserError, match=words):
        data.make_loader(config, data.load_dataset(config))


def test_missing_data_gives_the_folder_and_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError) as error:
        data.open_dataset(choose("cifar10"), str(tmp_path))
    assert f"looked in {tmp_path}" in str(error.value)
    assert f"python -m cnn_jax.data.prepare cifar10 --data_dir={tmp_path}" in str(error.value)


@pytest.fixture
def cifar10(tmp_path):
    """Returns the folder and the arrays of a prepared set like CIFAR-10, of 12 + 6 images."""
    rng = np.random.default_rng(0)
    arrays = {
        split: (
            rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
            rng.integers(0, 10, count, np.uint8),
        )
        for split, count in (("train", 12), ("test", 6))
    }
    builder = builders.ImageBuilder(official.OFFICIAL["cifar10"].described, arrays, str(tmp_path))
    prepared_sets.prepare(builder, tmp_path)
    data.open_dataset.cache_clear()
    return tmp_path / "cifar10/3.0.2", arrays


def test_a_prepared_set_is_read_whole(cifar10):
    folder, arrays = cifar10
    source = data.open_dataset(choose("cifar10"), str(folder.parents[1]))
    assert source.num_classes == 10
    for split, (images, labels) in zip((source.train, source.test), arrays.values(), strict=True):
        rows = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        found = {
            image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)
        }
        assert found == rows  # TFDS's order differs.


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_data_set_is_refused(cifar10, split):
    folder, _ = cifar10
    for file in folder.glob(f"cifar10-{split}*"):
        file.unlink()
    with pytest.raises(
        UserError, match=f"data set cifar10 in {folder} cannot be read .*prepare cifar10"
    ):
        data.open_dataset(choose("cifar10"), str(folder.parents[1]))


def test_a_data_set_of_another_kind_is_refused(cifar10):
    folder, _ = cifar10
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"cannot be read .* array_record form"):
        data.open_dataset(choose("cifar10"), str(folder.parents[1]))


def test_augmentation_depends_on_the_key_and_the_row_only():
    """A batch split in two, as over two devices, gives the same rows as the whole batch."""
    train = make_loader(seed=0, pad_and_crop=2)
    images = jnp.asarray(data.open_dataset(choose("fake")).train.images[:8])
    whole = train.preprocess(train.arrays, images, KEYS[0], jnp.arange(8))
    half = train.preprocess(train.arrays, images[4:], KEYS[0], jnp.arange(4, 8))
    np.testing.assert_array_equal(whole[4:], half)
    assert not np.array_equal(whole, train.preprocess(train.arrays, images, KEYS[1], jnp.arange(8)))


@pytest.mark.parametrize(
    "name, shape, sizes",
    [("mnist", (28, 28, 1), (60000, 10000)), ("cifar10", (32, 32, 3), (50000, 10000))],
)
def test_prepared_data_has_its_official_sizes_and_ranges(name, shape, sizes):
    if not os.environ.get("TFDS_DATA_DIR"):
        pytest.skip("TFDS_DATA_DIR is not set: no real data")
    source = data.open_dataset(choose(name))
    assert source.train.images.shape == (sizes[0], *shape) and source.test.images.shape == (
        sizes[1],
        *shape,
    )
    info = data.DATASET_INFO[name]
    assert (info.image_shape, info.num_classes) == (shape, source.num_classes)
    assert (info.train_images, info.test_images) == sizes
    smallest, largest = (5421, 6742) if name == "mnist" else (5000, 5000)
    counts = np.bincount(source.train.labels)
    assert counts.min() == smallest and counts.max() == largest


@pytest.mark.parametrize("name", ["digits", "fake"])
def test_shapes_are_those_of_the_data(name):
    source = data.open_dataset(choose(name))
    info = data.DATASET_INFO[name]
    assert (source.train.images.shape[1:], source.num_classes) == info[:2]
    assert (source.train.count, source.test.count) == info[2:]


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (np.ones((4, 8, 8, 1), np.float32), np.arange(4), "images are float32 .4, 8, 8, 1.; give"),
        (np.ones((4, 8, 8), np.uint8), np.arange(4), "images are uint8 .4, 8, 8.; give uint8"),
        (np.ones((4, 8, 8, 1), np.uint8), np.arange(3), "labels are int64 .3,.*of the 4 images"),
        (np.ones((4, 8, 8, 1), np.uint8), np.arange(4) / 4, "labels are float64"),
        (np.ones((4, 8, 8, 1), np.uint8), np.eye(4, dtype=int), "labels are int64 .4, 4."),
        (np.ones((4, 8, 8, 1), np.uint8), np.arange(4) - 1, "labels go from -1 to 2"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused(images, labels, words):
    arrays = data.Arrays(images, labels)
    with pytest.raises(UserError, match=f"mine: {words}"):
        data.ArrayDataset("mine", arrays)
    with pytest.raises(UserError, match=f"data set digits: {words}"):
        data.make_loader(Data(), data.Dataset(arrays, arrays, 4), seed=0)


def test_labels_beyond_the_classes_and_empty_sets_are_refused():
    arrays = data.Arrays(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4) + 1)
    with pytest.raises(UserError, match="labels go from 1 to 4; number the classes from 0 to 3"):
        data.make_loader(Data(), data.Dataset(arrays, arrays, 4), seed=0)
    none = data.Arrays(arrays.images[:0], arrays.labels[:0])
    with pytest.raises(UserError, match="data set digits has no training images"):
        data.make_loader(Data(), data.Dataset(none, arrays, 5), seed=0)


def test_arrays_of_jax_and_lists_of_labels_are_images():
    images = data.ArrayDataset("mine", data.Arrays(jnp.ones((2, 8, 8, 1), jnp.uint8), [1, 0]))
    image, label = images[0]
    assert isinstance(image, np.ndarray) and label == 1 and images.count == 2
