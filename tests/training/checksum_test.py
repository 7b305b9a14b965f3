"""Checksums by hand, and their change with every single bit."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.training import checksum


def test_a_checksum_is_the_sum_of_words_times_odd_numbers():
    tree = {"a": jnp.array([[1, 2], [3, 4]], jnp.int32), "b": {"c": jnp.array(1.0, jnp.float32)}}
    assert checksum.compute(tree)() == {"a": 1 + 2 * 3 + 3 * 5 + 4 * 7, "b/c": 0x3F800000}
    assert checksum.compute({"a": jnp.array([-1, -1], jnp.int32)})() == {"a": -4 % 2**32}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_every_flipped_bit_changes_the_checksum(dtype):
    x = np.asarray(jnp.arange(5).astype(dtype))
    whole, raw = checksum.compute([jnp.asarray(x)])()["0"], x.tobytes()
    for bit in range(len(raw) * 8) if dtype != "bool" else range(0, len(raw) * 8, 8):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        assert (
            checksum.compute([jnp.asarray(np.frombuffer(bytes(damaged), x.dtype))])()["0"] != whole
        )
