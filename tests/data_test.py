"""Data: what is fed, in which order, and what augmentation does to it."""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import prepared_sets
import pytest

from cnn_jax import data
from cnn_jax.config import Data, UserError
from cnn_jax.data import builders, prepare

KEYS = jax.random.split(jax.random.key(0), 2)


def feed(seed=None, **changes):
    config = Data(name="fake", batch_size=36, eval_batch_size=16, **changes)
    return data.batches(config, data.splits(config), seed)


def test_each_image_is_seen_once_an_epoch_though_the_batch_does_not_divide_it():
    three_epochs = np.concatenate([item["index"] for item in itertools.islice(feed(seed=1).items(0), 8)])
    assert len(three_epochs) == 3 * 96
    for epoch in three_epochs.reshape(3, 96):
        assert sorted(epoch) == list(range(96))
    assert not np.array_equal(three_epochs[:96], three_epochs[96:192])


def test_order_is_fixed_by_seed_and_restarts_at_any_step():
    whole = [item["index"] for item in itertools.islice(feed(seed=1).items(0), 9)]
    for start in (1, 4, 8):
        np.testing.assert_array_equal(next(feed(seed=1).items(start))["index"], whole[start])
    assert not np.array_equal(next(feed(seed=2).items(0))["index"], whole[0])


def test_a_batch_larger_than_the_data_spans_epochs():
    config = Data(name="fake", batch_size=250)
    index = next(data.batches(config, data.splits(config), seed=0).items(0))["index"]
    assert np.bincount(index[:192]).tolist() == [2] * 96 and len(index) == 250


def test_evaluation_gives_each_image_once_in_order():
    items = list(feed().items(0))
    index = np.concatenate([i["index"] for i in items])
    valid = np.concatenate([i["valid"] for i in items])
    assert [len(i["index"]) for i in items] == [16] * 3  # 40 images: the last batch is filled up, and masked
    assert index[valid].tolist() == list(range(40))


def test_digits_are_the_package_s_own():
    source = data.load("digits")
    assert source.train.images.shape == (1437, 8, 8, 1) and source.test.images.shape == (360, 8, 8, 1)
    assert source.train.images.dtype == np.uint8 and source.train.images.max() == 255
    assert source.train.labels[:10].tolist() == list(range(10))


def test_holdout_takes_the_last_training_images_and_leaves_the_test_set_alone():
    whole, chosen = data.splits(Data(name="digits")), data.splits(Data(name="digits", holdout=100))
    assert len(chosen.train.labels) == 1337 and len(chosen.test.labels) == 100
    np.testing.assert_array_equal(chosen.test.images, whole.train.images[-100:])
    with pytest.raises(UserError, match="1437 training images"):
        data.splits(Data(name="digits", holdout=1437))


@pytest.mark.parametrize("kind, axes", [("pixel", 0), ("channel", (0, 1, 2))])
def test_the_training_mean_is_subtracted(kind, axes):
    config = Data(name="fake", mean=kind, pad=0, flip=False)
    source = data.splits(config)
    test = data.batches(config, source)
    prepared = test.prepare(test.arrays, jnp.asarray(source.test.images))
    expected = (source.test.images - source.train.images.mean(axes)) / 255
    np.testing.assert_allclose(prepared, expected.astype(np.float32), atol=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"name": "cifar"}, "nearest: cifar10"),
        ({"crop": 224}, "wants one side S"),
        ({"crop": 32, "shorter_side": (24,)}, "data.crop=32 is larger than data.shorter_side=24"),
        ({"shorter_side": (24,)}, "data.crop, the side of the square"),
        ({"crop": 32, "shorter_side": (64,), "test_side": 16}, "data.test_side=16 is smaller"),
        ({"name": "caltech101"}, "full-size images: set data.shorter_side"),
        ({"name": "imagenet2012"}, "full-size images: set data.shorter_side"),
        ({"jitter": (0.1, 0.1)}, "wants brightness, contrast"),
        ({"name": "digits", "colour": "pca"}, "digits is grey"),
    ],
)
def test_a_mistake_is_told(change, words):
    config = Data(**({"name": "fake"} | change))
    with pytest.raises(UserError, match=words):
        data.batches(config, data.splits(config))


def test_data_that_is_not_prepared_says_where_it_looked_and_how_to_prepare_it(tmp_path):
    with pytest.raises(UserError) as error:
        data.load("cifar10", str(tmp_path))
    assert f"looked in {tmp_path}" in str(error.value)
    assert f"python -m cnn_jax.data.prepare cifar10 --data_dir={tmp_path}" in str(error.value)


@pytest.fixture
def cifar10(tmp_path):
    """The folder and the arrays of a prepared set in CIFAR-10's form, of 12 + 6 images."""
    rng = np.random.default_rng(0)
    arrays = {
        split: (rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count, np.uint8))
        for split, count in (("train", 12), ("test", 6))
    }
    builder = builders.ImageBuilder(prepare.OFFICIAL["cifar10"].described, arrays, str(tmp_path))
    prepared_sets.prepare(builder, tmp_path)
    data.load.cache_clear()
    return tmp_path / "cifar10/3.0.2", arrays


def test_a_prepared_set_is_read_whole(cifar10):
    folder, arrays = cifar10
    source = data.load("cifar10", str(folder.parents[1]))
    assert source.num_classes == 10
    for split, (images, labels) in zip((source.train, source.test), arrays.values(), strict=True):
        rows = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        found = {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
        assert found == rows  # TFDS's order is another


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_data_set_that_is_damaged_says_so(cifar10, split):
    folder, _ = cifar10
    for file in folder.glob(f"cifar10-{split}*"):
        file.unlink()
    with pytest.raises(UserError, match=f"data set cifar10 in {folder} cannot be read .*prepare cifar10"):
        data.load("cifar10", str(folder.parents[1]))


def test_a_data_set_of_another_form_says_so(cifar10):
    folder, _ = cifar10
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="cannot be read .* array_record form"):
        data.load("cifar10", str(folder.parents[1]))


def test_augmentation_depends_on_key_and_row_only():
    """A batch split in two, as over two devices, gives the rows that the whole batch gives."""
    train = feed(seed=0, pad=2)
    images = jnp.asarray(data.load("fake").train.images[:8])
    whole = train.prepare(train.arrays, images, KEYS[0], jnp.arange(8))
    half = train.prepare(train.arrays, images[4:], KEYS[0], jnp.arange(4, 8))
    np.testing.assert_array_equal(whole[4:], half)
    assert not np.array_equal(whole, train.prepare(train.arrays, images, KEYS[1], jnp.arange(8)))


@pytest.mark.parametrize(
    "name, shape, sizes", [("mnist", (28, 28, 1), (60000, 10000)), ("cifar10", (32, 32, 3), (50000, 10000))]
)
def test_real_data_reads_as_it_should(name, shape, sizes):
    if not os.environ.get("TFDS_DATA_DIR"):
        pytest.skip("TFDS_DATA_DIR is not set: no real data")
    source = data.load(name)
    assert source.train.images.shape == (sizes[0], *shape) and source.test.images.shape == (sizes[1], *shape)
    assert (shape, source.num_classes) == data.SHAPES[name]
    smallest, largest = (5421, 6742) if name == "mnist" else (5000, 5000)
    counts = np.bincount(source.train.labels)
    assert counts.min() == smallest and counts.max() == largest


@pytest.mark.parametrize("name", ["digits", "fake"])
def test_shapes_are_those_of_the_data(name):
    source = data.load(name)
    assert (source.train.images.shape[1:], source.num_classes) == data.SHAPES[name]
