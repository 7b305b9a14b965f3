"""Encoded images to pixels, no more of them than are kept: JPEG, PNG and what else OpenCV reads.

Greyscale, CMYK, 16-bit and palette images come out as 8-bit RGB (or grey, as asked); transparency is dropped; EXIF's
rotation is applied. Of a JPEG the rows below the box are not decoded, and the others at a half, a quarter or an eighth
of their size where that is still as large as what is asked for. Only the box is resampled: bilinear, after a blur that
keeps what shrinks from aliasing. Against the whole image decoded and resized with Pillow (bilinear, antialiased) pixels
of 224 x 224 crops of ImageNet's photographs differ by 0.6 of 255 on average under scale jitter in [256; 512], by 0.9
under crops of any area, in a crop of finest detail by 6; of 64 x 64 crops at S = 74, where JPEG's own scaling does most
of it, by 2. Whole images are resized by Pillow itself.
"""

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from cnn_jax.data.crops import Box, Size, scaled_size
from cnn_jax.data.resample import resample

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values by which height and width change places
END = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # how a whole file ends
FRAMES = (0xC0, 0xC1, 0xC2)  # JPEG's markers before height and width: baseline, extended, progressive
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

MARGIN = 4  # pixels beyond the box that are kept


class BadImage(ValueError):  # noqa: N818  an image is bad, not the program
    """Why an image cannot be decoded, in words that follow its name."""


class Header(NamedTuple):
    """What an encoded image says of itself: its size as shown, its format, and whether EXIF leaves it as it is.

    frame: where in an upright JPEG the marker stands that its height follows; 0: it is none.
    """

    height: int
    width: int
    kind: str
    frame: int = 0


def read_size(encoded: bytes) -> Size:
    """Height and width as shown, after EXIF's rotation, from the header alone; raises BadImage."""
    return _header(encoded)[:2]


def decode_crop(
    encoded: bytes | np.ndarray, box: Callable[[Size], Box], shape: Size, channels: int = 3
) -> np.ndarray:
    """The box, in pixels of the image as shown, resized to uint8 [h, w, channels]; raises BadImage.

    box: tells it from the image's height and width.
    """
    if isinstance(encoded, np.ndarray):
        return resample(encoded, box(encoded.shape[:2]), shape)
    header = _header(encoded)
    box = box(header[:2])
    y, x = box.height / shape[0], box.width / shape[1]
    image, times = _decoded(encoded, header, min(y, x), channels, box.top + box.height)
    return _resampled(image, Box(*(at / times for at in box)), shape)


def decode_resized(
    encoded: bytes | np.ndarray, shorter_side: int, channels: int = 3
) -> np.ndarray:
    """The whole image at this shorter side, uint8 [h, w, channels], resized by Pillow; raises BadImage."""
    if isinstance(encoded, np.ndarray):
        size = encoded.shape[:2]
        return resample(encoded, Box(0, 0, *size), scaled_size(size, shorter_side))
    header = _header(encoded)
    own = header[:2]
    image, _ = _decoded(encoded, header, min(own) / shorter_side / 2, channels)  # twice as large as needed: exact
    image = Image.fromarray(image).resize(scaled_size(own, shorter_side)[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def find_decoder_warning(encoded: bytes) -> str:
    """What the decoder says of a JPEG that it can read but for something, such as damage inside; empty: nothing.

    Of sixteen bytes overwritten in the middle it notices about half the cases.
    """
    if not _header(encoded).frame:
        return ""
    colors = simplejpeg.decode_jpeg_header(encoded, strict=False)[2]
    try:
        simplejpeg.decode_jpeg(encoded, "CMYK" if colors in ("CMYK", "YCCK") else "GRAY")
        return ""
    except ValueError as error:
        return str(error)


def _header(encoded: bytes) -> Header:
    at = 2 if encoded[:2] == b"\xff\xd8" else len(encoded)
    while encoded[at : at + 1] == b"\xff":  # a JPEG's segments; Pillow takes ten times as long, and reads all others
        if encoded[at + 1] in FRAMES:
            height, width = (int.from_bytes(encoded[at + k : at + k + 2]) for k in (5, 7))
            if height and width:
                return Header(height, width, "JPEG", at)
            break
        if encoded[at + 4 : at + 8] == b"Exif" and _orientation(encoded) != 1:
            break
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4])
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            turned = _exif(image).get(ORIENTATION) in TURNED
            return Header(*(image.size if turned else image.size[::-1]), image.format)
    except Exception:  # Pillow raises all kinds on damaged headers
        raise BadImage("is no image that can be read" if encoded else "is empty") from None


