"""LeNet-5's output codes and loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax.layers import rbf


def test_map_loss_by_hand():
    distances, labels = jnp.array([[1.0, 3.0, 2.0], [40.0, 1.0, 0.5]]), jnp.array([0, 0])
    by_hand = [
        1 + np.log(np.exp(-4) + np.exp(-1) + np.exp(-3) + np.exp(-2)),
        40 + np.log(np.exp(-4) + np.exp(-40) + np.exp(-1) + np.exp(-0.5)),
    ]
    np.testing.assert_allclose(rbf.compute_map_loss(distances, labels, 4.0), by_hand, rtol=1e-6)
    softmax = optax.softmax_cross_entropy_with_integer_labels(-distances, labels)
    np.testing.assert_allclose(rbf.compute_map_loss(distances, labels, jnp.inf), softmax, rtol=1e-6)
    # The rubbish class limits the gradient of distant classes.
    push = jax.grad(lambda d: rbf.compute_map_loss(d, jnp.array([0]), 4.0)[0])(
        jnp.array([[1.0, 30.0]])
    )
    assert push[0, 0] > 0.04 and abs(push[0, 1]) < 1e-11


def test_bitmaps_are_ten_different_drawings():
    codes = rbf.draw_bitmaps()
    assert (
        codes.shape == (10, 84)
        and codes.dtype == np.float32
        and set(np.unique(codes)) == {-1.0, 1.0}
    )
    apart = ((codes[:, None] - codes[None]) ** 2).sum(-1) / 4  # Pixels that differ.
    assert apart[~np.eye(10, dtype=bool)].min() >= 6
    one = codes[1].reshape(12, 7)
    assert (one[1:, 3] == 1).all() and one[5].sum() == 1 - 6  # The stem of the 1.
