"""Decodes images: JPEG, PNG and whatever else OpenCV reads.

Gray, CMYK, 16-bit and palette images become 8-bit RGB, or gray on request. Transparency is dropped,
and EXIF's rotation is applied.

There are two ways. Evaluation decodes the whole image and scales it with Pillow (antialiased;
bilinear, or bicubic where public weights want that): `decode_resized`, from which `decode_windows`
cuts. The pixels are those of Pillow's own decoding and scaling, except for CMYK, which OpenCV
converts to RGB with another rounding.

Training decodes only what it keeps: `decode_crop`. It does not decode the rows of a JPEG below the
box, and decodes the others at a half, a quarter or an eighth of their size if that is still as
large as the result. Only the box is resampled: bilinear, after a blur that prevents aliasing where
it shrinks. Compared with the first way, 224 x 224 crops of ImageNet's photographs differ by 0.6
of 255 on average under scale jitter in [256; 512], by 0.9 under crops of any area, by 1.4 at S =
256, where all are shrunk (by 4.7 in the worst of 125 photographs), and by 6 in a crop of finest
detail; 64 x 64 crops at S = 74, where JPEG's own scaling does most of the work, by 2.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from cnn_jax.data.base import Encoded
from cnn_jax.data.crops import Box, Size, compute_scaled_size
from cnn_jax.data.headers import (
    DECODER_ERRORS,
    BadImage,
    Header,
    check_complete,
    check_pixels,
    read_header,
)
from cnn_jax.data.resample import resample
from cnn_jax.optional_packages import lazy_import

if TYPE_CHECKING:
    import cv2
    import simplejpeg
else:
    cv2 = lazy_import("cv2")
    simplejpeg = lazy_import("simplejpeg")

Interpolation = Literal["bilinear", "bicubic"]  # Pillow's, antialiased.
# OpenCV's name for decoding at 1/k of the size to so many channels.
REDUCED = {
    (1, 3): "IMREAD_COLOR",
    (2, 3): "IMREAD_REDUCED_COLOR_2",
    (4, 3): "IMREAD_REDUCED_COLOR_4",
    (8, 3): "IMREAD_REDUCED_COLOR_8",
    (1, 1): "IMREAD_GRAYSCALE",
    (2, 1): "IMREAD_REDUCED_GRAYSCALE_2",
    (4, 1): "IMREAD_REDUCED_GRAYSCALE_4",
    (8, 1): "IMREAD_REDUCED_GRAYSCALE_8",
}
# A triangle as wide as Pillow's, of `scale` pixels each way, has the deviation scale / sqrt(6);
# bilinear sampling has 1 / sqrt(6) of it already. The blur adds the rest. For scales below
# MIN_BLUR_SCALE it would add less than it costs.
TRIANGLE, MIN_BLUR_SCALE = 1 / math.sqrt(6), 1.15
MARGIN = 4  # Pixels around the box that are decoded too, for the blur.


def decode_crop(
    encoded: Encoded,
    box: Callable[[Size], Box],
    shape: Size,
    channels: int = 3,
) -> np.ndarray:
    """Decodes and resizes a part of an image, approximately and fast, for training.

    Args:
      encoded: A file's bytes, or uint8 [H, W, C].
      box: Gives the part, in pixels of the image as shown, from the image's height and width.
      shape: (h, w) of the result.
      channels: 3: RGB; 1: gray; an array keeps its own.

    Returns:
      uint8 [h, w, channels].

    Raises:
      BadImage: If the bytes cannot be decoded.
    """
    if isinstance(encoded, np.ndarray):
        return resample(encoded, box(encoded.shape[:2]), shape)
    header = read_header(encoded)
    part = box(header.size)
    shrink = min(part.height / shape[0], part.width / shape[1])
    image, divisor = _decode(encoded, header, shrink, channels, part.top + part.height)
    return _blur_and_sample(image, Box(*(at / divisor for at in part)), shape)


def decode_resized(
    encoded: Encoded,
    shorter_side: int,
    channels: int = 3,
    max_pixels: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Decodes a whole image and scales it to a shorter side.

    Args:
      encoded: A file's bytes, or uint8 [H, W, C].
      shorter_side: The shorter side of the result, in pixels.
      channels: 3: RGB; 1: gray; an array keeps its own.
      max_pixels: The largest number of pixels of the result; None: `headers.MAX_PIXELS`.
      interpolation: bilinear or bicubic, antialiased.

    Returns:
      uint8 [h, w, channels].

    Raises:
      BadImage: If the bytes cannot be decoded, or the result is too large.
    """
    if isinstance(encoded, np.ndarray):
        size: Size = encoded.shape[:2]
        shape = _compute_scaled_shape(size, shorter_side, max_pixels)
        if interpolation == "bilinear":
            return resample(encoded, Box(0, 0, *size), shape)
        channels = encoded.shape[-1]
        image = encoded[..., 0] if channels == 1 else encoded
    else:
        header = read_header(encoded)
        shape = _compute_scaled_shape(header.size, shorter_side, max_pixels)
        image, _ = _decode(encoded, header, 1, channels)
    filter = Image.Resampling[interpolation.upper()]
    resized = Image.fromarray(image).resize(shape[::-1], filter)
    return np.array(resized).reshape(*shape, channels)


