"""Decoding compared with Pillow on photographs and unusual images; damaged ones are refused."""

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from cnn_jax.data import crops, decode, headers

FOLDER = Path(__file__).parents[1] / "testdata" / "images"
# Two of the ten committed files do not end as a JPEG should; the others are complete.
WHOLE = sorted(
    path for path in FOLDER.glob("*.jpg") if path.stem not in ("trailing_bytes", "no_end_marker")
)
WAVES = np.stack(np.broadcast_arrays(*np.sin(np.mgrid[0:60, 0:80] / 9), 0.3), -1)
RGB = np.uint8(127 + 100 * WAVES)
GRAY = RGB[..., :1].repeat(3, -1)


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decode_by_pillow(path):
    """Returns the image as Pillow decodes and rotates it."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image.convert("RGB"))


def measure_displacement(found, expected):
    """Returns the displacement (down, right) of `found` from `expected` in pixels, to first order.

    The difference of two images is their displacement times the gradient, plus an unrelated part;
    least squares separate the two.
    """
    found, expected = np.float64(found), np.float64(expected)
    slopes = np.stack([slope.ravel() for slope in np.gradient(expected, axis=(0, 1))], -1)
    return np.linalg.lstsq(slopes, (expected - found).ravel(), rcond=None)[0]


def test_there_are_eight_test_images():
    assert len(WHOLE) == 8


@pytest.mark.parametrize(
    "sides, crop", [((96, 96), 96), ((64, 64), 56), ((128, 256), 96), ((240, 480), 128)], ids=str
)
@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_crops_equal_those_of_the_resized_image(path, sides, crop):
    """Scale jitter against Pillow's whole decoding and antialiased bilinear resizing.

    The largest differences over all files and sides are 1.3 of 255 in one cut, and 0.044 pixels. An
    error of half a pixel of the file moves the cut by at least 0.13 pixels at these sides.
    """
    file, image = path.read_bytes(), decode_by_pillow(path)
    size, rng = headers.read_size(file), np.random.default_rng(0)
    assert size == (image.height, image.width)
    for _ in range(6):
        box = crops.draw_scale_jitter(rng, size, *sides, crop)
        part = (box.left, box.top, box.left + box.width, box.top + box.height)
        expected = np.float32(image.resize((crop, crop), Image.Resampling.BILINEAR, part))
        found = decode.decode_crop(file, lambda _, box=box: box, (crop, crop))
        assert np.abs(expected - found).mean() < 1.6
        assert np.abs(measure_displacement(found, expected)).max() < 0.08


@pytest.mark.parametrize("side", [64, 96, 150])
@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_decoded_images_have_their_shape(path, side):
    """The pixels are Pillow's, except for CMYK, which OpenCV rounds differently."""
    image = decode_by_pillow(path)
    height, width = crops.compute_scaled_size((image.height, image.width), side)
    found = decode.decode_resized(path.read_bytes(), side)
    assert found.shape == (height, width, 3) and min(height, width) == side
    expected = np.float32(image.resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(expected - found).mean() < (1.2 if path.stem == "cmyk" else 0.1)
    assert np.abs(measure_displacement(found, expected)).max() < 0.01


# The bounds are the measured differences and a little more; those of 0 are exact. Half a pixel is
# 1.13.
@pytest.mark.parametrize(
    "file, expected, bound",
    [
        (encoded(Image.fromarray(RGB)), RGB, 0),
        (encoded(Image.fromarray(RGB), "JPEG", quality=95), RGB, 1.05),
        (encoded(Image.fromarray(RGB[..., 0])), GRAY, 0),
        (encoded(Image.fromarray(RGB[..., 0]), "JPEG", quality=95), GRAY, 0.2),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB, 1.1),
        (encoded(Image.fromarray(RGB).quantize(256)), RGB, 2.2),
        (encoded(Image.fromarray(np.dstack([RGB, RGB[..., 0]]), "RGBA")), RGB, 0),
        (cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), RGB, 0),
    ],
    ids=["png", "jpeg", "gray", "gray jpeg", "cmyk", "palette", "alpha", "16 bits"],
)
def test_every_kind_decodes_to_the_same_pixels(file, expected, bound):
    """RGB and gray: within 1 of Pillow's conversion of the expected pixels, besides the bound."""
    box = crops.Box(0, 0, 60, 80)
    found = decode.decode_crop(file, lambda _: box, (60, 80))
    assert np.abs(found.astype(int) - expected).mean() <= bound
    assert np.abs(measure_displacement(found, expected)).max() < 0.05
    gray = decode.decode_crop(file, lambda _: box, (60, 80), channels=1)
    assert gray.shape == (60, 80, 1)
    assert (
        np.abs(gray[..., 0] - np.float32(Image.fromarray(expected).convert("L"))).mean()
        <= min(bound, 1) + 1
    )


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str
)
def test_rows_below_the_box_change_nothing(options):
    photo = (
        np.random.default_rng(0).integers(0, 256, (400, 320, 3)) // 4
        + np.mgrid[:400, :320, :3][0] // 3
    )
    file = encoded(Image.fromarray(np.uint8(photo)), "JPEG", quality=90, **options)
    for top, divided, channels in itertools.product((0, 37, 150), (1, 2, 4, 8), (3, 1)):
        box, shape = crops.Box(top, 40, 120, 160), (120 // divided, 160 // divided)
        whole, times = decode._decode(file, headers.read_header(file), divided, channels)
        assert times == divided
        expected = decode._blur_and_sample(whole, crops.Box(*(at / divided for at in box)), shape)
        np.testing.assert_array_equal(
            decode.decode_crop(file, lambda _, box=box: box, shape, channels), expected
        )


def test_exif_turns_an_image():
    exif = Image.Exif()
    exif[headers.ORIENTATION] = 6  # Displayed rotated to the right.
    file = encoded(Image.fromarray(RGB), "JPEG", quality=95, exif=exif.tobytes())
    assert headers.read_size(file) == (80, 60)
    found = decode.decode_crop(file, lambda _: crops.Box(0, 0, 80, 60), (80, 60))
    assert np.abs(found.astype(int) - np.rot90(RGB, -1)).mean() < 1.05


def test_an_orientation_that_other_decoders_ignore_is_ignored():
    """That of XMP, which Pillow uses if EXIF has none."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
        b' tiff:Orientation="6"/>'
    )
    file = encoded(Image.fromarray(RGB), "JPEG", quality=95, exif=exif.tobytes(), xmp=xmp)
    with Image.open(io.BytesIO(file)) as image:
        assert image.getexif().get(headers.ORIENTATION) == 6
    assert headers.read_size(file) == (60, 80)
    found = decode.decode_crop(file, lambda _: crops.Box(0, 0, 60, 80), (60, 80))
    assert np.abs(found.astype(int) - RGB).mean() < 1.05


def test_one_pixel_and_twenty_million():
    small = encoded(Image.new("RGB", (1, 1), (200, 100, 50)))
    np.testing.assert_array_equal(
        decode.decode_resized(small, 8), np.broadcast_to(np.uint8([200, 100, 50]), (8, 8, 3))
    )
    large = encoded(Image.new("RGB", (5000, 4000), (200, 100, 50)), "JPEG")
    found = decode.decode_crop(
        large, lambda _: crops.compute_center_box((4000, 5000), 256, 224), (224, 224)
    )
    assert np.abs(found.astype(int) - [200, 100, 50]).max() < 4


def test_damage_inside_an_image_gives_a_warning():
    assert (
        headers.find_decoder_warning(JPEG)
        == headers.find_decoder_warning(encoded(Image.fromarray(RGB)))
        == ""
    )
    assert headers.find_decoder_warning(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG")) == ""
    torn = JPEG[: len(JPEG) // 2] + JPEG[-200:]
    assert decode.decode_crop(torn, lambda _: crops.Box(0, 0, 64, 64), (64, 64)).shape == (
        64,
        64,
        3,
    )
    assert "Corrupt JPEG data" in headers.find_decoder_warning(torn)


def test_a_file_with_unsupported_chroma_is_decoded():
    """Cyan at full and the others at half size: OpenCV decodes it, libjpeg-turbo's API does not."""
    file = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", subsampling="4:2:0")
    assert decode.decode_crop(file, lambda _: crops.Box(0, 0, 60, 80), (60, 80)).shape == (
        60,
        80,
        3,
    )
    assert headers.find_decoder_warning(file) == ""


JPEG = encoded(
    Image.fromarray(np.uint8(np.random.default_rng(0).integers(0, 256, (64, 64, 3)))), "JPEG"
)


@pytest.mark.parametrize(
    "file, said",
    [
        (b"", "is empty"),
        (b"no image", "no image that can be read"),
        (JPEG[: len(JPEG) * 2 // 3], "cut short"),
        (encoded(Image.fromarray(RGB))[:-20], "cut short"),
    ],
    ids=["empty", "text", "jpeg", "png"],
)
def test_files_that_cannot_be_decoded_are_refused(file, said):
    with pytest.raises(headers.BadImage, match=said):
        decode.decode_crop(file, lambda _: crops.Box(0, 0, 32, 32), (32, 32))


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_windows_are_cut_from_the_resized_image(path):
    whole = decode.decode_resized(path.read_bytes(), 74)
    places = [(0, 0), (3, 5), *decode.find_center(whole.shape, 64)]
    found = decode.decode_windows(path.read_bytes(), 74, lambda size: places, 64)
    assert found.shape == (3, 64, 64, 3)
    for window, (top, left) in zip(found, places, strict=True):
        np.testing.assert_array_equal(window, whole[top : top + 64, left : left + 64])


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_small_scales_are_resized_from_the_full_image(path):
    """At a quarter of the size; decoding at reduced size would differ by 1 on average."""
    image = decode_by_pillow(path)
    side = min(image.size) // 4
    found = decode.decode_resized(path.read_bytes(), side)
    expected = image.resize(found.shape[1::-1], Image.Resampling.BILINEAR)
    if path.stem != "cmyk":
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [20, 50])  # Smaller and larger.
def test_images_are_scaled_as_pillow_scales_them(interpolation, side):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    size = (round(side * 40 / 30), side)
    method = Image.Resampling[interpolation.upper()]
    expected = np.array(Image.fromarray(pixels).resize(size, method))
    options = {"interpolation": interpolation}
    found = decode.decode_resized(encoded(Image.fromarray(pixels)), side, **options)
    np.testing.assert_array_equal(found, expected)
    difference = np.abs(decode.decode_resized(pixels, side, **options).astype(int) - expected)
    # Bilinear, arrays are not rounded between the axes as Pillow does.
    assert difference.max() <= (1 if interpolation == "bilinear" else 0)
