"""The arithmetic of sizes: what convolutions and poolings leave of a side, and what they need."""

from collections.abc import Sequence
from typing import NamedTuple

from cnn_jax.errors import UserError


class Window(NamedTuple):
    """A convolution or pooling along one axis.

    Attributes:
      kernel: Pixels that it spans.
      stride: The step between windows, in pixels.
      padding: Pixels of both ends together. A pooling whose size is rounded up counts as padded
        by stride - 1.
    """

    kernel: int
    stride: int = 1
    padding: int = 0


def effective_size(kernel: int, dilation: int) -> int:
    """Pixels that a dilated kernel spans: k + (k - 1)(d - 1).

    Source: Dumoulin, Visin 2016 (arXiv:1603.07285), Sec. 5.1.

    Args:
      kernel: Its own pixels k along one axis.
      dilation: d; d - 1 zeros lie between neighboring pixels.

    Example:
      >>> effective_size(3, dilation=2)
      5
    """
    return kernel + (kernel - 1) * (dilation - 1)


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Pixels that a convolution or pooling leaves: (n - k + 2p) / s + 1, rounded down.

    Args:
      size: Pixels n of the input along one axis.
      kernel: Pixels of the kernel; k is its effective size.
      stride: s.
      padding: p, on each side.
      dilation: Of the kernel.

    Raises:
      UserError: if no pixel is left.

    Example:
      >>> output_size(227, kernel=11, stride=4)  # AlexNet's first layer
      55
      >>> output_size(224, kernel=7, stride=2, padding=3)  # ResNet's
      112
    """
    span = effective_size(kernel, dilation)
    if size + 2 * padding < span:
        raise UserError(
            f"{size} pixels, padded by {padding} on each side, are too few for a kernel that spans"
            f" {span}; the fewest are {max(1, span - 2 * padding)}"
        )
    return (size - span + 2 * padding) // stride + 1


def smallest_side(windows: Sequence[tuple[int, int, int]], side: int = 1) -> int:
    """The smallest input side from which a chain of windows still leaves `side` pixels.

    Example:
      >>> smallest_side([(3, 2, 0), (3, 2, 0)])
      7
    """
    for kernel, stride, padding in reversed(windows):
        side = max(1, (side - 1) * stride + kernel - padding)
    return side