def _orientation(encoded: bytes) -> int:
    """EXIF's, 1: as it is; 0: it cannot be read."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return _exif(image).get(ORIENTATION, 1)
    except Exception:
        return 0


def _exif(image: Image.Image) -> Image.Exif:
    exif = Image.Exif()  # Pillow's getexif takes XMP's orientation too, which decoders do not
    exif.load(image.info.get("exif", b""))
    return exif


def _decoded(
    encoded: bytes, header: Header, shrunk: float, channels: int, bottom: float = math.inf
) -> tuple[np.ndarray, int]:
    """(image as shown [H, W, 3], or [H, W] if grey, k): at 1/k of its size, k = 1, 2, 4 or 8, but not under 1/shrunk.

    bottom: what lies below this row need not be there.
    """
    # Decoders make the rest of a file that is cut short grey or black, without an error.
    if header.kind in END and encoded.rfind(END[header.kind], len(encoded) // 2) < 0:
        raise BadImage("is cut short")
    divided = next(k for k in (8, 4, 2, 1) if k <= max(1, shrunk)) if header.kind == "JPEG" else 1
    if header.frame:
        try:
            rows = math.ceil(min(header.height, bottom + MARGIN * divided))
            return _rows(encoded, rows, header, divided, channels), divided
        except ValueError:  # CMYK, or worse
            pass
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), REDUCED[divided, channels])
    if image is None or image.shape[:2] != tuple(-(-side // divided) for side in header[:2]):
        raise BadImage(f"cannot be decoded, though it begins as a {header.kind} of {header.width}x{header.height}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image, divided


def _rows(encoded: bytes, rows: int, header: Header, divided: int, channels: int) -> np.ndarray:
    """The first rows of an upright JPEG at 1/divided of its size; raises ValueError.

    The decoder is shown a file that says it is so high, and stops there: those that take a part of an image do no more.
    """
    at = header.frame + 5
    encoded = encoded[:at] + rows.to_bytes(2) + encoded[at + 2 :]
    least = {"min_height": -(-rows // divided), "min_width": -(-header.width // divided), "min_factor": divided}
    # Not strict, or it would object to what follows those rows.
    image = simplejpeg.decode_jpeg(encoded, "RGB" if channels == 3 else "GRAY", **least, strict=False)
    return image if channels == 3 else image[..., 0]


def _resampled(image: np.ndarray, box: Box, shape: Size) -> np.ndarray:
    y, x = box.height / shape[0], box.width / shape[1]  # pixels of the image to one of the result
    top, left = (max(0, int(at) - MARGIN) for at in box[:2])
    image = image[top : int(box.top + box.height) + MARGIN, left : int(box.left + box.width) + MARGIN]
    if max(y, x) > BLURRED:
        blur = [SHARE * math.sqrt(max(scale, 1.01) ** 2 - 1) for scale in (x, y)]
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=blur[0], sigmaY=blur[1])
    # Centres of pixels lie at halves.
    back = np.array([[x, 0, box.left - left + (x - 1) / 2], [0, y, box.top - top + (y - 1) / 2]])
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    if image.ndim == 2:
        return cv2.warpAffine(image, back, shape[::-1], **how)[..., None]
    # Four channels take OpenCV half the time of three.
    return cv2.cvtColor(
        cv2.warpAffine(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), back, shape[::-1], **how), cv2.COLOR_RGBA2RGB
    )
