"""Reads the headers of encoded images: their size, and whether they are complete.

For any bytes, the result is a value or a BadImage.
"""

import io
import re
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from cnn_jax.data.crops import Size
from cnn_jax.optional_packages import lazy_import

if TYPE_CHECKING:
    import simplejpeg
else:
    simplejpeg = lazy_import("simplejpeg")

MAX_PIXELS = 178_956_970  # Largest image that is decoded: Pillow's bound, 512 MiB as RGB.
ORIENTATION = 0x0112  # EXIF's tag.
TURNED = (5, 6, 7, 8)  # Its values by which height and width change places.
# What else OpenCV reads, by Pillow's names.
OTHERS = ("BMP", "DIB", "GIF", "JPEG2000", "PPM", "TIFF", "WEBP")
JPEG_START, JPEG_END, PNG_START = b"\xff\xd8", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
# Markers of JPEG. Height and width follow the marker of a frame. BARE markers have no length.
FRAMES = (0xC0, 0xC1, 0xC2)  # Baseline, extended, progressive.
SCAN, END = 0xDA, 0xD9
BARE = (0x01, *range(0xD0, 0xD9))
DECODER_ERRORS = (ValueError, LookupError, RuntimeError, MemoryError)  # Errors of simplejpeg.
# In a scan, a marker is 0xFF followed by neither a zero, which encodes 0xFF itself, nor a restart.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class BadImage(ValueError):  # noqa: N818  An image is bad, not the program.
    """Why an image cannot be decoded, in words that follow its name."""


class Header(NamedTuple):
    """The header of an encoded image.

    Attributes:
      height: As shown, after EXIF's rotation.
      width: As shown, after EXIF's rotation.
      kind: Pillow's name of the format, such as JPEG or PNG.
      frame: Position of the frame's marker in an upright JPEG; 0: the image is no upright JPEG.
    """

    height: int
    width: int
    kind: str
    frame: int = 0

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width


def read_size(encoded: bytes) -> Size:
    """Returns height and width as shown, after EXIF's rotation, from the header alone.

    Raises:
      BadImage: If the bytes are no image, or one of too many pixels.
    """
    return read_header(encoded).size


def read_header(encoded: bytes) -> Header:
    """Returns the header of an encoded image.

    Raises:
      BadImage: If the bytes are no image, or one of too many pixels.
    """
    if not encoded:
        raise BadImage("is empty")
    # Pillow takes ten times as long as our own reading of a JPEG; it reads all others.
    header = _read_jpeg_header(encoded) or _read_other_header(encoded)
    check_pixels(header.size)
    return header


def check_pixels(size: Size, what: str = "has", limit: int | None = None) -> None:
    """Raises BadImage if an image of this size would take too much memory.

    Args:
      size: (height, width).
      what: Begins the message.
      limit: The largest number of pixels; None: MAX_PIXELS.
    """
    height, width = size
    limit = MAX_PIXELS if limit is None else min(limit, MAX_PIXELS)
    if height * width > limit:
        raise BadImage(
            f"{what} {width}x{height} pixels, more than the {limit:,} that are decoded: scale or"
            " crop it with another program"
        )


def check_complete(encoded: bytes, header: Header) -> None:
    """Raises BadImage if the file is truncated: decoders would fill the rest without an error.

    Bytes after the end are accepted, and so is a JPEG that lacks only its end marker. A progressive
    JPEG that ends between two of its scans cannot be distinguished from a complete one.
    """
    if header.kind == "PNG":
        complete = _is_complete_png(encoded)
    elif header.kind in ("JPEG", "MPO"):
        complete = encoded.endswith(JPEG_END) or _is_complete_jpeg(encoded, header.frame)
    else:
        complete = header.kind not in OTHERS or _is_complete_for_pillow(encoded)
    if not complete:
        raise BadImage("is cut short")


def _read_jpeg_header(encoded: bytes) -> Header | None:
    """Returns the header of an upright JPEG; None: Pillow has to look at it."""
    at = 2 if encoded.startswith(JPEG_START) else len(encoded)
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        if encoded[at + 1] in FRAMES:
            height = int.from_bytes(encoded[at + 5 : at + 7])
            width = int.from_bytes(encoded[at + 7 : at + 9])
            return Header(height, width, "JPEG", at) if height and width else None
        if encoded[at + 4 : at + 8] == b"Exif" and _read_orientation(encoded) != 1:
            return None
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4])
    return None


def _read_other_header(encoded: bytes) -> Header:
    if encoded.startswith(PNG_START):  # Pillow refuses a large one, and does not say its size.
        width, height = (int.from_bytes(encoded[at : at + 4]) for at in (16, 20))
        check_pixels((height, width), "claims")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
            if _find_orientation(image) in TURNED:
                width, height = height, width
            kind = image.format or ""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        remedy = "scale it down with another program"
        raise BadImage(f"has too many pixels: {error}; {remedy}") from None
    except Exception:  # Pillow raises many kinds on damaged headers.
        raise BadImage("is no image that can be read") from None
    if not (height > 0 and width > 0):
        raise BadImage(f"is an image of {width}x{height} pixels")
    return Header(height, width, kind)


def _read_orientation(encoded: bytes) -> int:
    """Returns EXIF's orientation; 1: as it is; 0: it cannot be read."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return _find_orientation(image)
    except Exception:  # As above.
        return 0


def _find_orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation; 1, as it is, if EXIF is damaged, as decoders take it."""
    exif = Image.Exif()  # Pillow's getexif takes XMP's orientation too, which decoders do not.
    try:
        exif.load(image.info.get("exif", b""))
        return exif.get(ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds here too.
        return 1


def _is_complete_jpeg(encoded: bytes, at: int) -> bool:
    """Returns whether a JPEG has all its data: from `at`, a marker, or from its start."""
    at = at or 2
    while at < len(encoded):
        found = NEXT_MARKER.search(encoded, at)
        if found is None:
            break
        at, marker = found.start(), encoded[found.start() + 1]
        if marker == END:
            return True
        at += 2 if marker in BARE else 2 + int.from_bytes(encoded[at + 2 : at + 4])
    # With an end marker the decoder objects only if data are missing.
    return "premature end" not in _find_warning(encoded + JPEG_END).casefold()


def _find_warning(encoded: bytes) -> str:
    """Returns the first warning of libjpeg while it decodes; empty: none, or an unknown form."""
    try:
        colors = simplejpeg.decode_jpeg_header(encoded, strict=False)[2]
    except DECODER_ERRORS:
        return ""
    try:
        simplejpeg.decode_jpeg(encoded, "CMYK" if colors in ("CMYK", "YCCK") else "GRAY")
        return ""
    except DECODER_ERRORS as error:
        return str(error)


def find_decoder_warning(encoded: bytes) -> str:
    """Returns the decoder's warning about a JPEG that it can read, such as one with damage inside.

    The decoder notices about half of the files with sixteen overwritten bytes in the middle.

    Args:
      encoded: The file.

    Returns:
      The warning; empty: there is none, or the image is no JPEG.

    Raises:
      BadImage: If the bytes are no image.
    """
    return _find_warning(encoded) if read_header(encoded).kind in ("JPEG", "MPO") else ""


def _is_complete_png(encoded: bytes) -> bool:
    at = len(PNG_START)
    while at + 8 <= len(encoded):
        if encoded[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(encoded[at : at + 4])
    return False


def _is_complete_for_pillow(encoded: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
    except Exception as error:  # What else is wrong, the decoder may be able to read.
        return "truncated" not in str(error)
    return True
