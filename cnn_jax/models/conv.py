"""The convolution under every net: XLA's own, except on CPU, where the same values are computed by faster routes."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.config import UserError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Operands = tuple[jax.Array, jax.Array]

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
_CHOICE = os.environ.get("CNN_JAX_CONV", "")
if _CHOICE not in ("", "xla", "fast"):
    raise UserError(f"CNN_JAX_CONV={_CHOICE}: set it to xla (plain XLA) or fast (our routes), or unset it.")


def convolution(
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
    """`lax.conv_general_dilated`: the same arguments, values (to rounding) and errors; pass it to flax's `nn.Conv`.

    On CPU, convolutions of [N, H, W, C] with [h, w, C, O], neither grouped nor dilated, take the routes of this
    module; they differentiate once, in reverse mode only. All others, and all on GPU and TPU, are XLA's. The
    environment variable CNN_JAX_CONV, read at import, overrides the choice: `xla` or `fast`.
    """
    strides = tuple(window_strides)
    fast = _CHOICE == "fast" or (not _CHOICE and jax.default_backend() == "cpu")
    fast = (
        fast
        and lhs.ndim == 4
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _NHWC
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and feature_group_count == batch_group_count == 1
        and preferred_element_type is None
        and lhs.dtype == rhs.dtype
        and lhs.shape[3] == rhs.shape[2]
        and len(strides) == 2
    )
    if fast:
        pads = padding
        if isinstance(padding, str):
            pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
        pads = tuple((int(before), int(after)) for before, after in pads)
        sizes = zip(lhs.shape[1:3], pads, rhs.shape[:2], strict=False)
        if len(pads) == 2 and all(n + sum(p) >= k for n, p, k in sizes):
            return _fast(lhs, rhs, strides, pads, precision)
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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _fast(x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, precision: Any) -> jax.Array:
    if not _dots(x, kernel):
        return _xla(x, kernel, strides, pads, precision)
    columns = _columns(x, kernel.shape, strides, pads)
    return lax.dot_general(columns, kernel.reshape(-1, kernel.shape[3]), (((3,), (0,)), ((), ())), precision)


def _fast_fwd(x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, precision: Any) -> tuple[jax.Array, Operands]:
    return _fast(x, kernel, strides, pads, precision), (x, kernel)


def _fast_bwd(strides: Pair, pads: Pads, precision: Any, saved: Operands, dy: jax.Array) -> Operands:
    x, kernel = saved
    h, w, channels, features = kernel.shape
    # Without this fence XLA computes the whole elementwise chain behind x and dy again inside the transposition for
    # the kernel gradient.
    x, dy = lax.optimization_barrier((x, dy))

    if strides == (1, 1) and not _dots(x, kernel):
        (dx,) = jax.linear_transpose(lambda x: _xla(x, kernel, strides, pads, precision), x)(dy)
    else:
        # At least float32, as up to h * w of these are summed into one place.
        wide = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
        rows = kernel.reshape(-1, features)
        dcolumns = lax.dot_general(dy, rows, (((3,), (1,)), ((), ())), precision, preferred_element_type=wide)
        scatter = jax.linear_transpose(
            lambda x: _columns(x, kernel.shape, strides, pads), jax.ShapeDtypeStruct(x.shape, wide)
        )
        dx = scatter(dcolumns)[0].astype(x.dtype)

    if h * w == 1 or channels >= 128 or (strides != (1, 1) and channels >= 16):
        dy = dy.reshape(-1, features)
        taps = [tap.reshape(-1, channels) for tap in _taps(x, kernel.shape, strides, pads)]
        dots = [lax.dot_general(tap, dy, (((0,), (0,)), ((), ())), precision) for tap in taps]
        dkernel = jnp.stack(dots).reshape(kernel.shape)
    else:
        (dkernel,) = jax.linear_transpose(lambda k: _xla(x, k, strides, pads, precision), kernel)(dy)
    return dx, dkernel


_fast.defvjp(_fast_fwd, _fast_bwd)


def _dots(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether a matrix product beats XLA's convolution: pointwise, a map smaller than the kernel, many channels."""
    h, w, channels, _ = kernel.shape
    return h * w == 1 or x.shape[1] < h or x.shape[2] < w or channels >= 512


def _xla(x: jax.Array, kernel: jax.Array, strides: Pair, pads: Pads, precision: Any) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_NHWC, precision=precision)


def _columns(x: jax.Array, kernel_shape: tuple[int, ...], strides: Pair, pads: Pads) -> jax.Array:
    """The input under each output, [N, H', W', h * w * C]: im2col."""
    return lax.concatenate(_taps(x, kernel_shape, strides, pads), 3)


def _taps(x: jax.Array, kernel_shape: tuple[int, ...], strides: Pair, pads: Pads) -> list[jax.Array]:
    """What each tap of the kernel sees of the padded input: h * w arrays [N, H', W', C], row by row."""
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))
    h, w = kernel_shape[:2]
    rows, columns = x.shape[1] - h + 1, x.shape[2] - w + 1
    return [
        lax.slice(x, (0, i, j, 0), (x.shape[0], i + rows, j + columns, x.shape[3]), (1, *strides, 1))
        for i in range(h)
        for j in range(w)
    ]
