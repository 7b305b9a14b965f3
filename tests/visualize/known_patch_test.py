"""A network whose answer is known: every map has its maximum in the pattern of the class."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.known_patch import PATTERN, compute_maps, find_maximum, make_known

from cnn_jax import visualize

compute_maps = functools.cache(compute_maps)


def test_the_network_finds_both_patterns():
    known = make_known()
    logits, _ = known.model.apply(known.params, known.stats, known.images)
    assert (np.asarray(logits) > 0).all()
    blank, _ = known.model.apply(known.params, known.stats, 0.1 * jnp.ones_like(known.images))
    np.testing.assert_array_equal(blank, 0)


@pytest.mark.parametrize("label", (0, 1))
def test_every_map_points_at_the_pattern_of_its_class(label):
    """Each image holds both patterns: a map of the image's edges would point at either."""
    for method, maps in compute_maps(label).items():
        for heat, corners in zip(maps, make_known().boxes, strict=True):
            (row, column), (top, left) = find_maximum(heat), corners[label]
            inside = top <= row < top + PATTERN and left <= column < left + PATTERN
            assert inside, (method, corners, row, column)


def test_deleting_the_pattern_costs_the_class_most():
    """A map that points there has a smaller deletion area and a larger insertion area."""
    known = make_known()
    labels = jnp.zeros(len(known.images), jnp.int32)
    given = (*known[:4], labels)
    maps = {
        "saliency": compute_maps(0)["saliency"],
        "elsewhere": -compute_maps(0)["saliency"] + 9,  # Its least goes first.
    }
    curves = {name: visualize.measure_curves(*given, each) for name, each in maps.items()}
    good, bad = curves["saliency"], curves["elsewhere"]
    assert (good.deletion_area < bad.deletion_area).all()
    assert (good.insertion_area > bad.insertion_area).all()
    for each in curves.values():  # Nothing deleted is all inserted, and the other way about.
        np.testing.assert_allclose(each.deletion[:, 0], each.insertion[:, -1], rtol=1e-5)
        np.testing.assert_allclose(each.deletion[:, -1], each.insertion[:, 0], rtol=1e-5)
