"""VGG: recomputed blocks, widths, and batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers.abstract_models import draw_images, make_abstract

from cnn_jax import models


def test_remat_keeps_fewer_activations_and_changes_no_gradient(monkeypatch):
    """With dropout and batch norm, whose averages must be updated once despite recomputation."""
    # As on an accelerator. The CPU kernels keep little anyway.
    monkeypatch.setenv("CNN_JAX_ROUTES", "xla")
    kept, again = (
        models.create("vgg_b", 10, width=1 / 16, norm="bn", remat=remat) for remat in (False, True)
    )
    params, stats = kept.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    x = jnp.asarray(np.random.default_rng(0).random((16, 64, 64, 3), np.float32))

    def compiled(model):
        def value(params):
            logits, moved = model.apply(params, stats, x, train=True, key=jax.random.key(1))
            return (logits**2).mean(), moved

        return jax.jit(jax.value_and_grad(value, has_aux=True)).lower(params).compile()

    def kept_bytes(model):
        """Returns the bytes that are kept for the backward pass, before compilation."""

        def forward(params):
            return model.apply(params, stats, x, train=True, key=jax.random.key(1))[0]

        handed = jax.eval_shape(lambda params: jax.vjp(forward, params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(handed))

    assert kept_bytes(again) < 0.5 * kept_bytes(kept)
    plain, remat = compiled(kept), compiled(again)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        plain(params),
        remat(params),
    )

    def temporary(program):
        return program.memory_analysis().temp_size_in_bytes

    # JAX 0.10's compiler for CPUs keeps more nevertheless.
    if jax.__version_info__ >= (0, 12):
        assert temporary(remat) < 0.85 * temporary(plain)


def test_width_scales_every_layer_except_the_last():
    params = jax.eval_shape(
        models.create("vgg_a", 5, width=0.25).init, jax.random.key(0), draw_images(1, 32)
    )[0]
    assert (
        params["conv1_1"]["kernel"].shape == (3, 3, 3, 16)
        and params["conv5_2"]["kernel"].shape[-1] == 128
    )
    assert params["fc7"]["kernel"].shape == (1024, 1024) and params["fc8"]["kernel"].shape == (
        1024,
        5,
    )


def test_vgg_with_batch_norm_has_statistics():
    _, _, stats, _ = make_abstract("vgg_a", norm="bn")
    assert stats["norm1_1"]["mean"].shape == (64,)
