"""Where a full-size image is cut: pure functions of (rng, size, ...) on the host, which decodes only what is kept.

A box cut out of the original and resized to crop x crop is that crop of the resized image, without the resizing of
what the crop leaves out. The longer side of a scaled image is rounded to whole pixels, as it is where one is made.
"""

import math
from typing import NamedTuple

import numpy as np

Size = tuple[int, int]  # height, width in pixels
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # GoogLeNet, Sec. 6


class Box(NamedTuple):
    """A part of an image, in pixels of the original from its upper left corner; not of whole pixels."""

    top: float
    left: float
    height: float
    width: float


def scaled(size: Size, shorter_side: int) -> Size:
    """The size of an image scaled so that its shorter side is `shorter_side`; the longer is rounded, halves up."""
    height, width = ((2 * side * shorter_side + min(size)) // (2 * min(size)) for side in size)
    return height, width


def scale_jitter(rng: np.random.Generator, size: Size, lo: int, hi: int, crop: int) -> Box:
    """The crop x crop window, at a uniform place, of the image scaled to a shorter side uniform in lo, lo + 1, ... hi.

    lo = hi is a fixed training scale; crop: at most lo (Simonyan and Zisserman 2014, arXiv:1409.1556, Sec. 3.1).
    """
    to = scaled(size, int(rng.integers(lo, hi + 1)))
    return _window(size, to, (rng.integers(to[0] - crop + 1), rng.integers(to[1] - crop + 1)), crop)


def area_and_aspect(rng: np.random.Generator, size: Size) -> Box:
    """A part at a uniform place, of 8% to 100% of the image's area, evenly, and of width / height from 3/4 to 4/3.

    Szegedy et al. 2014, arXiv:1409.4842, Sec. 6, which does not say how the aspect is drawn: here its logarithm is
    uniform over what fits, so that wide and tall parts are alike. Of an image too long to hold all its area in such a
    part, the area is even up to the largest there is.
    """
    height, width = size
    own = width / height
    most = min(AREA[1], ASPECT[1] / own, own / ASPECT[0])
    share = _between(rng, min(AREA[0], most), most)
    aspect = math.exp(_between(rng, *np.log((max(ASPECT[0], share * own), min(ASPECT[1], own / share)))))
    area = share * height * width
    h, w = min(height, math.sqrt(area / aspect)), min(width, math.sqrt(area * aspect))
    return Box(_between(rng, 0, height - h), _between(rng, 0, width - w), h, w)


def centre(size: Size, shorter_side: int, crop: int) -> Box:
    """The middle crop x crop window of the image scaled to the shorter side, which is at least crop."""
    to = scaled(size, shorter_side)
    return _window(size, to, ((to[0] - crop) // 2, (to[1] - crop) // 2), crop)


def _window(size: Size, to: Size, at: tuple[int, int], crop: int) -> Box:
    """The window at the pixel `at` of the image scaled from `size` to `to`, in pixels of the original."""
    (y, x), (top, left) = (np.divide(size, to).tolist(), at)
    return Box(float(top * y), float(left * x), crop * y, crop * x)


def _between(rng: np.random.Generator, lo: float, hi: float) -> float:
    return float(lo + (hi - lo) * rng.random())
