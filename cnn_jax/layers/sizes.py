"""Input and output sizes of convolutions and poolings."""

from collections.abc import Sequence
from typing import NamedTuple

from cnn_jax.errors import UserError


class Window(NamedTuple):
    """A convolution or pooling along one axis.

    Attributes:
      kernel: Effective size of the kernel, in pixels.
      stride: Distance between windows, in pixels.
      padding: Total padding of both ends, in pixels. For a pooling whose output size is rounded
        up, it is stride - 1.
    """

    kernel: int
    stride: int = 1
    padding: int = 0


def compute_effective_size(kernel: int, dilation: int) -> int:
    """Computes the number of pixels that a dilated kernel spans: k + (k - 1)(d - 1).

    Source: Dumoulin, Visin 2016 (arXiv:1603.07285), Sec. 5.1.

    Args:
      kernel: Size k of the kernel along one axis, in pixels.
      dilation: Distance d between neighboring kernel elements, in pixels.

    Example:
      >>> compute_effective_size(3, dilation=2)
      5
    """
    return kernel + (kernel - 1) * (dilation - 1)


def compute_output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Computes the output size of a convolution or pooling: (n - k + 2p) / s + 1, rounded down.

    All sizes are in pixels along one axis.

    Args:
      size: Input size n.
      kernel: Kernel size before dilation; k is the effective size.
      stride: Stride s.
      padding: Padding p of each side.
      dilation: Dilation of the kernel.

    Raises:
      UserError: If the padded input is smaller than the kernel.

    Example:
      >>> compute_output_size(227, kernel=11, stride=4)  # AlexNet's first layer
      55
      >>> compute_output_size(224, kernel=7, stride=2, padding=3)  # ResNet's
      112
    """
    span = compute_effective_size(kernel, dilation)
    if size + 2 * padding < span:
        raise UserError(
            f"{size} pixels, padded by {padding} on each side, are too few for a kernel that spans"
            f" {span}; the minimum is {max(1, span - 2 * padding)}"
        )
    return (size - span + 2 * padding) // stride + 1


def compute_smallest_side(windows: Sequence[tuple[int, int, int]], side: int = 1) -> int:
    """Computes the smallest input side for which a chain of windows leaves `side` pixels.

    Args:
      windows: A `Window` of each layer, or its values, in order.
      side: Output side, in pixels.

    Example:
      >>> compute_smallest_side([(3, 2, 0), (3, 2, 0)])
      7
    """
    for kernel, stride, padding in reversed(windows):
        side = max(1, (side - 1) * stride + kernel - padding)
    return side
