"""The convolution against XLA's: values, gradients, cases left to XLA, several devices."""

import math
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax.cpu.convolution import IMAGES_PER_CHUNK, conv_general_dilated

NHWC = ("NHWC", "HWIO", "NHWC")
on_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="elsewhere every convolution is XLA's"
)

# height, width, channels, kernel, stride, padding
CASES = {
    "pointwise": (8, 7, 5, 1, 1, "SAME"),
    "pointwise_strided": (7, 8, 5, 1, 2, "SAME"),
    "pointwise_valid": (8, 8, 5, 1, 2, "VALID"),
    "pointwise_padded": (4, 5, 5, 1, 1, ((1, 1), (0, 2))),
    "3x3": (9, 7, 5, 3, 1, "SAME"),
    "3x3_valid": (9, 7, 5, 3, 1, "VALID"),
    "3x3_same_lower": (8, 7, 5, 3, 2, "SAME_LOWER"),
    "3x3_strided": (8, 8, 16, 3, 2, "SAME"),
    "3x3_strided_odd": (9, 7, 5, 3, 2, "SAME"),
    "3x3_strided_valid_remainder": (8, 10, 16, 3, 2, "VALID"),
    "3x3_strided_explicit": (8, 9, 16, 3, 2, ((1, 1), (1, 1))),
    "3x3_strided_cropped": (10, 9, 5, 3, 3, ((0, 2), (-1, 1))),
    "5x5": (8, 8, 5, 5, 1, "SAME"),
    "5x5_explicit": (9, 8, 5, 5, 1, ((2, 2), (2, 2))),
    "one_channel": (9, 8, 1, 5, 1, "SAME"),
    "one_channel_strided": (9, 8, 1, 3, 2, "VALID"),
    "7x7_strided": (15, 14, 3, 7, 2, ((3, 3), (3, 3))),
    "11x11_strided": (27, 27, 3, 11, 4, "VALID"),
    "2x2_map": (2, 2, 5, 3, 1, "SAME"),
    "2x2_map_strided": (2, 2, 5, 3, 2, "SAME"),
    "1x1_map": (1, 1, 5, 3, 1, "SAME"),
    "thin_map": (2, 6, 5, 3, 1, "SAME"),
    "whole_map": (4, 4, 5, 4, 1, "VALID"),
    "128_channels": (4, 4, 128, 3, 1, "SAME"),
    "512_channels": (4, 3, 512, 3, 1, "SAME"),
}


def operands(height, width, channels, kernel, dtype=jnp.float32, batch=2, features=6):
    keys = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(keys[0], (batch, height, width, channels), dtype),
        jax.random.normal(keys[1], (kernel, kernel, channels, features), dtype),
    )


def value_and_gradients(convolve, x, kernel, stride, padding, **options):
    def run(x, k):
        return convolve(x, k, (stride, stride), padding, dimension_numbers=NHWC, **options)

    shape = jax.eval_shape(run, x, kernel).shape
    dy = jnp.cos(jnp.arange(math.prod(shape), dtype=jnp.float32)).reshape(shape)
    # Rounded outside of jit, inside which XLA removes the conversion there and back.
    dy = dy.astype(jnp.bfloat16).astype(x.dtype)

    @jax.jit
    def both(x, kernel, dy):
        y, back = jax.vjp(run, x, kernel)
        return y, *back(dy)

    return both(x, kernel, dy)


def assert_close(got, want, tolerance):
    for name, ours, theirs in zip(
        ("value", "input gradient", "kernel gradient"), got, want, strict=True
    ):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, name
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max(), err_msg=name
        )


