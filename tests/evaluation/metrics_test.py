"""Metrics by hand and against scikit-learn, and the coverage of their intervals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from cnn_jax import mesh, models
from cnn_jax.errors import NotFiniteError, UserError
from cnn_jax.evaluation import protocols
from cnn_jax.evaluation.metrics import compute_wilson_interval, measure_scores
from cnn_jax.evaluation.scoring import AVERAGES, Scores, average_scores, make_scorer, score_images


def scores(rows, labels):
    rows = np.array(rows, np.float64)
    return Scores(np.arange(len(rows)), np.array(labels), rows)


def test_errors_and_confusion_matrix_by_hand():
    score = np.full((4, 7), 0.1)
    score[0, 0] = score[1, 1] = score[2, 3] = score[3, 0] = 0.4
    score[3, 6] = 0.05
    score /= score.sum(1, keepdims=True)
    found = measure_scores(scores(np.log(score), (0, 1, 2, 6)))
    assert found.top1_error == 0.5 and found.wrong == "0011" and found.images == 4
    assert found.top5_error == 0.25  # The last image's class is the least likely of seven.
    assert found.top1_interval == compute_wilson_interval(
        2, 4
    ) and found.top5_interval == compute_wilson_interval(1, 4)
    assert found.error_by_class == (0, 0, 1, None, None, None, 1)
    assert (
        found.confusion[2][3] == 1 and found.confusion[6][0] == 1 and np.sum(found.confusion) == 4
    )
    np.testing.assert_allclose(found.loss, -np.log(score[range(4), (0, 1, 2, 6)]).mean())


@pytest.mark.parametrize("label, wrong", [(4, 0), (5, 1)])
def test_the_fifth_best_class_is_among_the_top_five_and_the_sixth_is_not(label, wrong):
    found = measure_scores(scores([np.arange(7.0, 0.0, -1.0)], [label]))
    assert found.top5_error == wrong and found.top5_interval == compute_wilson_interval(wrong, 1)


def test_five_classes_have_no_top5_error():
    found = measure_scores(scores(np.zeros((3, 5)), (0, 1, 2)))
    assert found.top5_error is None and found.top5_interval is None


def test_logits_are_averaged_before_their_softmax():
    np.testing.assert_allclose(
        measure_scores(scores([[1.0, 3.0]], [0])).loss, np.log(1 + np.exp(2.0))
    )


@pytest.mark.parametrize("average", AVERAGES)
def test_uniform_scores_have_the_errors_of_chance(average):
    """Among equal scores the first classes are the answers, in top-1 and top-5."""
    rows = average_scores([np.zeros((40, 20))] * 2, average)
    found = measure_scores(scores(rows, np.arange(40) % 20))
    assert found.top1_error == 0.95 and found.top5_error == 0.75


@pytest.mark.parametrize("deviation", [1, 30, 100, 1000])
def test_ranks_and_loss_of_confident_scores_are_exact(deviation):
    """Logits whose softmax rounds to 1 in float32, against scikit-learn and against the logits."""
    rng = np.random.default_rng(0)
    logits, labels = (
        rng.normal(0, deviation, (2000, 20)).astype(np.float32),
        rng.integers(0, 20, 2000),
    )

    def apply(params, stats, images, train):
        return (images[:, 0, 0].astype(jnp.float32), stats)

    net = models.Model(None, apply, None, None), {}, {}
    scorer = make_scorer(
        *net, lambda images, size: images, 1, mesh.make_batch_mesh(jax.devices()[:1]), mirror=False
    )
    valid = np.ones(2000, bool)
    batch = {
        "crops": logits[:, None, None, None],
        "label": labels,
        "index": np.arange(2000),
        "valid": valid,
    }
    found = measure_scores(score_images(scorer, protocols.CENTER, [batch]))
    right = top_k_accuracy_score(labels, logits, k=5, labels=range(20))
    assert found.top5_error == pytest.approx(1 - right, abs=1e-9)
    exact = logits.astype(np.float64)
    own = exact[np.arange(2000), labels] - np.logaddexp.reduce(exact, axis=1)
    assert found.loss == pytest.approx(-own.mean(), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    rows = np.zeros((10, 20))
    rows[3, 7] = bad
    with pytest.raises(NotFiniteError, match="scores of 1 of 10 images are not finite"):
        measure_scores(scores(rows, range(10)))


WILSON = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
    (29, 29): (0.8830, 1.0),
}


@pytest.mark.parametrize("errors, count", WILSON)
def test_wilson_s_interval_is_the_published_one(errors, count):
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", Table I, 3."""
    np.testing.assert_allclose(
        compute_wilson_interval(errors, count), WILSON[errors, count], atol=6e-5
    )


def test_wilson_s_interval_of_no_errors_has_a_width():
    low, high = compute_wilson_interval(0, 360)
    assert low == 0 and 0.009 < high < 0.012
    assert compute_wilson_interval(360, 360) == (pytest.approx(1 - high), 1)


def probability(k, n, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize("error", [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3])
def test_the_interval_covers_the_truth_as_often_as_its_docstring_says(error):
    """Exactly, by summing over all outcomes of 360 images."""
    holds = [
        low <= error <= high for low, high in (compute_wilson_interval(k, 360) for k in range(361))
    ]
    coverage = sum(probability(k, 360, error) for k in range(361) if holds[k])
    assert 0.945 < coverage < 0.971


def test_simulated_test_sets_of_one_percent_error_are_covered_and_a_bootstrap_would_fail():
    rng = np.random.default_rng(0)
    drawn = (rng.random((4000, 360)) < 0.01).sum(1)

    @functools.cache
    def bootstrap(errors):
        again = np.random.default_rng(0).binomial(360, errors / 360, 2000) / 360
        return np.percentile(again, (2.5, 97.5))

    def coverage(interval):
        ends = np.array([interval(int(errors)) for errors in drawn])
        return ((ends[:, 0] <= 0.01) & (ends[:, 1] >= 0.01)).mean()

    assert 0.95 < coverage(lambda errors: compute_wilson_interval(errors, 360)) < 0.98
    assert coverage(bootstrap) < 0.91


@pytest.mark.parametrize(
    "labels, words",
    [((0, -1), "from -1 to 0, and"), ((1, 7), "from 1 to 7, .* of 7 classes"), ((), "no image")],
)
def test_labels_that_are_no_class_are_refused(labels, words):
    with pytest.raises(UserError, match=words):
        measure_scores(scores(np.zeros((len(labels), 7)), labels))


def test_scores_may_be_arrays_of_jax():
    score = jnp.array([[0.0, 1.0], [2.0, 0.0]])
    found = measure_scores(Scores(jnp.arange(2), jnp.array([1, 1]), score))
    assert found.top1_error == 0.5
