"""Headers: sizes and ends of files; any bytes give an image or BadImage."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import crops, decode, headers

FOLDER = Path(__file__).parents[1] / "testdata" / "images"
FILES = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.jpg"))}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


PNG = encoded(NOISE)
OTHERS = {kind: encoded(NOISE, kind) for kind in ("BMP", "GIF", "WEBP", "TIFF", "PPM")}


def decode_image(file):
    size = headers.read_size(file)
    return decode.decode_crop(file, lambda _: crops.Box(0, 0, *size), (24, 32))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("after", [b"", b"\0", b"\0" * 50_000, b"motion photo" * 10_000, b"\xff"])
def test_bytes_after_the_end_of_a_jpeg_change_nothing(name, after):
    np.testing.assert_array_equal(decode_image(FILES[name] + after), decode_image(FILES[name]))


def test_a_jpeg_without_its_end_marker_is_complete():
    assert b"\xff\xd9" not in FILES["no_end_marker"]
    assert decode_image(FILES["no_end_marker"]).shape == (24, 32, 3)
    for name in ("baseline_420", "grey", "progressive", "restart_markers"):
        file = FILES[name]
        assert file.endswith(b"\xff\xd9")
        np.testing.assert_array_equal(decode_image(file[:-2]), decode_image(file))
        with pytest.raises(headers.BadImage, match="is cut short"):
            decode_image(file[: len(file) * 9 // 10])


def test_a_jpeg_truncated_after_its_thumbnail_is_recognized():
    exif = Image.Exif()
    exif[0x010F] = "maker"
    thumbnail = encoded(NOISE.resize((16, 16)), "JPEG")
    block = exif.tobytes() + thumbnail  # Readers find it by offsets, which are not followed here.
    file = encoded(NOISE, "JPEG", exif=block, quality=95)
    assert decode_image(file).shape == (24, 32, 3)
    cut = file[: file.index(b"\xff\xda", file.index(thumbnail) + len(thumbnail)) + 40]
    assert thumbnail in cut and cut.rfind(b"\xff\xd9") > len(cut) // 4
    with pytest.raises(headers.BadImage, match="is cut short"):
        decode_image(cut)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_make_a_bad_image(kind):
    block = b"Exif\0\0no TIFF header"
    file, plain = (encoded(NOISE, kind, **options) for options in ({"exif": block}, {}))
    assert block[6:] in file
    assert headers.read_size(file) == (48, 64)
    np.testing.assert_array_equal(decode_image(file), decode_image(plain))


def test_the_end_of_a_png_is_found_from_its_chunks():
    np.testing.assert_array_equal(decode_image(PNG + b"more" * len(PNG)), decode_image(PNG))
    with pytest.raises(headers.BadImage, match="is cut short"):
        decode_image(PNG[: len(PNG) // 2] + b"IEND" * 3)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_truncated_files_are_recognized(kind):
    assert decode_image(OTHERS[kind]).shape == (24, 32, 3)
    with pytest.raises(headers.BadImage):
        decode_image(OTHERS[kind][: len(OTHERS[kind]) // 2])


def change_claimed_size(file, height, width):
    """Returns a JPEG or PNG whose header claims another size."""
    if file.startswith(headers.PNG_START):
        chunk = b"IHDR" + struct.pack(">II", width, height) + file[24:29]
        return file[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + file[33:]
    at = headers.read_header(file).frame + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


@pytest.mark.parametrize("file", [FILES["baseline_420"], PNG], ids=["jpeg", "png"])
@pytest.mark.parametrize("size", [(13_500, 13_500), (65_500, 65_500)], ids=str)
def test_a_huge_image_gives_the_reason_and_the_remedy_at_once(file, size):
    began = time.perf_counter()
    with pytest.raises(
        headers.BadImage, match=f"{size[1]}x{size[0]} pixels, more than the .*scale"
    ):
        decode_image(change_claimed_size(file, *size))
    assert time.perf_counter() - began < 0.1


def test_a_long_image_is_not_scaled_to_more_pixels_than_are_decoded():
    with pytest.raises(headers.BadImage, match=r"scaled to the shorter side 256 has .* pixels"):
        decode.decode_resized(encoded(Image.new("RGB", (20_000, 1))), 256)


def test_a_jpeg_of_three_bytes_is_bad():
    for length in range(40):
        with pytest.raises(headers.BadImage):
            headers.read_size(FILES["baseline_420"][:length])


def test_any_bytes_give_an_image_or_bad_image(monkeypatch):
    """1,200 damaged files: flipped bits, overwritten and cut parts, repeated parts. Seeded."""
    monkeypatch.setattr(headers, "MAX_PIXELS", 10**6)  # Larger claimed sizes take too long.
    rng = np.random.default_rng(0)
    files = [*FILES.values(), PNG, *OTHERS.values()]
    outcomes = {"image": 0, "bad": 0}
    began, tried = time.perf_counter(), 0
    while tried < 1200 and time.perf_counter() - began < 4.5:
        file, tried = bytearray(files[tried % len(files)]), tried + 1
        # Headers are short, and damage matters most there.
        end = len(file) if rng.random() < 0.3 else min(len(file), 700)
        kind, at = rng.integers(5), int(rng.integers(end))
        if kind == 0:
            del file[at:]
        elif kind == 1:
            file[at : at + 4] = rng.bytes(4)
        elif kind == 2:
            file[at] ^= 1 << rng.integers(8)
        elif kind == 3:
            file[at:at] = file[: int(rng.integers(100))]
        else:
            del file[at : at + int(rng.integers(1, 20))]
        for read in (
            decode_image,
            headers.find_decoder_warning,
            lambda f: decode.decode_resized(f, 16),
        ):
            try:
                read(bytes(file))
                outcomes["image"] += 1
            except headers.BadImage:
                outcomes["bad"] += 1
    assert tried > 150 and min(outcomes.values()) > 100
