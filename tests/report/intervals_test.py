"""Intervals of values against figures by hand."""

import numpy as np
import pytest
from scipy import stats

from cnn_jax.report.intervals import compute_bootstrap_interval, compute_student_interval


def test_the_bootstrap_s_interval_is_that_of_a_binomial():
    """20 of 100 images become correct: a binomial of 100 draws at 20%."""
    answers = np.repeat([-1.0, 0.0], (20, 80))
    low, high = stats.binom.ppf((0.025, 0.975), 100, 0.2)
    assert compute_bootstrap_interval([answers]) == pytest.approx((-high, -low), abs=1)


def test_the_bootstrap_is_deterministic():
    answers = np.random.default_rng(1).integers(-1, 2, 997).astype(float)
    assert len({compute_bootstrap_interval([answers]) for _ in range(3)}) == 1


def test_the_bootstrap_averages_seeds_image_by_image():
    """Over both seeds every image changes by 50 points, so nothing varies."""
    first = np.array([1.0, 0.0] * 50)
    assert compute_bootstrap_interval([first, 1 - first]) == (50, 50)


def test_seeds_with_other_test_images_have_no_common_bootstrap():
    assert compute_bootstrap_interval([np.ones(3), np.ones(4)]) is None
    assert compute_bootstrap_interval([]) is None


def test_student_s_interval():
    # Standard error 2 / sqrt(3); t of 2 degrees of freedom 4.3027.
    half = 4.3027 * 2 / 3**0.5
    assert compute_student_interval([20, 22, 18]) == pytest.approx((20 - half, 20 + half), abs=1e-3)


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 1.0, 1.0)])
def test_the_spread_of_one_value_is_unknown(values):
    assert compute_student_interval(values) is None
