"""Measures of retrieval: against scikit-learn, by hand, with ties, and with queries alone."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval.measures import measure_queries, summarize

RNG = np.random.default_rng(2)
GALLERY = RNG.normal(1.0, 1.0, (150, 6)).astype(np.float32)
QUERIES = RNG.normal(1.0, 1.0, (20, 6)).astype(np.float32)
GALLERY_LABELS, QUERY_LABELS = RNG.integers(0, 4, 150), RNG.integers(0, 4, 20)


def line(*places):
    """Codes on a line: at these places."""
    return np.array(places, np.float32)[:, None]


def test_average_precision_is_scikit_learns():
    found = measure_queries(GALLERY, GALLERY_LABELS, QUERIES, QUERY_LABELS)
    scores = cosine_similarity(QUERIES.astype(np.float64), GALLERY.astype(np.float64))
    expected = [
        average_precision_score(label == GALLERY_LABELS, score)
        for label, score in zip(QUERY_LABELS, scores, strict=True)
    ]
    np.testing.assert_allclose(found.average_precision, expected, atol=1e-9)
    nearest = np.argsort(-scores, axis=1)[:, :10]
    right = GALLERY_LABELS[nearest] == QUERY_LABELS[:, None]
    np.testing.assert_allclose(found.precision_at_10, right.mean(1))
    np.testing.assert_allclose(found.precision_at_1, right[:, 0])


def test_every_measure_by_hand():
    """Relevant at ranks 1, 3 and 6 of 6: AP (1/1 + 2/3 + 3/6) / 3; of R = 3 ranks (1 + 2/3) / 3."""
    labels = np.array([1, 0, 1, 0, 0, 1])
    found = measure_queries(line(1, 2, 3, 4, 5, 6), labels, line(0), np.array([1]), "euclidean")
    assert found.relevant.tolist() == [3]
    np.testing.assert_allclose(found.average_precision, [(1 + 2 / 3 + 1 / 2) / 3])
    np.testing.assert_allclose(found.map_at_r, [(1 + 2 / 3) / 3])
    np.testing.assert_allclose(found.precision_at_1, [1.0])
    np.testing.assert_allclose(found.precision_at_10, [0.3])  # There are but six images.


def test_equally_near_images_share_the_last_of_their_ranks():
    """Two images at one place, one of them relevant: both have rank 2, as scikit-learn has it."""
    labels = np.array([0, 1, 1])
    found = measure_queries(line(1, 1, 5), labels, line(0), np.array([1]), "euclidean")
    expected = average_precision_score([False, True, True], [-1.0, -1.0, -5.0])
    np.testing.assert_allclose(found.average_precision, [(1 / 2 + 2 / 3) / 2])
    np.testing.assert_allclose(found.average_precision, [expected])
    assert found.precision_at_1.tolist() == [0.0]  # Of the two the first row is the first.


def test_the_query_itself_does_not_count():
    """Of a, b, c of one class at 0, 1, 9 and x at 2: from a the ranks of b and c are 1 and 3."""
    labels, own = np.array([0, 0, 0, 1]), np.array([0])
    with_itself = measure_queries(line(0, 1, 9, 2), labels, line(0), labels[:1], "euclidean")
    without = measure_queries(line(0, 1, 9, 2), labels, line(0), labels[:1], "euclidean", own)
    assert (with_itself.relevant.tolist(), without.relevant.tolist()) == ([3], [2])
    np.testing.assert_allclose(without.average_precision, [(1 + 2 / 3) / 2])
    np.testing.assert_allclose(without.map_at_r, [1 / 2])
    np.testing.assert_allclose(without.precision_at_10, [0.2])


def test_queries_without_relevant_images_are_left_out_counted_and_named():
    labels = np.array([0, 0, 1])
    queries = np.array([0, 2, 1])
    found = measure_queries(line(1, 2, 3), labels, line(0, 0, 0), queries, "euclidean")
    assert np.isnan(found.average_precision).tolist() == [False, True, False]
    means = summarize(found, queries, 4)
    assert (means.queries, means.without_relevant) == (2, (1,))
    np.testing.assert_allclose(means.mean_average_precision, (1 + 1 / 3) / 2)
    np.testing.assert_allclose(means.precision_at_1, 0.5)
    assert means.by_class == (1.0, pytest.approx(1 / 3), None, None)


def test_a_lone_image_of_its_class_that_queries_itself_has_no_relevant_image():
    labels = np.array([0, 1, 1])
    found = measure_queries(
        line(1, 2, 3), labels, line(1), np.array([0]), "euclidean", np.array([0])
    )
    assert np.isnan(found.precision_at_1).all() and found.relevant.tolist() == [0]
    with pytest.raises(UserError, match="no query has an image of its class"):
        summarize(found, np.array([0]), 2)


def test_codes_without_labels_are_refused():
    with pytest.raises(UserError, match="gallery: 150 codes and 3 labels"):
        measure_queries(GALLERY, GALLERY_LABELS[:3], QUERIES, QUERY_LABELS)
