"""Changed images: occlusion, shifts, scalings and rotations, and the controls of maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.known_patch import PATTERN, make_known
from scipy import stats as scipy_stats
from visualize.gradients_test import make_subject

from cnn_jax import visualize


def test_occlusion_is_the_model_on_covered_images():
    known = make_known()
    labels = jnp.array([0, 1, 0])
    found = visualize.occlude(*known[:4], labels, "pool1", side=6, stride=4, gray=0.5)
    np.testing.assert_array_equal(found.tops, [0, 4, 8, 12, 16, 18])  # The last at the edge.
    image, i, j = 1, 3, 0
    covered = np.array(known.images)
    top, left = found.tops[i], found.lefts[j]
    covered[image, top : top + 6, left : left + 6] = 0.5
    logits, _ = known.model.apply(known.params, known.stats, jnp.asarray(covered))
    expected = np.asarray(jax.nn.softmax(logits))[image]
    maps = np.asarray(known.model.features(known.params, known.stats, covered)["pool1"])
    assert found.probability[image, i, j] == pytest.approx(expected[1], rel=1e-5)
    assert found.likeliest[image, i, j] == expected.argmax()
    channel = found.channels[image]
    assert found.activity[image, i, j] == pytest.approx(maps[image, ..., channel].sum(), rel=1e-4)


def test_covering_the_pattern_changes_the_answer():
    known = make_known()
    labels = jnp.zeros(3, jnp.int32)
    found = visualize.occlude(*known[:4], labels, "conv1", side=PATTERN, stride=1)
    for image, (cross, square) in enumerate(known.boxes):
        assert found.probability[image][cross] == found.probability[image].min()
        assert found.probability[image][square] == found.probability[image].max()
        assert found.likeliest[image][cross] == 1 and found.likeliest[image][square] == 0


def transform(image, shift=0.0, scale=1.0, degrees=0.0):
    return np.asarray(
        visualize.transform(jnp.asarray(image)[None, :, :, None], shift, scale, degrees)
    )[0, ..., 0]


def test_transformations_by_hand():
    image = np.arange(25.0, dtype=np.float32).reshape(5, 5)
    np.testing.assert_allclose(transform(image), image, atol=1e-4)
    down = np.concatenate([np.zeros((2, 5)), image[:-2]])
    np.testing.assert_allclose(transform(image, shift=2.0), down, atol=1e-4)
    np.testing.assert_allclose(transform(image, degrees=90.0), np.rot90(image), atol=1e-3)
    np.testing.assert_allclose(transform(image, degrees=360.0), image, atol=1e-3)
    enlarged = transform(image, scale=2.0)
    assert enlarged[2, 2] == pytest.approx(image[2, 2])
    np.testing.assert_allclose(enlarged[::2, ::2], image[1:4, 1:4], atol=1e-4)


def test_invariance_is_the_distance_of_features():
    model, params, stats, images, labels = make_subject()
    shift, scale, rotation = visualize.measure_invariance(
        model, params, stats, images, labels, ("conv1", "dense2"), count=5
    )
    assert [len(each.values) for each in (shift, scale, rotation)] == [5, 5, 5]
    for each, still in ((shift, 2), (scale, 0), (rotation, 0)):
        for layer in ("conv1", "dense2"):
            distances = each.distances[layer]
            assert np.abs(distances[:, still]).max() < 1e-3 < distances.max()
    value = shift.values[0]
    moved = visualize.transform(images, value, 1.0, 0.0)
    features = [model.features(params, stats, x)["dense2"] for x in (moved, images)]
    expected = np.linalg.norm(features[0] - features[1], axis=1)
    np.testing.assert_allclose(shift.distances["dense2"][:, 0], expected, rtol=1e-3)
    shares = visualize.compute_probabilities(model, params, stats, moved)
    chosen = np.asarray(shares)[[0, 1], np.asarray(labels)]
    np.testing.assert_allclose(shift.probability[:, 0], chosen, rtol=1e-3)


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 3, 6, 6))
    second[0] = -3 * first[0]  # Signs and scale do not count.
    second[2] = 1.0
    found = visualize.correlate_ranks(first, second)
    assert found[0] == pytest.approx(1) and np.isnan(found[2])
    expected = scipy_stats.spearmanr(np.abs(first[1]).ravel(), np.abs(second[1]).ravel()).statistic
    assert found[1] == pytest.approx(expected)


def test_random_weights_are_those_of_an_untrained_model():
    model, params, stats, images, _ = make_subject()
    drawn = [visualize.randomize(model, jax.random.key(k), images.shape[1:]) for k in (7, 7, 8)]
    trees = [jax.tree.leaves(each) for each in drawn]
    assert all(np.array_equal(a, b) for a, b in zip(trees[0], trees[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(trees[0], trees[2], strict=True))
    assert jax.tree.structure(drawn[0]) == jax.tree.structure((params, stats))
