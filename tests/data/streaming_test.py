"""Streamed batches of full-size images: independence of workers, bad images, class balance."""

import itertools
import multiprocessing
import shutil
from collections import Counter

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import data, mesh
from cnn_jax.config import Data, Experiment, Train, choose
from cnn_jax.data import crops, decode, eval_views, resample, streaming
from cnn_jax.data.sampler import balance_epoch, shuffle_epoch
from cnn_jax.errors import UserError
from cnn_jax.training.program import build_program

FIELDS = {
    "train_resize": (12, 20),
    "image_size": 8,
    "pad_and_crop": 0,
    "flip": False,
    "batch_size": 6,
    "eval_batch_size": 4,
}


def encoded(image):
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns three classes of 7, 5 and 2 noisy images of many sizes; two are test images."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, count in (("a", 7), ("b", 5), ("c", 2)):
        (root / name).mkdir()
        for i in range(count):
            size = rng.integers(10, 80, 2)
            (root / name / f"{i}.png").write_bytes(
                encoded(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            )
    return root


def config(folder, **changes):
    return Data(**({"dataset": choose("folder", path=str(folder))} | FIELDS | changes))


def center(size):
    return crops.compute_center_box(size, 16, 8)


def make_loader(settings, seed=0, **options):
    return data.make_loader(settings, data.load_dataset(settings), seed, **options)


def some(items, count):
    try:
        return list(itertools.islice(items, count))
    finally:
        items.close()


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], name)


def test_batches_have_the_order_of_the_resident_loader_and_each_image_once_per_epoch(folder):
    batches = some(make_loader(config(folder), seed=3).batches(0), 4)
    assert batches[0]["image"].shape == (6, 8, 8, 3) and batches[0]["image"].dtype == np.uint8
    index = np.concatenate([b["index"] for b in batches])
    np.testing.assert_array_equal(
        index, np.concatenate([shuffle_epoch(3, 0, 12), shuffle_epoch(3, 1, 12)])
    )
    labels = data.load_dataset(config(folder)).train.labels
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches]), labels[index])
    assert all(b["valid"].all() and not b["bad"].any() for b in batches)


