"""The search against scikit-learn's brute force and by hand, on one device and on eight."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from cnn_jax import mesh
from cnn_jax.errors import NotFiniteError, UserError
from cnn_jax.evaluation.retrieval import search as module
from cnn_jax.evaluation.retrieval.search import search, search_chunks


def codes(count, seed, numbers=16):
    return np.random.default_rng(seed).normal(3.0, 1.0, (count, numbers)).astype(np.float32)


GALLERY, QUERIES = codes(203, 0), codes(37, 1)  # 203 is no multiple of the eight devices.


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_neighbors_and_distances_are_scikit_learns(distance):
    found = search(GALLERY, QUERIES, 7, distance)
    brute = NearestNeighbors(n_neighbors=7, algorithm="brute", metric=distance).fit(GALLERY)
    away, index = brute.kneighbors(QUERIES)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.distance, away, atol=2e-6)


def test_chunks_and_devices_change_nothing(monkeypatch):
    whole = search(GALLERY, QUERIES, 5)
    monkeypatch.setattr(module, "MAX_QUERIES", 8)
    chunks = list(search_chunks(GALLERY, QUERIES, 5))
    assert [chunk.rows for chunk in chunks][-1] == slice(32, 37) and len(chunks) == 5
    np.testing.assert_array_equal(search(GALLERY, QUERIES, 5).index, whole.index)
    one = mesh.make_batch_mesh(jax.devices()[:1])
    monkeypatch.setattr(module.meshes, "make_batch_mesh", lambda devices: one)
    alone = search(GALLERY, QUERIES, 5)
    np.testing.assert_array_equal(alone.index, whole.index)
    np.testing.assert_allclose(alone.distance, whole.distance, atol=1e-6)


def test_a_chunk_is_bounded_by_the_size_of_the_gallery(monkeypatch):
    monkeypatch.setattr(module, "MAX_SCORES", 1_000)  # 208 rows with those that fill up: 4 queries
    sizes = [chunk.rows.stop - chunk.rows.start for chunk in search_chunks(GALLERY, QUERIES, 1)]
    assert sizes == [4] * 9 + [1]


def test_a_query_never_finds_itself():
    rows = np.array([0, 25, 26, 202, -1])
    queries = np.concatenate([GALLERY[rows[:4]], GALLERY[7:8]])
    found = search(GALLERY, queries, 202, own_rows=rows)
    for row, index in zip(rows[:4], found.index[:4], strict=True):
        assert set(index) == set(range(203)) - {int(row)}
    assert found.index[4, 0] == 7  # Not known to be there, so it is found.
    assert (search(GALLERY, queries, 1).index[:4, 0] == rows[:4]).all()


def test_of_equally_near_images_the_first_row_is_first():
    gallery = np.zeros((40, 2), np.float32)
    gallery[[3, 11, 30]] = 1.0
    found = search(gallery, np.ones((1, 2), np.float32), 3, "euclidean")
    assert found.index.tolist() == [[3, 11, 30]]


def test_far_from_the_origin_euclidean_distances_keep_their_digits():
    """|q|² - 2 q·g + |g|² of codes near 1,000 in float32 would leave no digit of distance 0.01."""
    gallery = (1000 + 0.01 * np.arange(9, dtype=np.float32))[:, None].repeat(4, 1)
    found = search(gallery, gallery[4:5], 3, "euclidean")
    assert found.index[0, 0] == 4 and set(found.index[0, 1:]) == {3, 5}
    np.testing.assert_allclose(found.distance, [[0, 0.02, 0.02]], atol=2e-4)


def test_the_approximate_search_finds_most():
    found = search(GALLERY, QUERIES, 10, recall_target=0.8)
    exact = search(GALLERY, QUERIES, 10)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(found.index, exact.index, strict=True)]
    assert np.mean(shared) >= 0.8


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((GALLERY, QUERIES[:, :3], 1), r"\(203, 16\) and \(37, 3\) cannot be compared"),
        ((GALLERY, QUERIES, 204), "k=204: the gallery has 203 images to find: choose 1 to 203"),
        ((GALLERY, QUERIES, 0), "k=0: "),
        ((GALLERY, QUERIES[:0], 1), "no queries"),
        ((GALLERY, QUERIES, 1, "cosin"), "distance='cosin': no such distance; nearest: cosine"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        search(*arguments)
    assert "\n" not in str(error.value)


def test_a_code_that_is_not_finite_is_named():
    broken = GALLERY.copy()
    broken[5, 2] = np.nan
    with pytest.raises(NotFiniteError, match="image 5 of the gallery is not finite"):
        search(broken, QUERIES, 1)
