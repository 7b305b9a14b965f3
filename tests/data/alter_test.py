"""Changes to the images of a whole data set: reordered pixels, a long tail, JPEG encoding."""

import cv2
import numpy as np
import pytest
import scipy.ndimage

from cnn_jax import data
from cnn_jax.config import Data, choose
from cnn_jax.data import alter
from cnn_jax.errors import UserError


def test_shuffled_pixels_are_the_same_permutation_of_every_image():
    plain, config = data.load_dataset(Data()), Data(shuffle_pixels=True)
    shuffled = data.load_dataset(config)
    before, after = (
        np.concatenate([s.train.images, s.test.images]).reshape(1_797, 64)
        for s in (plain, shuffled)
    )
    # A pixel's values over all images identify the pixel; some are always 0.
    columns = {column.tobytes(): place for place, column in enumerate(before.T)}
    order = [columns[column.tobytes()] for column in after.T]
    lit = [place for place in order if before[:, place].any()]
    assert sorted(lit) == [place for place in range(64) if before[:, place].any()]
    assert sum(place == old for place, old in enumerate(order)) < 10
    np.testing.assert_array_equal(shuffled.train.labels, plain.train.labels)
    again = data.load_dataset(config)
    np.testing.assert_array_equal(again.test.images, shuffled.test.images)


def test_channels_of_shuffled_pixels_stay_together():
    plain, shuffled = (
        data.load_dataset(Data(dataset=choose("fake"), shuffle_pixels=on)).train.images[0]
        for on in (False, True)
    )
    pixels = [{tuple(pixel) for pixel in image.reshape(64, 3)} for image in (plain, shuffled)]
    assert pixels[0] == pixels[1] and not np.array_equal(plain, shuffled)


def test_pixels_of_streamed_images_cannot_be_shuffled():
    with pytest.raises(UserError, match=r"data\.shuffle_pixels=true: is for data sets"):
        data.load_dataset(Data(shuffle_pixels=True, train_resize=(16,), image_size=16))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_long_tailed_set_has_exponentially_fewer_images_of_later_classes(streamed):
    sizes = {"train_resize": (8,), "image_size": 8} if streamed else {}
    whole = data.load_dataset(Data(**sizes))
    tailed = data.load_dataset(Data(long_tail=100.0, **sizes))
    counts = np.bincount(tailed.train.labels)
    most = int((whole.train.labels == 0).sum())
    assert counts.tolist() == [max(1, int(most * 10 ** (-2 * k / 9))) for k in range(10)]
    assert counts[0] == most and tailed.test.count == whole.test.count
    assert len(tailed.train.images) == counts.sum() if not streamed else tailed.train[0]


@pytest.mark.parametrize(
    "most, ratio, expected",
    [
        (5_000, 100, [5_000, 2_997, 1_796, 1_077, 645, 387, 232, 139, 83, 50]),
        (5_000, 10, [5_000, 3_871, 2_997, 2_320, 1_796, 1_391, 1_077, 834, 645, 500]),
        (98, 49, [98, 2]),
        (50, 100, [50, 5, 1]),  # Half an image would be none: a class keeps at least one.
    ],
)
def test_a_long_tail_has_the_counts_of_the_benchmark(most, ratio, expected):
    """Those of `get_img_num_per_cls` of Cui et al. for CIFAR-10; [98, 2] is exact."""
    labels = np.repeat(np.arange(len(expected)), most)
    kept = alter.choose_tail(labels, len(expected), ratio)
    assert np.bincount(labels[kept]).tolist() == expected


def draw_photograph():
    rng = np.random.default_rng(0)
    smooth = np.stack([scipy.ndimage.gaussian_filter(c, 2) for c in rng.normal(0, 1, (3, 32, 32))])
    noisy = 128 + 300 * smooth + rng.normal(0, 12, (32, 32))
    return np.clip(noisy, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def test_encoding_as_jpeg_degrades_more_at_lower_quality_and_keeps_colors():
    image = draw_photograph()
    errors = {}
    for quality in (20, 75, 95):
        found = alter.encode_as_jpeg(image[None], quality)[0]
        assert found.shape == image.shape and found.dtype == np.uint8
        errors[quality] = np.square(found.astype(float) - image).mean((0, 1))
    assert (errors[20] > errors[75]).all() and (errors[75] > errors[95]).all()
    # Each color stays itself: another channel is farther away.
    found = alter.encode_as_jpeg(image[None], 95)[0]
    distances = np.abs(found[..., None].astype(float) - image[..., None, :]).mean((0, 1))
    np.testing.assert_array_equal(distances.argmin(1), [0, 1, 2])


def test_encoding_as_jpeg_keeps_an_image_of_one_color_to_its_edges():
    image = np.full((1, 12, 12, 3), 200, np.uint8)
    found = alter.encode_as_jpeg(image, 20)
    assert found.min() == found.max()  # What lies around the image has the color of its edge.


def test_a_second_encoding_as_jpeg_changes_the_image_again():
    photograph = draw_photograph()
    once = alter.encode_as_jpeg(photograph[None], 75, margin=0)
    encoded = cv2.imencode(".jpg", photograph[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    np.testing.assert_array_equal(once[0], cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])
    same_blocks = alter.encode_as_jpeg(once, 75, margin=0)
    other_blocks = alter.encode_as_jpeg(once, 75)

    def measure(images):
        return np.square(images.astype(float) - once).mean()

    assert measure(other_blocks) > 10 * measure(same_blocks)
