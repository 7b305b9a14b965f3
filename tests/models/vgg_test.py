"""VGG: recomputed blocks, widths, and batch norm."""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models


def images(count, size=8):
    return jax.random.normal(jax.random.key(1), (count, size, size, 3))


def shape_of(name, side=0):
    if name == "lenet5":
        return side or 32, side or 32, 1
    return (*(side or (227 if name.startswith("alexnet") else 224),) * 2, 3)


def abstract(name, classes=10, side=0, **options):
    """The net, and its parameters, stats and one image as shapes."""
    model = models.create(name, classes, **options)
    image = jax.ShapeDtypeStruct((1, *shape_of(name, side)), "float32")
    return model, *jax.eval_shape(model.init, jax.random.key(0), image), image


def test_remat_keeps_fewer_activations_and_changes_no_gradient(monkeypatch):
    """With batch norm, whose averages must come out of the recomputed blocks once, and dropout."""
    # As on an accelerator: ours keep little on a CPU as it is.
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
        """Bytes handed to the backward pass, whatever the compiler."""

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

    # The compiler for CPUs of JAX 0.10 keeps more all the same.
    if jax.__version_info__ >= (0, 12):
        assert temporary(remat) < 0.85 * temporary(plain)


def test_width_scales_every_layer_except_the_last():
    params = jax.eval_shape(
        models.create("vgg_a", 5, width=0.25).init, jax.random.key(0), images(1, 32)
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
    _, _, stats, _ = abstract("vgg_a", norm="bn")
    assert stats["norm1_1"]["mean"].shape == (64,)