def test_a_loader_starts_at_any_step_and_workers_do_not_change_batches(folder):
    whole = some(make_loader(config(folder)).batches(0), 7)
    for workers, start in ((0, 3), (1, 0), (2, 2)):
        same(
            some(make_loader(config(folder, workers=workers)).batches(start), 7 - start),
            whole[start:],
        )
    assert not multiprocessing.active_children()
    assert not np.array_equal(
        whole[0]["image"], some(make_loader(config(folder), seed=1).batches(0), 1)[0]["image"]
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_file_is_named(folder, tmp_path, workers):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    items = make_loader(config(tmp_path, workers=workers, subtract_mean="none")).batches(0)
    (tmp_path / "a/3.png").unlink()
    with pytest.raises(
        UserError, match=f"{tmp_path}/a/3.png: No such file .*; remove it, or leave it out"
    ):
        some(items, 6)


def test_rows_of_all_processes_make_up_the_batch(folder):
    whole = some(make_loader(config(folder)).batches(1), 2)
    parts = [some(make_loader(config(folder), shard=(i, 3)).batches(1), 2) for i in range(3)]
    same([{k: np.concatenate([p[n][k] for p in parts]) for k in whole[0]} for n in range(2)], whole)


def test_crops_differ_between_epochs_and_cover_the_range_of_sizes(folder, monkeypatch):
    sides, own = [], crops.draw_scale_jitter

    def jitter(rng, size, *rest):
        return sides.append(rest) or own(rng, size, *rest)

    monkeypatch.setattr(streaming.crops, "draw_scale_jitter", jitter)
    batches = some(make_loader(config(folder, batch_size=12)).batches(0), 2)
    assert set(sides) == {(12, 20, 8)}
    first, second = (
        {i: image for i, image in zip(b["index"], b["image"], strict=True)} for b in batches
    )
    assert sum(np.array_equal(first[i], second[i]) for i in range(12)) == 0


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("changes", [{}, {"balance_classes": True}], ids=["shuffled", "balanced"])
def test_an_image_and_its_crop_depend_on_row_epoch_and_seed_only(folder, seed, changes):
    settings = config(folder, **changes)
    images = data.load_dataset(settings).train
    batches = streaming.StreamedBatches(settings, images, seed)
    count = batches.images_per_epoch
    for position in (0, 1, count - 1, count, count + 1, 2 * count + 5):
        epoch, place = divmod(position, count)
        order = shuffle_epoch(seed, epoch, count)
        if changes:
            order = balance_epoch(seed, epoch, images.labels)
        number, row = divmod(position, settings.batch_size)
        batch = batches[number]
        assert batch["index"][row] == order[place]
        rng = np.random.default_rng((seed, epoch, 1 + place))
        expected = decode.decode_crop(
            images.read(order[place]),
            lambda size, rng=rng: crops.draw_scale_jitter(rng, size, 12, 20, 8),
            (8, 8),
        )
        np.testing.assert_array_equal(batch["image"][row], expected)


def test_the_inception_crop_is_that_of_crops(folder):
    settings = config(folder, train_crop="inception")
    batch, part = some(make_loader(settings).batches(0), 1)[0], data.load_dataset(settings).train
    index = int(batch["index"][2])
    rng = np.random.default_rng((0, 0, 1 + 2))
    expected = decode.decode_crop(
        part.read(index), lambda size: crops.draw_inception_crop(rng, size), (8, 8)
    )
    np.testing.assert_array_equal(batch["image"][2], expected)


def test_evaluation_uses_the_center_of_each_image_once(folder):
    settings = config(folder, validation_images=6)
    part, items = data.load_dataset(settings).test, list(make_loader(settings, None).batches(0))
    assert [i["valid"].tolist() for i in items] == [[True] * 4, [True, True, False, False]]
    for n in range(6):
        expected = decode.decode_resized(part.read(n), 16)
        (top, left), *_ = decode.find_center(expected.shape, 8)
        expected = expected[top : top + 8, left : left + 8]
        np.testing.assert_array_equal(items[n // 4]["image"][n % 4], expected)
    same(
        list(make_loader(config(folder, validation_images=6, workers=1), None).batches(1)),
        items[1:],
    )


@pytest.fixture
def damaged_folder(folder, tmp_path):
    """Returns the folder with a file that is no image, training image number 2."""
    for path in folder.rglob("*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "a/2.png").write_bytes(b"no image")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stops_at_a_bad_image_and_names_its_path(damaged_folder, workers):
    settings = config(damaged_folder, workers=workers, subtract_mean="none")
    with pytest.raises(UserError, match=f"{damaged_folder}/a/2.png: .*on_bad_image=skip"):
        some(
            streaming.iterate_batches(
                streaming.StreamedBatches(settings, data.load_dataset(settings).train, 0), 0
            ),
            4,
        )
    assert not multiprocessing.active_children()


def test_the_next_image_replaces_a_bad_one_which_is_counted_and_named_once(damaged_folder, capfd):
    streaming._warn_once.cache_clear()
    settings = config(damaged_folder, on_bad_image="skip")
    batches = some(make_loader(settings).batches(0), 4)
    index, bad = (np.concatenate([b[name] for b in batches]) for name in ("index", "bad"))
    drawn = np.concatenate([shuffle_epoch(0, 0, 12), shuffle_epoch(0, 1, 12)])
    np.testing.assert_array_equal(index, np.where(drawn == 2, 3, drawn))
    np.testing.assert_array_equal(bad, drawn == 2)
    assert capfd.readouterr().err.count("a/2.png") == 1
    same(
        some(make_loader(config(damaged_folder, on_bad_image="skip", workers=1)).batches(0), 4),
        batches,
    )


def test_evaluation_replaces_no_bad_image(damaged_folder):
    source = data.load_dataset(config(damaged_folder))
    settings = config(damaged_folder, on_bad_image="skip")
    fed = data.make_loader(settings, source._replace(test=source.train), None)
    assert sum(i["valid"].sum() for i in fed.batches(0)) == 11
    whole = list(eval_views.iterate_resized(settings, source.train, 12, 3))
    assert sorted(np.concatenate([b["index"][b["valid"]] for b in whole])) == [0, 1, *range(3, 12)]
    assert sum(b["bad"].sum() for b in whole) == 1


def test_a_data_set_without_good_images_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 images"):
        make_loader(config(tmp_path, on_bad_image="skip"))


def test_without_test_images_training_works_and_evaluation_gives_the_remedy(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(np.full((20, 20, 3), 7, np.uint8)))
    batch = some(make_loader(config(tmp_path)).batches(0), 1)[0]
    assert batch["image"].tolist() == np.full((6, 8, 8, 3), 7).tolist()
    with pytest.raises(UserError, match=r"no test images.*data\.validation_images"):
        make_loader(config(tmp_path), None)


def test_balanced_epochs_have_all_classes_equally_often():
    labels = np.repeat([4, 0, 7], [7, 1, 3])
    epochs = [balance_epoch(0, epoch, labels) for epoch in range(50)]
    for rows in epochs:
        assert Counter(labels[rows].tolist()) == {4: 7, 0: 7, 7: 7}
        times = Counter(rows.tolist())
        assert [times[i] for i in range(8)] == [1] * 7 + [7]
        assert sorted(times[i] for i in range(8, 11)) == [2, 2, 3]
    assert len({tuple(rows) for rows in epochs}) == 50
    firsts = Counter(labels[rows[0]] for rows in epochs)
    assert min(firsts[label] for label in (0, 4, 7)) > 5  # Not class by class.
    np.testing.assert_array_equal(epochs[3], balance_epoch(0, 3, labels))


def test_a_balanced_loader_has_balanced_epochs_and_new_crops_of_repeated_images(folder):
    fed = make_loader(config(folder, balance_classes=True, batch_size=18))
    assert fed.images_per_epoch == 18  # Three classes, of which the largest has six.
    batch = some(fed.batches(0), 1)[0]
    assert np.bincount(batch["label"]).tolist() == [6, 6, 6]
    repeated = batch["image"][batch["index"] == 10]
    assert len({image.tobytes() for image in repeated}) == len(repeated) == 3
    small = make_loader(Data(dataset=choose("fake"), balance_classes=True, batch_size=10))
    item = next(small.batches(0))
    # The largest of 10 classes have 10 of the 96 images.
    assert small.images_per_epoch == 10 * 10 and len(item["index"]) == 10


def test_eval_views_come_once_each_in_batches_of_similar_size(folder):
    settings = config(folder)
    part = data.load_dataset(settings).train
    seen = []
    for batch in eval_views.iterate_resized(settings, part, 40, 3):
        assert (
            batch["image"].shape[0] == 3
            and batch["image"].shape[1] % 32 == batch["image"].shape[2] % 32 == 0
        )
        for n in np.flatnonzero(batch["valid"]):
            (height, width), index = batch["size"][n], int(batch["index"][n])
            assert min(height, width) == 40 and batch["label"][n] == part.labels[index]
            np.testing.assert_array_equal(
                batch["image"][n, :height, :width], decode.decode_resized(part.read(index), 40)
            )
            assert not batch["image"][n, height:].any() and not batch["image"][n, :, width:].any()
            seen.append(index)
    assert sorted(seen) == list(range(12))


def test_resizing_an_array_up_is_opencv_s_and_down_is_an_average():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    box = crops.Box(0, 0, 8, 8)
    larger = cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR)[..., None]
    assert np.abs(resample.resample(image, box, (32, 32)).astype(int) - larger).max() <= 1
    np.testing.assert_array_equal(resample.resample(image, box, (8, 8)), image)
    part = resample.resample(image, crops.Box(2, 3, 4, 5), (4, 5))
    np.testing.assert_array_equal(part, image[2:6, 3:8])
    squares = (np.indices((9, 9)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.abs(resample.resample(squares, crops.Box(0, 0, 9, 9), (3, 3)) - 127.5).max() < 5


def test_preprocessing_augments_in_training_and_not_in_evaluation(folder):
    images, rows = (
        jnp.asarray(some(make_loader(config(folder)).batches(0), 1)[0]["image"]),
        jnp.arange(6),
    )
    plain = make_loader(config(folder))
    before = plain.preprocess(plain.arrays, images)
    np.testing.assert_array_equal(
        plain.preprocess(plain.arrays, images, jax.random.key(0), rows), before
    )
    changes = (
        {"pad_and_crop": 2},
        {"flip": True},
        {"vertical_flip": True},
        {"shift": 2},
        {"rotate": 20.0},
        {"color_pca": True},
        {"color_jitter": (0.2, 0.0, 0.0, 0.0)},
        {"gaussian_noise": 0.1},
    )
    seen = set()
    for change in changes:
        fed = make_loader(config(folder, **change))
        np.testing.assert_allclose(fed.preprocess(fed.arrays, images), before, atol=1e-6)
        after = fed.preprocess(fed.arrays, images, jax.random.key(0), rows)
        assert (
            after.shape == before.shape
            and after.dtype == jnp.float32
            and not np.allclose(after, before)
        )
        half = fed.preprocess(fed.arrays, images[3:], jax.random.key(0), rows[3:])
        np.testing.assert_allclose(half, after[3:], atol=1e-6)
        seen.add(np.asarray(after).tobytes())
    assert len(seen) == len(changes)


def test_batches_are_on_the_devices_before_their_step(folder):
    sharding = mesh.make_batch_sharding(mesh.make_batch_mesh())
    taken = []
    source = (taken.append(n) or {"x": np.full(8, n)} for n in range(5))
    placed = data.prefetch_to_device(source, sharding, size=2)
    first = next(placed)
    assert taken == [0, 1, 2] and first["x"].sharding == sharding
    assert [int(item["x"][0]) for item in (first, *placed)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["folder", "digits"])
def test_a_model_is_trained_and_evaluated_on_full_size_images(folder, name):
    settings = (
        config(folder, batch_size=8)
        if name == "folder"
        else Data(**(FIELDS | {"dataset": choose(name), "batch_size": 8}))
    )
    run = Experiment(data=settings, model=choose("mlp"), train=Train(steps=2))
    parts = build_program(run)
    state, items = parts.state, parts.batches(0)
    for _ in range(2):
        state = parts.step(state, next(items))
    items.close()
    assert int(state.step) == 2
    assert parts.evaluate(state)["images"] == (2 if name == "folder" else 360)


def test_a_streamed_small_set_reads_its_arrays():
    settings = Data(**(FIELDS | {"dataset": choose("digits")}))
    assert isinstance(data.load_dataset(settings).train, data.ArrayDataset)
