"""Decoding against Pillow on photographs and odd images; damaged ones are told."""

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import crops, decode

SAMPLE = sorted(Path(__file__).parents[1].joinpath("../shared/data/imagenet_sample").glob("*/*"))[:30]
WAVES = np.stack(np.broadcast_arrays(*np.sin(np.mgrid[0:60, 0:80] / 9), 0.3), -1)
RGB = np.uint8(127 + 100 * WAVES)


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.skipif(not SAMPLE, reason="wants the sample of ImageNet")
def test_cuts_are_those_of_the_whole_image_resized():
    """Scale jitter from 256 to 512, against Pillow's whole decoding and antialiased bilinear resizing."""
    rng, off = np.random.default_rng(0), []
    for path in SAMPLE:
        file = path.read_bytes()
        image, size = Image.open(path).convert("RGB"), decode.size(file)
        assert size == (image.height, image.width)
        box = crops.scale_jitter(rng, size, 256, 512, 224)
        part = (box.left, box.top, box.left + box.width, box.top + box.height)
        expected = image.resize((224, 224), Image.Resampling.BILINEAR, part)
        off.append(np.abs(np.float32(expected) - decode.cut(file, lambda _, box=box: box, (224, 224))).mean())
    assert np.mean(off) < 0.6 and max(off) < 3


@pytest.mark.skipif(not SAMPLE, reason="wants the sample of ImageNet")
def test_whole_images_have_their_shape():
    for path in SAMPLE[:8]:
        image = Image.open(path).convert("RGB")
        height, width = crops.scaled((image.height, image.width), 256)
        found = decode.whole(path.read_bytes(), 256)
        assert found.shape == (height, width, 3) and min(height, width) == 256
        expected = np.float32(image.resize((width, height), Image.Resampling.BILINEAR))
        assert np.abs(expected - found).mean() < 1


@pytest.mark.parametrize(
    "file, expected",
    [
        (encoded(Image.fromarray(RGB)), RGB),
        (encoded(Image.fromarray(RGB), "JPEG", quality=95), RGB),
        (encoded(Image.fromarray(RGB[..., 0])), RGB[..., :1].repeat(3, -1)),
        (encoded(Image.fromarray(RGB[..., 0]), "JPEG", quality=95), RGB[..., :1].repeat(3, -1)),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB),
        (encoded(Image.fromarray(RGB).quantize(256)), RGB),
        (encoded(Image.fromarray(np.dstack([RGB, RGB[..., 0]]), "RGBA")), RGB),
        (cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), RGB),
    ],
    ids=["png", "jpeg", "grey", "grey jpeg", "cmyk", "palette", "alpha", "16 bits"],
)  # fmt: skip
def test_every_kind_comes_out_alike(file, expected):
    found = decode.cut(file, lambda _: crops.Box(0, 0, 60, 80), (60, 80))
    assert np.abs(found.astype(int) - expected).mean() < 3
    assert decode.cut(file, lambda _: crops.Box(0, 0, 60, 80), (60, 80), channels=1).shape == (60, 80, 1)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str
)
def test_rows_below_the_box_change_nothing(options):
    photo = np.random.default_rng(0).integers(0, 256, (400, 320, 3)) // 4 + np.mgrid[:400, :320, :3][0] // 3
    file = encoded(Image.fromarray(np.uint8(photo)), "JPEG", quality=90, **options)
    for top, divided, channels in itertools.product((0, 37, 150), (1, 2, 4, 8), (3, 1)):
        box, shape = crops.Box(top, 40, 120, 160), (120 // divided, 160 // divided)
        whole, times = decode._decoded(file, decode._header(file), divided, channels)
        assert times == divided
        expected = decode._resampled(whole, crops.Box(*(at / divided for at in box)), shape)
        np.testing.assert_array_equal(decode.cut(file, lambda _, box=box: box, shape, channels), expected)


def test_exif_turns_an_image():
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6  # shown turned to the right
    file = encoded(Image.fromarray(RGB), "JPEG", quality=95, exif=exif.tobytes())
    assert decode.size(file) == (80, 60)
    found = decode.cut(file, lambda _: crops.Box(0, 0, 80, 60), (80, 60))
    assert np.abs(found.astype(int) - np.rot90(RGB, -1)).mean() < 3


def test_an_orientation_that_no_decoder_follows_is_not_followed():
    """XMP's, which Pillow takes for EXIF's where that says nothing of it."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    file = encoded(Image.fromarray(RGB), "JPEG", quality=95, exif=exif.tobytes(), xmp=xmp)
    with Image.open(io.BytesIO(file)) as image:
        assert image.getexif().get(decode.ORIENTATION) == 6
    assert decode.size(file) == (60, 80)
    found = decode.cut(file, lambda _: crops.Box(0, 0, 60, 80), (60, 80))
    assert np.abs(found.astype(int) - RGB).mean() < 3


def test_one_pixel_and_twenty_million():
    small = encoded(Image.new("RGB", (1, 1), (200, 100, 50)))
    np.testing.assert_array_equal(decode.whole(small, 8), np.broadcast_to(np.uint8([200, 100, 50]), (8, 8, 3)))
    large = encoded(Image.new("RGB", (5000, 4000), (200, 100, 50)), "JPEG")
    found = decode.cut(large, lambda _: crops.centre((4000, 5000), 256, 224), (224, 224))
    assert np.abs(found.astype(int) - [200, 100, 50]).max() < 4


def test_damage_inside_is_doubted():
    assert decode.doubt(JPEG) == decode.doubt(encoded(Image.fromarray(RGB))) == ""
    assert decode.doubt(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG")) == ""
    torn = JPEG[: len(JPEG) // 2] + JPEG[-200:]
    assert decode.cut(torn, lambda _: crops.Box(0, 0, 64, 64), (64, 64)).shape == (64, 64, 3)
    assert "Corrupt JPEG data" in decode.doubt(torn)


JPEG = encoded(Image.fromarray(np.uint8(np.random.default_rng(0).integers(0, 256, (64, 64, 3)))), "JPEG")


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
def test_what_cannot_be_decoded_is_told(file, said):
    with pytest.raises(decode.BadImage, match=said):
        decode.cut(file, lambda _: crops.Box(0, 0, 32, 32), (32, 32))
