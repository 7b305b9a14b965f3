"""What is read from a compiled program: collectives, sizes, layers, loops, memory traffic."""

import jax
import jax.numpy as jnp
import pytest

from cnn_jax.cost import hlo

HLO = """
HloModule jit_step, is_scheduled=true

%region_0 (a: f32[], b: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %add.1 = f32[] add(%x, %x)
}

ENTRY %main (x: f32[8,16]) -> f32[8,16] {
  %x = f32[8,16]{1,0} parameter(0), metadata={op_name="all-reduce(%x)"}
  %y = bf16[10]{0} fusion(%x), kind=kLoop, calls=%fused
  %all-reduce.3 = (f32[8,16]{1,0}, /*index=1*/bf16[10]{0}) all-reduce(%x, %y), \
channel_id=1, to_apply=%region_0
  %get-tuple-element.7 = f32[8,16]{1,0} get-tuple-element(%all-reduce.3), index=0
  %gather = f32[4,8,16]{2,1,0:T(8,128)} all-gather(%get-tuple-element.7), dimensions={0}
  %start = f32[8,16]{1,0} all-reduce-start(%x), channel_id=2, to_apply=%region_0
  %done = f32[8,16]{1,0} all-reduce-done(%start)
  ROOT %scattered = f32[2,16]{1,0} reduce-scatter(f32[8,16]{1,0} %done), \
dimensions={0}, to_apply=%region_0
}
"""


def test_collectives_are_counted_with_the_bytes_of_their_operands():
    assert hlo.count_collectives(HLO) == {
        "all-reduce": (2, 512 + 20 + 512),
        "all-gather": (1, 512),
        "reduce-scatter": (1, 512),
    }


@pytest.mark.parametrize(
    "shape, size",
    [("f32[]", 4), ("pred[3]", 3), ("(u8[2]{0}, s4[3]{0})", 4), ("f8e4m3fn[7]", 7), ("c64[2]", 16)],
)
def test_size_of_a_shape(shape, size):
    assert hlo.count_bytes(shape) == size


def test_layers_are_read_with_their_operation():
    found = hlo.find_origins(HLO)
    assert found["x"] == ("parameter", "all-reduce(%x)") and found["scattered"] == (
        "reduce-scatter",
        "",
    )


def text_of(function, *shapes):
    return (
        jax.jit(function)
        .lower(*(jax.ShapeDtypeStruct(s, "float32") for s in shapes))
        .compile()
        .as_text()
    )


def test_loops_are_detected():
    def looped(x):
        return jax.lax.fori_loop(0, jnp.int32(x.sum()), lambda _, x: x * 2, x)

    assert hlo.has_loop(text_of(looped, (4,))) and not hlo.has_loop(text_of(lambda x: x * 2, (4,)))


TRAFFIC = """
HloModule m

%fused (p0: f32[1000,8], p1: s32[4]) -> f32[4,8] {
  %p0 = f32[1000,8]{1,0} parameter(0)
  %p1 = s32[4]{0} parameter(1)
  ROOT %g = f32[4,8]{1,0} gather(%p0, %p1), offset_dims={1}
}

%body (t: (f32[64])) -> (f32[64]) {
  %t = (f32[64]{0}) parameter(0)
  %e = f32[64]{0} get-tuple-element(%t), index=0
  %d = f32[64]{0} add(%e, %e)
  ROOT %r = (f32[64]{0}) tuple(%d)
}

%condition (c: (f32[64])) -> pred[] {
  %c = (f32[64]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (a: f32[64], b: f32[64], table: f32[1000,8], rows: s32[4]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  %b = f32[64]{0:S(1)} parameter(1)
  %table = f32[1000,8]{1,0} parameter(2)
  %rows = s32[4]{0} parameter(3)
  %sum = f32[64]{0} add(%a, %b)
  %few = f32[4,8]{1,0} fusion(%table, %rows), kind=kLoop, calls=%fused
  %start = (f32[64]{0}) tuple(%sum)
  %loop = (f32[64]{0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = f32[64]{0} get-tuple-element(%loop), index=0
}
"""


def test_traffic_leaves_out_fast_memory_and_rows_not_looked_up_and_repeats_loops():
    add = 256 + 256  # a is read and the sum written; b lies in the chip's own memory, S(1)
    rows = 4 * 8 * 4 + 4 * 4 + 4 * 8 * 4  # four rows and their numbers are read, four rows written
    loop = 3 * (256 + 256 + 256)
    assert hlo.count_traffic(TRAFFIC) == add + rows + loop
