"""Encoded images to pixels, no more of them than are kept: JPEG, PNG and what else OpenCV reads.

Greyscale, CMYK, 16-bit and palette images come out as 8-bit RGB (or grey, as asked); transparency is dropped; EXIF's
rotation is applied. A JPEG is decoded at a half, a quarter or an eighth of its size where that is still as large as
what is asked for, and only the box is resampled: bilinear, after a blur that keeps what shrinks from aliasing. Against
the whole image decoded and resized with Pillow (bilinear, antialiased) pixels differ by 0.4 of 255 on average on
photographs, by 2 at most (the mean over an image); whole images are resized by Pillow itself.
"""

import io
import math

import cv2
import numpy as np
from PIL import Image

from cnn_jax.data.geometry import Box, Size, scaled

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values by which height and width change places
END = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # how a whole file ends
REDUCED = {
    (1, 3): cv2.IMREAD_COLOR,
    (2, 3): cv2.IMREAD_REDUCED_COLOR_2,
    (4, 3): cv2.IMREAD_REDUCED_COLOR_4,
    (8, 3): cv2.IMREAD_REDUCED_COLOR_8,
    (1, 1): cv2.IMREAD_GRAYSCALE,
    (2, 1): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    (4, 1): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    (8, 1): cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


# A triangle as wide as Pillow's, of `scale` pixels each way, has the deviation scale / sqrt(6); bilinear sampling has
# 1 / sqrt(6) of it already. The blur adds the rest, and less than it takes is left out.
SHARE, BLURRED = 1 / math.sqrt(6), 1.15


class BadImage(ValueError):  # noqa: N818  an image is bad, not the program
    """Why an image cannot be decoded, in words that follow its name."""


def size(encoded: bytes) -> Size:
    """Height and width as shown, after EXIF's rotation, from the header alone; raises BadImage."""
    width, height, turned, _ = _header(encoded)
    return (width, height) if turned else (height, width)


def cut(encoded: bytes, box: Box, shape: Size, channels: int = 3) -> np.ndarray:
    """The box, in pixels of the image as shown, resized to uint8 [h, w, channels]; raises BadImage."""
    image, (y, x) = _decoded(encoded, min(box.height / shape[0], box.width / shape[1]), channels)
    box = Box(box.top * y, box.left * x, box.height * y, box.width * x)
    return _resampled(image, box, shape, channels)


def whole(encoded: bytes, shorter_side: int, channels: int = 3) -> np.ndarray:
    """The whole image at this shorter side, uint8 [h, w, channels], resized by Pillow; raises BadImage."""
    own = size(encoded)
    image, _ = _decoded(encoded, min(own) / shorter_side / 2, channels)  # twice as large as needed, for exactness
    shape = scaled(own, shorter_side)
    image = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))
    return _ordered(image, channels)


def _header(encoded: bytes) -> tuple[int, int, bool, str]:
    """(width, height, whether EXIF turns it by 90 degrees, format)."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return *image.size, image.getexif().get(ORIENTATION) in TURNED, image.format
    except Exception:  # Pillow raises all kinds on damaged headers
        raise BadImage("is no image that can be read" if encoded else "is empty") from None


def _decoded(encoded: bytes, shrunk: float, channels: int) -> tuple[np.ndarray, tuple[float, float]]:
    """The image, as shown, at 1, 1/2, 1/4 or 1/8 of its size, but not under 1/shrunk; and what it is scaled by."""
    width, height, turned, kind = _header(encoded)
    # Decoders make the rest of a file that is cut short grey or black, without an error.
    if kind in END and encoded.rfind(END[kind], len(encoded) // 2) < 0:
        raise BadImage("is cut short")
    divided = next(k for k in (8, 4, 2, 1) if k <= max(1, shrunk)) if kind == "JPEG" else 1
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), REDUCED[divided, channels])
    if image is None:
        raise BadImage(f"cannot be decoded, though it begins as a {kind} of {width}x{height}")
    shown = (width, height) if turned else (height, width)
    return image, (image.shape[0] / shown[0], image.shape[1] / shown[1])


def _resampled(image: np.ndarray, box: Box, shape: Size, channels: int) -> np.ndarray:
    y, x = box.height / shape[0], box.width / shape[1]  # pixels of the image to one of the result
    margin = 4
    top, left = (max(0, int(at) - margin) for at in box[:2])
    image = image[top : int(box.top + box.height) + margin, left : int(box.left + box.width) + margin]
    if max(y, x) > BLURRED:
        blur = [SHARE * math.sqrt(max(scale, 1.01) ** 2 - 1) for scale in (x, y)]
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=blur[0], sigmaY=blur[1])
    # Centres of pixels lie at halves.
    back = np.array([[x, 0, box.left - left + (x - 1) / 2], [0, y, box.top - top + (y - 1) / 2]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, back, shape[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE)
    return _ordered(image, channels)


def _ordered(image: np.ndarray, channels: int) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image[..., None]
