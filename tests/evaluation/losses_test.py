"""Loss and error by hand."""

import jax.numpy as jnp
import numpy as np

from cnn_jax.evaluation import losses


def test_cross_entropy_and_error_by_hand():
    logits = jnp.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
    labels = jnp.array([0, 1], jnp.int32)
    by_hand = [np.log(np.exp([2, 0, -1]).sum()) - 2, np.log(np.exp([0, 1, 3]).sum()) - 1]
    np.testing.assert_allclose(losses.compute_cross_entropy(logits, labels), by_hand, rtol=1e-5)
    assert losses.compute_top1_error(logits, labels).tolist() == [False, True]


def test_label_smoothing_by_hand():
    logits, labels = jnp.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]]), jnp.array([0, 1])
    log = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    smooth = 0.9 * np.eye(3)[labels] + 0.1 / 3
    np.testing.assert_allclose(
        losses.compute_cross_entropy(logits, labels, 0.1), -(smooth * log).sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.compute_cross_entropy(logits, labels), -(np.eye(3)[labels] * log).sum(1), rtol=1e-5
    )


def test_logits_that_are_not_finite_are_no_answer():
    """The first NaN would otherwise be the answer, which may be the label."""
    logits = jnp.array([[jnp.nan, 0.0], [0.0, jnp.inf], [1.0, 0.0]])
    assert losses.compute_top1_error(logits, jnp.array([0, 1, 0])).tolist() == [True, True, False]
