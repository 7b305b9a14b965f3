"""Crops of full-size images: pure functions of (rng, size, ...) on the host.

Cutting a box out of the original and resizing it to crop x crop gives that crop of the resized
image, without resizing the rest. The longer side of a scaled image is rounded to whole pixels, as
in an image that is really resized.
"""

import math
from typing import NamedTuple

import numpy as np

from cnn_jax.config import Data
from cnn_jax.errors import UserError

Size = tuple[int, int]  # Height and width in pixels.
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # GoogLeNet, Sec. 6.


class Box(NamedTuple):
    """A part of an image, in pixels from its upper left corner, fractions included."""

    top: float
    left: float
    height: float
    width: float


def compute_scaled_size(size: Size, shorter_side: int) -> Size:
    """Returns the size of an image scaled to a shorter side; the longer side is rounded, halves up.

    Example:
      >>> compute_scaled_size((600, 800), 256)
      (256, 341)
    """
    height, width = ((2 * side * shorter_side + min(size)) // (2 * min(size)) for side in size)
    return height, width


def draw_scale_jitter(rng: np.random.Generator, size: Size, lo: int, hi: int, crop: int) -> Box:
    """Draws a crop x crop window of the image scaled to a random shorter side.

    Source: Simonyan and Zisserman 2014 (arXiv:1409.1556), Sec. 3.1. lo = hi is a fixed training
    scale.

    Args:
      rng: Draws the scale first, then the position.
      size: Size of the original.
      lo: The smallest shorter side. The shorter side is uniform in lo, lo + 1, ... hi.
      hi: The largest shorter side.
      crop: Side of the window, at most lo.
    """
    to = compute_scaled_size(size, int(rng.integers(lo, hi + 1)))
    corner = (int(rng.integers(to[0] - crop + 1)), int(rng.integers(to[1] - crop + 1)))
    return _find_window(size, to, corner, crop)


def draw_inception_crop(rng: np.random.Generator, size: Size) -> Box:
    """Draws a window of 8% to 100% of the image's area and of width / height from 3/4 to 4/3.

    Source: Szegedy et al. 2014 (arXiv:1409.4842), Sec. 6, which does not state the distribution of
    the aspect ratio. Here its logarithm is uniform over the values that fit, so that wide and tall
    windows are equally likely. If no such window covers the area of a long image, the area is
    uniform up to the largest that fits.

    Args:
      rng: Draws the area, the aspect ratio and the position, in this order.
      size: Size of the original.
    """
    height, width = size
    own = width / height
    most = min(AREA[1], ASPECT[1] / own, own / ASPECT[0])
    share = _draw_uniform(rng, min(AREA[0], most), most)
    least, largest = np.log((max(ASPECT[0], share * own), min(ASPECT[1], own / share)))
    aspect = math.exp(_draw_uniform(rng, least, largest))
    area = share * height * width
    h, w = min(height, math.sqrt(area / aspect)), min(width, math.sqrt(area * aspect))
    return Box(_draw_uniform(rng, 0, height - h), _draw_uniform(rng, 0, width - w), h, w)


def compute_center_box(size: Size, shorter_side: int, crop: int) -> Box:
    """Returns the center crop x crop window of a scaled image, as a part of the original.

    Args:
      size: Size of the original.
      shorter_side: Shorter side of the scaled image, in pixels; at least `crop`.
      crop: Side of the window, in pixels of the scaled image.
    """
    to = compute_scaled_size(size, shorter_side)
    return _find_window(size, to, ((to[0] - crop) // 2, (to[1] - crop) // 2), crop)


def choose_eval_side(data: Data) -> int:
    """Returns the shorter side to which test images are scaled, in pixels.

    It is data.eval_resize, or if that is 0 the mean of the training images' shorter sides. VGG's
    paper calls it Q (Simonyan and Zisserman 2014, Sec. 3.2).
    """
    return data.eval_resize or (data.train_resize[0] + data.train_resize[-1]) // 2


def check_sizes(data: Data) -> None:
    """Raises UserError if the sizes of full-size images are missing or do not fit together."""
    sides, crop = data.train_resize, data.image_size
    if not crop:
        raise UserError(
            f"data set {data.name}: data.image_size must be set to the side of the square that is"
            " cut out of each image"
        )
    if not 1 <= len(sides) <= 2 or sides[0] > sides[-1]:
        raise UserError(
            f"data.train_resize={list(sides)}: must be one side, or the smallest and largest"
        )
    if sides[0] < crop:
        raise UserError(
            f"data.image_size={crop} is larger than data.train_resize={sides[0]}, from which it is"
            " cut"
        )
    if (q := choose_eval_side(data)) < crop:
        raise UserError(
            f"data.eval_resize={q} is smaller than data.image_size={crop}, which is cut from it"
        )


def _find_window(size: Size, to: Size, corner: tuple[int, int], crop: int) -> Box:
    """Returns the window at `corner` of the image scaled from `size` to `to`, in the original."""
    (y, x), (top, left) = (np.divide(size, to).tolist(), corner)
    return Box(float(top * y), float(left * x), crop * y, crop * x)


def _draw_uniform(rng: np.random.Generator, lo: float, hi: float) -> float:
    return float(lo + (hi - lo) * rng.random())
