"""Initializers against their formulas: mean, variance, and the limits of uniform ones."""

import math

import jax
import numpy as np
import pytest

from cnn_jax.layers.initializers import (
    INITIALIZERS,
    compute_fan_average,
    compute_fan_in,
    compute_fan_out,
    he_normal,
)

SHAPE = (3, 3, 40, 90)
IN, OUT = 360, 810
# {name: (variance by its formula, whether it is uniform)}
FORMULAS = {
    "xavier": (1 / IN, False),
    "xavier_uniform": (1 / IN, True),
    "xavier_average": (2 / (IN + OUT), False),
    "xavier_average_uniform": (2 / (IN + OUT), True),
    "standard_uniform": (1 / (3 * IN), True),
    "he": (2 / IN, False),
    "he_uniform": (2 / IN, True),
    "lecun": (1 / IN, False),
    "lecun_uniform": (1 / IN, True),
    "normal_0.001": (1e-6, False),
    "normal_0.01": (1e-4, False),
    "normal_0.1": (1e-2, False),
    "normal_1": (1.0, False),
}


def test_every_initializer_has_a_formula_in_this_test():
    assert FORMULAS.keys() == INITIALIZERS.keys()


def test_fan_in_and_fan_out_by_hand():
    assert (compute_fan_in(SHAPE), compute_fan_out(SHAPE), compute_fan_average(SHAPE)) == (
        IN,
        OUT,
        (IN + OUT) / 2,
    )
    assert (compute_fan_in((20, 5)), compute_fan_out((20, 5))) == (20, 5)


@pytest.mark.parametrize("name", FORMULAS)
def test_mean_variance_and_shape_of_the_distribution(name):
    variance, uniform = FORMULAS[name]
    draw = np.asarray(INITIALIZERS[name](jax.random.key(0), SHAPE)) / math.sqrt(variance)
    assert draw.shape == SHAPE and draw.dtype == np.float32
    # Five standard errors of 29,160 values.
    assert abs(draw.mean()) < 0.03 and abs(draw.var() - 1) < 0.05
    largest = np.abs(draw).max()
    assert 0.999 * math.sqrt(3) < largest <= math.sqrt(3) * 1.000001 if uniform else largest > 3.5
    assert abs((draw**4).mean() - (9 / 5 if uniform else 3)) < 0.2


def test_random_values_depend_on_the_key_only():
    one, again, other = (he_normal(jax.random.key(k), (3, 3, 64, 256)) for k in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert not np.array_equal(one[..., 0], one[..., 1])
