"""ResNets: shortcuts, plain twins, and stages in a scan."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.abstract_models import draw_images

from cnn_jax import models
from cnn_jax.models import resnet


def test_shortcuts_of_option_a_are_padded_with_zeros():
    x = draw_images(2)
    y = resnet.zero_pad_shortcut(x, 5, 2)
    assert y.shape == (2, 4, 4, 5) and not y[..., 3:].any()
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])


def test_residual_models_have_shortcuts_and_plain_models_have_none():
    """If each block's last convolution is zero, only a residual model depends on its input."""
    for name, sees in (("resnet20", True), ("plain20", False)):
        model = models.create(name, 5)
        params, stats = model.init(jax.random.key(0), draw_images(1))
        params = {
            k: v | {"conv2": jax.tree.map(jnp.zeros_like, v["conv2"])} if "block" in k else v
            for k, v in params.items()
        }
        logits, _ = model.apply(params, stats, draw_images(4))
        assert bool(np.ptp(np.asarray(logits), axis=0).max() > 1e-3) is sees


def test_a_scanned_stage_equals_the_loop():
    loop, scan = (models.create("resnet32", 10, scan_min_blocks=n) for n in (1000, 2))
    params, stats = loop.init(jax.random.key(0), draw_images(1))
    assert jax.tree.structure(scan.init(jax.random.key(0), draw_images(1))) == jax.tree.structure(
        (params, stats)
    )

    def value(model, params):
        logits, moved = model.apply(params, stats, draw_images(4), train=True)
        return (logits**2).sum(), (logits, moved)

    (_, looped), grads = jax.jit(jax.value_and_grad(lambda p: value(loop, p), has_aux=True))(params)
    (_, scanned), scan_grads = jax.jit(jax.value_and_grad(lambda p: value(scan, p), has_aux=True))(
        params
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), looped, scanned
    )
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a / scale, b / scale, atol=1e-4), grads, scan_grads
    )
