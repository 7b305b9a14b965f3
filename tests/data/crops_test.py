"""Crops: boxes lie inside the image and have the distributions of their papers."""

import math

import numpy as np
import pytest
from helpers.distributions import looks_uniform

from cnn_jax.data import crops
from cnn_jax.data.crops import Box

SIZES = [(375, 500), (500, 333), (256, 256), (1, 1), (3, 4000)]


def inside(box, size):
    return (
        box.top >= 0
        and box.left >= 0
        and box.top + box.height <= size[0] + 1e-9
        and box.left + box.width <= size[1] + 1e-9
    )


def drawn(function, size, *arguments, count=2000):
    rng = np.random.default_rng(0)
    boxes = [function(rng, size, *arguments) for _ in range(count)]
    assert all(inside(box, size) for box in boxes)
    return np.array(boxes)


def test_the_longer_side_is_rounded_halves_up():
    assert crops.compute_scaled_size((375, 500), 256) == (256, 341)  # 341.33
    assert crops.compute_scaled_size((500, 333), 256) == (384, 256)  # 384.38
    assert crops.compute_scaled_size((2, 5), 3) == (3, 8)  # 7.5
    assert crops.compute_scaled_size((100, 100), 7) == (7, 7)


@pytest.mark.parametrize("size", SIZES)
def test_scale_jitter_s_shorter_side_is_uniform_over_all_integers(size):
    box = drawn(crops.draw_scale_jitter, size, 10, 19, 8)
    shorter = int(np.argmin(size))
    scale = 8 * size[shorter] / box[:, 2 + shorter]
    np.testing.assert_allclose(scale, scale.round(), rtol=1e-9)
    counts = np.bincount(scale.round().astype(int), minlength=20)[10:]
    assert counts.sum() == 2000 and np.abs(counts - 200).max() < 4 * math.sqrt(200)
    # Up to the rounding of the longer side.
    np.testing.assert_allclose(box[:, 2] / box[:, 3], 1, rtol=0.06)


def test_scale_jitter_s_crop_has_a_uniform_position_and_reaches_every_edge():
    box = drawn(crops.draw_scale_jitter, (30, 40), 12, 12, 8)  # Scaled to 12 x 16.
    rows, columns = box[:, 0] * 12 / 30, box[:, 1] * 16 / 40
    np.testing.assert_allclose(rows, rows.round(), atol=1e-9)
    counts = np.histogram2d(
        rows.round(), columns.round(), bins=(np.arange(6) - 0.5, np.arange(10) - 0.5)
    )[0]
    assert np.abs(counts - 2000 / 45).max() < 4 * math.sqrt(2000 / 45)
    assert box[0, 2:].tolist() == [20, 20]


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (256, 256), (400, 500)])
def test_area_and_aspect_ratio_are_the_paper_s(size):
    box = drawn(crops.draw_inception_crop, size)
    share, aspect = box[:, 2] * box[:, 3] / np.prod(size), box[:, 3] / box[:, 2]
    assert looks_uniform(share, 0.08, 1) and share.min() < 0.09 and share.max() > 0.99
    assert aspect.min() >= 3 / 4 - 1e-9 and aspect.max() <= 4 / 3 + 1e-9
    small = share < 0.5  # Every aspect ratio fits into these.
    assert looks_uniform(np.log(aspect[small]), *np.log((3 / 4, 4 / 3)))
    room = (np.array(size) - box[small, 2:]) + 1e-9
    assert looks_uniform(box[small, 0] / room[:, 0], 0, 1) and looks_uniform(
        box[small, 1] / room[:, 1], 0, 1
    )


@pytest.mark.parametrize(
    "size, most", [((100, 400), 1 / 3), ((400, 100), 1 / 3), ((1, 1000), 4 / 3000), ((1, 1), 1)]
)
def test_the_inception_crop_of_a_long_image_fits_inside(size, most):
    box = drawn(crops.draw_inception_crop, size)
    share, aspect = box[:, 2] * box[:, 3] / np.prod(size), box[:, 3] / box[:, 2]
    assert share.max() <= most + 1e-9 and share.max() > 0.99 * most
    assert most < 0.08 or looks_uniform(share, 0.08, most)
    assert aspect.min() >= 3 / 4 - 1e-9 and aspect.max() <= 4 / 3 + 1e-9


def test_center_crop_by_hand():
    # 12 x 16: rows 2 to 10, columns 4 to 12.
    assert crops.compute_center_box((30, 40), 12, 8) == Box(5, 10, 20, 20)
    assert crops.compute_center_box((256, 256), 256, 256) == Box(0, 0, 256, 256)
    box = crops.compute_center_box((375, 500), 256, 224)  # 256 x 341: row 16, column 58
    np.testing.assert_allclose(
        box, (16 * 375 / 256, 58 * 500 / 341, 224 * 375 / 256, 224 * 500 / 341)
    )


def test_the_same_generator_draws_the_same_boxes():
    for draw in (
        crops.draw_inception_crop,
        lambda rng, size: crops.draw_scale_jitter(rng, size, 10, 20, 8),
    ):
        one, two, other = (draw(np.random.default_rng(seed), (375, 500)) for seed in (1, 1, 2))
        assert one == two != other
        assert all(type(value) is float for value in one)