def runs_a_kernel(*arguments, **options):
    return "custom_vjp" in str(
        jax.make_jaxpr(lambda x, k: conv_general_dilated(x, k, *arguments[2:], **options))(
            *arguments[:2]
        )
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_value_and_gradients_are_those_of_xla(case):
    *shape, stride, padding = case
    x, kernel = operands(*shape)
    got = value_and_gradients(conv_general_dilated, x, kernel, stride, padding)
    assert_close(
        got, value_and_gradients(lax.conv_general_dilated, x, kernel, stride, padding), 2e-6
    )


@pytest.mark.parametrize("name", ["3x3", "3x3_strided_odd", "7x7_strided"])
@pytest.mark.parametrize("extra", [0, 3])
def test_kernel_gradients_of_many_images_are_summed_in_chunks(name, extra, monkeypatch):
    """With extra images the last chunk is smaller than the others."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    *shape, stride, padding = CASES[name]
    x, kernel = operands(*shape, batch=2 * IMAGES_PER_CHUNK + extra)
    got = value_and_gradients(conv_general_dilated, x, kernel, stride, padding)
    assert_close(
        got, value_and_gradients(lax.conv_general_dilated, x, kernel, stride, padding), 2e-6
    )


@pytest.mark.parametrize("name", ["pointwise", "3x3", "3x3_strided", "2x2_map"])
def test_bfloat16_stays_bfloat16_and_is_as_close_to_float32_as_xla(name):
    *shape, stride, padding = CASES[name]
    x, kernel = operands(*shape, dtype=jnp.bfloat16)
    got = value_and_gradients(conv_general_dilated, x, kernel, stride, padding)
    assert all(a.dtype == jnp.bfloat16 for a in got)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    want = value_and_gradients(lax.conv_general_dilated, *wide, stride, padding)
    assert_close([a.astype(jnp.float32) for a in got], want, 2**-8)


@pytest.mark.parametrize("groups", [2, 4])
def test_towers_are_separate_convolutions(groups):
    x, kernel = operands(7, 6, 8, 3, features=12)
    arguments = x, kernel[:, :, : 8 // groups], 2, ((1, 0), (1, 1))
    got = value_and_gradients(conv_general_dilated, *arguments, feature_group_count=groups)
    want = value_and_gradients(lax.conv_general_dilated, *arguments, feature_group_count=groups)
    assert_close(got, want, 2e-6)


FALL_THROUGH = {
    "depthwise": ((2, 6, 6, 6), (3, 3, 1, 6), dict(feature_group_count=6)),
    "batch_grouped": ((4, 6, 6, 4), (3, 3, 4, 6), dict(batch_group_count=2)),
    "atrous": ((2, 6, 6, 4), (3, 3, 4, 6), dict(rhs_dilation=(2, 2))),
    "transposed": ((2, 6, 6, 4), (3, 3, 4, 6), dict(lhs_dilation=(2, 2))),
    "wider_result": ((2, 6, 6, 4), (3, 3, 4, 6), dict(preferred_element_type=jnp.float64)),
    "channels_first": (
        (2, 4, 6, 6),
        (6, 4, 3, 3),
        dict(dimension_numbers=("NCHW", "OIHW", "NCHW")),
    ),
    "one_dimension": ((2, 6, 4), (3, 4, 6), dict(dimension_numbers=("NWC", "WIO", "NWC"))),
}


@pytest.mark.parametrize("case", FALL_THROUGH.values(), ids=FALL_THROUGH)
def test_other_convolutions_are_xla_s(case):
    x_shape, kernel_shape, options = case
    x, kernel = jnp.ones(x_shape, jnp.float32), jnp.ones(kernel_shape, jnp.float32)
    options = dict(dimension_numbers=NHWC) | options
    if options.get("preferred_element_type"):
        x, kernel, options["preferred_element_type"] = (
            x.astype(jnp.bfloat16),
            kernel.astype(jnp.bfloat16),
            jnp.float32,
        )
    arguments = x, kernel, (1,) * (x.ndim - 2), ((0, 0),) * (x.ndim - 2)
    assert not runs_a_kernel(*arguments, **options)
    got, want = (
        conv_general_dilated(*arguments, **options),
        lax.conv_general_dilated(*arguments, **options),
    )
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@on_cpu
def test_a_plain_convolution_on_cpu_runs_a_kernel():
    assert runs_a_kernel(*operands(6, 6, 4, 3), (1, 1), "SAME", dimension_numbers=NHWC)


@pytest.mark.parametrize("arguments", [((1, 1), "OUTSIDE"), ((1,), "SAME"), ((1, 1), [(1, 1)])])
def test_errors_are_those_of_xla(arguments):
    errors = []
    for convolve in (conv_general_dilated, lax.conv_general_dilated):
        with pytest.raises(Exception) as caught:
            convolve(*operands(6, 6, 4, 3), *arguments, dimension_numbers=NHWC)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_a_kernel_larger_than_its_map_gives_no_outputs():
    x, kernel = operands(2, 2, 4, 5)
    assert conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC).shape == (
        2,
        0,
        0,
        6,
    )


def test_it_works_as_flax_s_conv_general_dilated():
    x, _ = operands(6, 6, 4, 3)
    ours = nn.Conv(8, (3, 3), strides=2, conv_general_dilated=conv_general_dilated)
    theirs = nn.Conv(8, (3, 3), strides=2)
    variables = theirs.init(jax.random.key(1), x)
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), rtol=0, atol=1e-5
    )


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize("name", ["3x3", "3x3_strided", "2x2_map"])
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_batch_split_over_eight_devices_gives_what_one_device_gives(name, parallel):
    *shape, stride, padding = CASES[name]
    x, kernel = operands(*shape, batch=16)

    def run(x, kernel):
        def loss(x, kernel):
            y = conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=NHWC)
            return jnp.sum(jnp.sin(y)), y

        (dx, dkernel), y = jax.grad(loss, (0, 1), has_aux=True)(x, kernel)
        return y, dx, dkernel

    want = jax.jit(run)(x, kernel)
    if parallel == "jit":
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
        split, whole = (
            NamedSharding(mesh, PartitionSpec("batch")),
            NamedSharding(mesh, PartitionSpec()),
        )
        compiled = (
            jax.jit(run, in_shardings=(split, whole), out_shardings=(split, split, whole))
            .lower(x, kernel)
            .compile()
        )
        assert "all-gather" not in compiled.as_text()
        got = compiled(jax.device_put(x, split), jax.device_put(kernel, whole))
    else:

        def one(x, kernel):
            y, dx, dkernel = run(x, kernel)
            return y, dx, lax.psum(dkernel, "batch")

        y, dx, dkernel = jax.pmap(one, axis_name="batch", in_axes=(0, None))(
            x.reshape(8, 2, *x.shape[1:]), kernel
        )
        got = y.reshape(want[0].shape), dx.reshape(want[1].shape), dkernel[0]
    assert_close(got, want, 2e-6)


@pytest.mark.parametrize(
    ("choice", "said"), [("xla", "False"), ("cpu", "True"), ("quick", "CNN_JAX_ROUTES=quick")]
)
def test_the_environment_overrides_the_choice(choice, said):
    code = (
        "import jax, jax.numpy as jnp;"
        "from cnn_jax.cpu.convolution import conv_general_dilated as c;"
        "x = jnp.ones((1, 4, 4, 1)); k = jnp.ones((3, 3, 1, 1));"
        "run = lambda x, k: c(x, k, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'));"
        "print('custom_vjp' in str(jax.make_jaxpr(run)(x, k)))"
    )
    environment = os.environ | {"CNN_JAX_ROUTES": choice, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert said in done.stdout + done.stderr
