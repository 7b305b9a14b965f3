"""Scaled test images: the workers cut the views, and long images make small batches."""

import functools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from cnn_jax.config import Data, choose
from cnn_jax.data import ArrayDataset, Arrays, eval_views, folder_scan, folders
from cnn_jax.data.decode import decode_resized
from cnn_jax.errors import UserError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five files: one image is a hundred times as wide as high, and one file is no image."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i, size in enumerate([(40, 50), (20, 2000), (60, 40), (45, 45), (30, 31)]):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(root / "ab"[i % 2] / f"{i}.png"), pixels)
    (root / "b/3.png").write_bytes(b"no image")
    scan = folder_scan.scan_folder(str(root), test_only=True)
    return folders.FolderDataset(scan.test.folder, scan.test.paths, scan.test.labels)


DATA = Data(dataset=choose("folder", path="x"), on_bad_image="skip")


def cut_corners(side, image):
    return {"crops": np.stack([image[:side, :side], image[-side:, -side:]])}


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_views_are_cut_from_each_image_once_in_order(images, batch):
    cut = functools.partial(cut_corners, 32)
    batches = list(eval_views.iterate_views(DATA, images, 32, cut, batch))
    assert all(b["crops"].shape == (batch, 2, 32, 32, 3) for b in batches)
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    valid = joined["valid"]
    assert joined["index"][valid].tolist() == [0, 1, 2, 3] and joined["bad"].sum() == 1
    assert joined["label"][valid].tolist() == [images.labels[i] for i in range(4)]
    for index, crops in zip(joined["index"][valid], joined["crops"][valid], strict=True):
        whole = decode_resized(images.read(index), 32)
        np.testing.assert_array_equal(crops, cut_corners(32, whole)["crops"])


def test_batches_have_a_bounded_number_of_pixels(images, monkeypatch):
    monkeypatch.setattr(eval_views, "MAX_PIXELS_PER_BATCH", 4 * 64 * 128)
    monkeypatch.setattr(eval_views, "MAX_ASPECT", 100)
    batches = list(eval_views.iterate_resized(DATA, images, 40, 4))
    sizes = {b["image"].shape[1:3]: len(b["image"]) for b in batches}
    assert sizes[64, 64] == 4 and sizes[64, 4032] == 1  # Only the long image has more.
    index = np.concatenate([b["index"][b["valid"]] for b in batches])
    assert sorted(index) == [0, 1, 2, 3]
    batches = eval_views.iterate_resized(DATA, images, 40, 4, multiple=2)
    assert {len(b["image"]) for b in batches} == {2, 4}


def test_a_whole_image_of_more_pixels_than_a_batch_is_refused(images, monkeypatch):
    """Its memory would grow with its aspect; 256 x 38,400 pixels took 4.2 GB."""
    monkeypatch.setattr(eval_views, "MAX_PIXELS_PER_BATCH", 8 * 40**2)
    with pytest.raises(UserError, match=r"has 4000x40 pixels, more than the 12,800 .*on_bad_image"):
        list(eval_views.iterate_resized(replace(DATA, on_bad_image="stop"), images, 40, 4))
    batches = list(eval_views.iterate_resized(DATA, images, 40, 4))
    assert max(b["image"][0, ..., 0].size for b in batches) <= 64 * 64
    assert sum(b["bad"].sum() for b in batches) == 2
    # A crop of it takes no more memory than one of any other image.
    cut = functools.partial(cut_corners, 40)
    assert sum(b["valid"].sum() for b in eval_views.iterate_views(DATA, images, 40, cut, 4)) == 4


def test_images_of_many_sizes_do_not_wait_in_memory(monkeypatch):
    """Each has its own size, so that no batch becomes full."""
    pixels = np.zeros((1, 16, 16, 1), np.uint8)

    class Varied(ArrayDataset):
        def __getitem__(self, index):
            return np.zeros((16, 64 * (1 + index), 1), np.uint8), 0

    varied = Varied("x", Arrays(np.repeat(pixels, 9, 0), np.zeros(9, np.int32)))
    monkeypatch.setattr(eval_views, "MAX_WAITING_PIXELS", 64 * 64 * 6)
    seen, waiting = [], []
    for batch in eval_views.iterate_resized(Data(), varied, 16, 4):
        seen += batch["index"][batch["valid"]].tolist()
        waiting.append(len(batch["image"]))
    assert sorted(seen) == list(range(9)) and seen[0] == 3  # The largest of the first four.
    assert set(waiting) == {4}


def test_arrays_are_resized_too():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 1), np.uint8)
    small = ArrayDataset("x", Arrays(pixels, np.arange(3, dtype=np.int32)))
    (batch,) = eval_views.iterate_views(Data(), small, 16, functools.partial(cut_corners, 16), 3)
    assert batch["crops"].shape == (3, 2, 16, 16, 1) and batch["valid"].all()


@pytest.mark.parametrize("batch", [0, -1, 2.5])
def test_a_batch_without_images_is_refused(batch):
    pixels = np.zeros((2, 8, 8, 1), np.uint8)
    images = ArrayDataset("x", Arrays(pixels, np.zeros(2, np.int32)))
    for batches in (
        eval_views.iterate_views(Data(), images, 8, functools.partial(cut_corners, 8), batch),
        eval_views.iterate_resized(Data(), images, 8, batch),
    ):
        with pytest.raises(UserError, match=f"batch={batch}: must be"):
            next(batches)
