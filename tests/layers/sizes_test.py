"""The arithmetic of sizes, against counting."""

import numpy as np
import pytest

from cnn_jax.errors import UserError
from cnn_jax.layers import sizes


def test_the_smallest_side_is_the_first_that_leaves_a_pixel():
    windows = [(11, 4, 0), (3, 2, 0), (5, 1, 4), (3, 2, 1), (4, 3, 2)]

    def output(side):
        for kernel, stride, padding in windows:
            side = (side + padding - kernel) // stride + 1 if side + padding >= kernel else 0
        return side

    assert sizes.compute_smallest_side(windows) == next(
        side for side in range(1, 500) if output(side) >= 1
    )


def test_effective_size():
    assert [
        sizes.compute_effective_size(k, d) for k, d in ((3, 1), (3, 2), (3, 4), (5, 3), (1, 7))
    ] == [
        3,
        5,
        9,
        13,
        1,
    ]


def test_output_size_counts_the_positions_of_the_kernel():
    for size, kernel, stride, padding, dilation in np.ndindex(9, 4, 3, 3, 3):
        size, kernel, stride, dilation = size + 1, kernel + 1, stride + 1, dilation + 1
        last = (kernel - 1) * dilation  # Offsets of the kernel's pixels.
        places = [i for i in range(-padding, size + padding, stride) if i + last < size + padding]
        if places:
            assert sizes.compute_output_size(size, kernel, stride, padding, dilation) == len(places)
        else:
            with pytest.raises(
                UserError, match=f"spans {last + 1}; the minimum is {last + 1 - 2 * padding}"
            ):
                sizes.compute_output_size(size, kernel, stride, padding, dilation)
