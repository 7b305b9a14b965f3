"""The order of images: recorded values, and a different order for each (seed, epoch)."""

import numpy as np
import pytest

from cnn_jax.data.sampler import balance_epoch, shuffle_epoch

RECORDED = (
    [2, 4, 3, 6, 5, 0, 1, 7],
    [1, 7, 4, 0, 2, 6, 3, 5],
    [5, 3, 2, 4, 4, 0, 1, 3, 3],
)
LABELS = np.array([0, 0, 0, 1, 2, 2])


def test_orders_equal_the_recorded_ones():
    """A resumed run and later versions of the library draw the same images."""
    assert shuffle_epoch(0, 0, 8).tolist() == RECORDED[0]
    assert shuffle_epoch(3, 2, 8).tolist() == RECORDED[1]
    assert balance_epoch(3, 2, LABELS).tolist() == RECORDED[2]


@pytest.mark.parametrize("order", [shuffle_epoch, balance_epoch], ids=lambda f: f.__name__)
def test_every_seed_and_epoch_has_its_own_order(order):
    last = 50 if order is shuffle_epoch else np.arange(50) % 3
    orders = {order(seed, epoch, last).tobytes() for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64


def test_an_order_is_a_permutation():
    assert sorted(shuffle_epoch(1, 2, 100)) == list(range(100))
    assert shuffle_epoch(1, 2, 100).dtype == np.int32
