"""Statistics of streamed training images: of all, or of an evenly spaced subset."""

import cv2
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.config import Data, choose
from cnn_jax.data import crops, decode, measure
from cnn_jax.errors import UserError

FIELDS = {"train_resize": (12, 20), "image_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir()
        for i in range(7):
            pixels = rng.integers(0, 256, (*rng.integers(10, 80, 2), 3), np.uint8)
            cv2.imwrite(str(root / name / f"{i}.png"), pixels)
    return root


def config(folder, **changes):
    return Data(**({"dataset": choose("folder", path=str(folder))} | FIELDS | changes))


def centers(images):
    def center(size):
        return crops.compute_center_box(size, 16, 8)

    return np.stack(
        [decode.decode_crop(images.read(i), center, (8, 8)) for i in range(len(images))]
    )


def test_the_mean_and_the_components_are_measured_on_center_crops(folder):
    settings = config(folder, subtract_mean="channel", color_pca=True)
    source = data.load_dataset(settings)
    expected = centers(source.train)
    arrays = data.make_loader(settings, source, 0).arrays
    assert arrays["mean"].shape == (1, 8, 8, 3) and arrays["mean"].dtype == np.float32
    np.testing.assert_allclose(arrays["mean"][0, 0, 0], expected.mean((0, 1, 2)), rtol=1e-6)
    values = np.linalg.eigvalsh(np.cov(expected.reshape(-1, 3).T / 255, bias=True))
    np.testing.assert_allclose(arrays["pca"][0], values[::-1], rtol=1e-4)
    pixel = data.make_loader(config(folder, subtract_mean="pixel"), source, 0).arrays["mean"]
    np.testing.assert_array_equal(pixel[0], expected.mean(0, dtype=np.float64).astype(np.float32))
    none = data.make_loader(config(folder, subtract_mean="none"), source, 0).arrays["mean"]
    np.testing.assert_array_equal(none, np.zeros((1, 8, 8, 3), np.float32))


def test_a_large_set_is_measured_once_on_an_evenly_spaced_subset(folder, monkeypatch):
    settings = config(folder, subtract_mean="pixel")
    source, read = data.load_dataset(settings), []
    monkeypatch.setattr(measure, "MAX_IMAGES", 4)
    own = measure.decode_or_next
    monkeypatch.setattr(
        measure, "decode_or_next", lambda d, images, i, f: read.append(i) or own(d, images, i, f)
    )
    for _ in range(2):  # The runs of a study share the result.
        mean = measure.measure_streamed_colors(settings, source.train)["mean"]
    assert sorted(read) == [0, 3, 6, 9] and len(source.train) == 12
    np.testing.assert_allclose(mean[0], centers(source.train)[[0, 3, 6, 9]].mean(0), rtol=1e-6)


def test_without_subtraction_one_image_gives_the_shape(folder, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "2.png").write_bytes(b"bad")
        (tmp_path / name / "1.png").write_bytes((folder / name / "1.png").read_bytes())
    settings = config(tmp_path, subtract_mean="none")
    assert data.make_loader(settings, data.load_dataset(settings), 0).image_shape == (8, 8, 3)
    settings = config(tmp_path, subtract_mean="channel")
    with pytest.raises(UserError, match=r"a/2\.png"):
        data.make_loader(settings, data.load_dataset(settings), 0)