def _compute_scaled_shape(size: Size, shorter_side: int, max_pixels: int | None) -> Size:
    """Returns the size of the scaled image; raises BadImage if it is too large."""
    shape = compute_scaled_size(size, shorter_side)
    check_pixels(shape, f"scaled to the shorter side {shorter_side} has", max_pixels)
    return shape


def decode_windows(
    encoded: Encoded,
    shorter_side: int,
    corners: Callable[[Size], Sequence[tuple[int, int]]],
    side: int,
    channels: int = 3,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Cuts squares out of the image that `decode_resized` returns, as evaluation does.

    Args:
      encoded: A file's bytes, or uint8 [H, W, C].
      shorter_side: Shorter side to which the image is scaled, in pixels.
      corners: Gives the upper left corner of each window from the scaled image's size.
      side: Side of a window, in pixels.
      channels: As in `decode_resized`.
      interpolation: As in `decode_resized`.

    Returns:
      uint8 [windows, side, side, channels].

    Raises:
      BadImage: If the bytes cannot be decoded, or the scaled image is too large.
    """
    image = decode_resized(encoded, shorter_side, channels, interpolation=interpolation)
    places = corners(image.shape[:2])
    return np.stack([image[top : top + side, left : left + side] for top, left in places])


def find_center(size: Size, side: int) -> list[tuple[int, int]]:
    """Returns the upper left corner of the center window, as a list of one item."""
    return [((size[0] - side) // 2, (size[1] - side) // 2)]


def _decode(
    encoded: bytes, header: Header, shrink: float, channels: int, bottom: float = math.inf
) -> tuple[np.ndarray, int]:
    """Decodes an image, and a JPEG possibly at reduced size.

    Args:
      encoded: The file.
      header: Its header.
      shrink: The factor by which it will be shrunk. A JPEG is decoded at 1/k of its size, for the
        largest k of 1, 2, 4 and 8 up to this.
      channels: 3 or 1.
      bottom: Rows below this one are not needed.

    Returns:
      ([H, W, 3], or [H, W] if gray, as shown; k).
    """
    check_complete(encoded, header)
    divisor = 1
    if header.kind == "JPEG":
        divisor = next(k for k in (8, 4, 2, 1) if k <= max(1, shrink))
    if header.frame:
        rows = math.ceil(min(header.height, bottom + MARGIN * divisor))
        try:
            return _decode_rows(encoded, rows, header, divisor, channels), divisor
        except DECODER_ERRORS:  # CMYK, or worse.
            pass
    try:
        mode = getattr(cv2, REDUCED[divisor, channels])
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), mode)
    except (cv2.error, MemoryError):
        image = None
    expected = tuple(-(-side // divisor) for side in header.size)
    if image is None or image.shape[:2] != expected:
        raise BadImage(
            f"cannot be decoded, though it begins as a {header.kind} of"
            f" {header.width}x{header.height}"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image, divisor


def _decode_rows(
    encoded: bytes, rows: int, header: Header, divisor: int, channels: int
) -> np.ndarray:
    """Decodes the first rows of an upright JPEG at 1/divisor of its size; raises ValueError.

    The decoder gets a file whose header claims this height, and stops there.
    """
    if rows < header.height:
        at = header.frame + 5
        encoded = encoded[:at] + rows.to_bytes(2) + encoded[at + 2 :]
    image = simplejpeg.decode_jpeg(
        encoded,
        "RGB" if channels == 3 else "GRAY",
        min_height=-(-rows // divisor),
        min_width=-(-header.width // divisor),
        min_factor=divisor,
        strict=False,  # It would complain about the data after those rows.
    )
    return image if channels == 3 else image[..., 0]


def _blur_and_sample(image: np.ndarray, box: Box, shape: Size) -> np.ndarray:
    """Returns the box of the image [H, W, 3] or [H, W] as [h, w, C], bilinear after a blur."""
    # Pixels of the image per pixel of the result.
    y, x = box.height / shape[0], box.width / shape[1]
    top, left = (max(0, int(at) - MARGIN) for at in box[:2])
    bottom, right = int(box.top + box.height) + MARGIN, int(box.left + box.width) + MARGIN
    image = image[top:bottom, left:right]
    if max(y, x) > MIN_BLUR_SCALE:
        blur = [TRIANGLE * math.sqrt(max(scale, 1.01) ** 2 - 1) for scale in (x, y)]
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=blur[0], sigmaY=blur[1])
    # Centers of pixels lie at halves.
    back = np.array([[x, 0, box.left - left + (x - 1) / 2], [0, y, box.top - top + (y - 1) / 2]])
    options: dict[str, Any] = {
        "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        "borderMode": cv2.BORDER_REPLICATE,
    }
    if image.ndim == 2:
        return cv2.warpAffine(image, back, shape[::-1], **options)[..., None]
    # Four channels take OpenCV half the time of three.
    image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    return cv2.cvtColor(cv2.warpAffine(image, back, shape[::-1], **options), cv2.COLOR_RGBA2RGB)
