"""The convolution that all layers use: XLA's, or on a CPU the faster kernels of this module.

The kernels compute the same values up to rounding. Shapes: x [N, H, W, C], kernel [h, w, C, O].
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.cpu import switch

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Operands = tuple[jax.Array, jax.Array]

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
# A convolution of at most this many groups is split into one convolution per group, because XLA's
# gradients of grouped convolutions take 10 times as long.
MAX_GROUPS = 4
# The kernel gradient of two or more times as many images is computed in chunks of this many, which
# fit into a core's cache.
IMAGES_PER_CHUNK = 16


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """Computes `lax.conv_general_dilated`, with the same arguments and errors.

    On a CPU, convolutions of [N, H, W, C] with [h, w, C, O], of at most MAX_GROUPS groups and
    without dilation, run the kernels of this module, which are differentiable in reverse mode only.
    All others, and all on GPU and TPU, are XLA's. Flax's `nn.Conv` accepts this function as its
    argument `conv_general_dilated`.
    """
    strides = tuple(window_strides)
    has_kernel = (
        switch.are_kernels_enabled(lhs)
        and lhs.ndim == 4
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _NHWC
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and 1 <= feature_group_count <= MAX_GROUPS
        and batch_group_count == 1
        and preferred_element_type is None
        and lhs.dtype == rhs.dtype
        and lhs.shape[3] == rhs.shape[2] * feature_group_count
        and rhs.shape[3] % feature_group_count == 0
        and len(strides) == 2
    )
    if has_kernel:
        pairs = (
            lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
            if isinstance(padding, str)
            else padding
        )
        pads = tuple((int(before), int(after)) for before, after in pairs)
        sizes = zip(lhs.shape[1:3], pads, rhs.shape[:2], strict=False)
        if len(pads) == 2 and all(n + sum(p) >= k for n, p, k in sizes):
            groups = zip(
                _split(lhs, feature_group_count), _split(rhs, feature_group_count), strict=True
            )
            outputs = [_convolve(x, kernel, strides, pads, precision) for x, kernel in groups]
            return outputs[0] if len(outputs) == 1 else lax.concatenate(outputs, 3)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        batch_group_count,
        precision,
        preferred_element_type,
    )


def _split(x: jax.Array, parts: int) -> list[jax.Array]:
    return [x] if parts == 1 else jnp.split(x, parts, 3)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, precision: Any
) -> jax.Array:
    if not _is_small(x, kernel):
        return _call_xla(x, kernel, strides, pads, precision)
    columns = _cut_columns(x, kernel.shape, strides, pads)
    rows = kernel.reshape(-1, kernel.shape[3])
    return lax.dot_general(columns, rows, (((3,), (0,)), ((), ())), precision)


def _convolve_forward(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, precision: Any
) -> tuple[jax.Array, Operands]:
    return _convolve(x, kernel, strides, pads, precision), (x, kernel)


def _convolve_backward(
    strides: Pair, pads: Pads, precision: Any, saved: Operands, dy: jax.Array
) -> Operands:
    x, kernel = saved
    # Without this barrier XLA computes the elementwise operations that lead to x and dy again
    # inside the transposition for the kernel gradient.
    x, dy = lax.optimization_barrier((x, dy))
    pointwise = kernel.shape[:2] == (1, 1)
    if strides == (1, 1) and not pointwise and not _is_small(x, kernel):
        convolve = partial(
            _call_xla, kernel=kernel, strides=strides, pads=pads, precision=precision
        )
        (dx,) = jax.linear_transpose(convolve, x)(dy)
    else:
        dx = _scatter_input_gradient(x, kernel, dy, strides, pads, precision)

    # With few values under an output im2col's product is fast; with one channel writing its
    # columns, value by value, is not.
    few = kernel.shape[2] > 1 and math.prod(kernel.shape[:3]) < 64
    if pointwise or _is_small(x, kernel) or few:
        columns = lax.optimization_barrier(_cut_columns(x, kernel.shape, strides, pads))
        dkernel = _multiply_columns(columns, dy, precision)
    else:
        dkernel = _correlate(x, dy, kernel.shape, strides, pads, precision)
    return dx, dkernel.reshape(kernel.shape)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _is_small(x: jax.Array, kernel: jax.Array) -> bool:
    """Returns whether the map is smaller than the kernel; XLA is up to 100 times slower then."""
    return x.shape[1] < kernel.shape[0] or x.shape[2] < kernel.shape[1]


def _call_xla(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, precision: Any
) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=_NHWC, precision=precision
    )


def _scatter_input_gradient(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Pair, pads: Pads, precision: Any
) -> jax.Array:
    """Computes the input gradient: one matrix product, then a sum of its columns into pixels."""
    # At least float32, because up to h * w values are summed into one pixel.
    wide = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
    rows = kernel.reshape(-1, kernel.shape[3])
    dcolumns = lax.dot_general(
        dy, rows, (((3,), (1,)), ((), ())), precision, preferred_element_type=wide
    )
    (dx,) = jax.linear_transpose(
        lambda x: _cut_columns(x, kernel.shape, strides, pads), jax.ShapeDtypeStruct(x.shape, wide)
    )(dcolumns)
    return dx.astype(x.dtype)


def _multiply_columns(columns: jax.Array, dy: jax.Array, precision: Any) -> jax.Array:
    """Computes the kernel gradient [h * w * C, O] as one product of im2col's columns with dy."""
    columns, dy = columns.reshape(-1, columns.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return lax.dot_general(columns, dy, (((0,), (0,)), ((), ())), precision)


def _correlate(
    x: jax.Array,
    dy: jax.Array,
    kernel_shape: tuple[int, ...],
    strides: Pair,
    pads: Pads,
    precision: Any,
) -> jax.Array:
    """Computes the kernel gradient [h, w * C, O] as a convolution that is fast on CPUs.

    dy is the kernel, and images take the place of input channels, so that the convolution sums over
    them. The columns and channels of x are merged into one dimension of size W * C, along which dy
    is dilated by C. The output then has w * C columns, enough to fill the vector registers; in
    XLA's own form it has only w.
    """
    height, width, channels = x.shape[1:]
    h, w = kernel_shape[:2]
    # The padding is negative if the stride leaves unused pixels at the end.
    ends = [
        (outputs - 1) * stride + size - full - before
        for outputs, stride, size, full, (before, _) in zip(
            dy.shape[1:3], strides, (h, w), (height, width), pads, strict=True
        )
    ]
    padding = ((pads[0][0], ends[0]), (pads[1][0] * channels, ends[1] * channels))

    def correlate(x: jax.Array, dy: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x.transpose(1, 2, 3, 0).reshape(1, height, width * channels, -1),
            dy.transpose(1, 2, 0, 3),
            (1, 1),
            padding,
            rhs_dilation=(strides[0], strides[1] * channels),
            dimension_numbers=_NHWC,
            precision=precision,
        )

    size = IMAGES_PER_CHUNK if switch.are_chunks_enabled() else len(x)
    count = len(x) // size
    if count < 2:
        return correlate(x, dy)
    # In a loop, the compiler translates the code of a chunk once.
    whole = count * size
    chunks = [part[:whole].reshape(count, size, *part.shape[1:]) for part in (x, dy)]
    zeros = jnp.zeros((1, h, w * channels, dy.shape[3]), x.dtype)
    total, _ = lax.scan(lambda sum_, chunk: (sum_ + correlate(*chunk), None), zeros, chunks)
    return total if whole == len(x) else total + correlate(x[whole:], dy[whole:])


def _cut_columns(
    x: jax.Array, kernel_shape: tuple[int, ...], strides: Pair, pads: Pads
) -> jax.Array:
    """Returns the input patch of each output pixel, [N, H', W', h * w * C] (im2col)."""
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))
    h, w = kernel_shape[:2]
    rows, columns = x.shape[1] - h + 1, x.shape[2] - w + 1
    taps = [
        lax.slice(
            x, (0, i, j, 0), (x.shape[0], i + rows, j + columns, x.shape[3]), (1, *strides, 1)
        )
        for i in range(h)
        for j in range(w)
    ]
    return lax.concatenate(taps, 3)
