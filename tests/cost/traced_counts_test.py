"""Counts of traced programs; `summary_test.py` compares them with the sums of layers."""

from cnn_jax import models
from cnn_jax.cost.traced_counts import count_multiply_adds


def test_a_scan_counts_every_repetition():
    counts = {
        count_multiply_adds(models.create("resnet32", 10, scan_min_blocks=blocks), (32, 32, 3))
        for blocks in (2, 100)
    }
    assert counts == {68_862_592}
