"""Every model trains: 20 steps lower its loss on a batch. Its options work."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import mesh, models
from cnn_jax.config import choose
from cnn_jax.optim import make_optimizer
from cnn_jax.training import train_step
from cnn_jax.training.state import init_state

BATCH, CLASSES = 8, 4
# The smallest images that the nets take, and what else keeps them small; those left out take 32x32.
SIDE = {"alexnet": 67, "alexnet_one_tower": 67, "alexnet_half": 67, "alexnet_owt": 63, "zfnet": 47,
        "lenet1": 28, "lenet4": 28, "lenet5": 28, "lenet5_modern": 28, "small_cnn": 8,
        "cuda_convnet": 16, "mlp": 8, "perceptron": 8, "autoencoder": 8,
        "autoencoder_lectures": 8, "autoencoder_deep": 8,
        "googlenet": 79, "googlenet_bn": 79, "inception_v2": 107, "inception_v3": 107}  # fmt: skip


@pytest.fixture(autouse=True)
def _compile_quickly():
    """Twenty steps on tiny images take a moment, compiling them well a third longer than compiling
    them badly.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def small(name):
    options = {"width": 1 / 16}
    full = ("lenet1", "lenet4", "lenet5", "perceptron", "autoencoder", "autoencoder_lectures")
    if name in full:
        options = {}
    if name.startswith(("alexnet", "zfnet", "vgg", "googlenet", "cuda_convnet")):
        # Narrow layers have too few inputs for dropout.
        options |= {"initializer": "he", "dropout": 0.0}
    if name.startswith(("resnet", "plain")):
        options["scan_min_blocks"] = 2  # Compiles one block per stage.
    return options


def train_model(name, steps, devices, dtype=None, **options):
    """Returns (losses of steps on one batch, the state after them)."""
    side = SIDE.get(name, 32)
    channels = models.get_paper_input(name)[0][2]
    labels = jnp.arange(BATCH, dtype=jnp.int32) % CLASSES
    patterns = jax.random.bernoulli(
        jax.random.key(1), shape=(CLASSES, side, side, channels)
    ).astype(jnp.float32)
    images = patterns[labels] + 0.2 * jax.random.normal(
        jax.random.key(2), (BATCH, side, side, channels)
    )
    batch = {"image": images, "label": labels}
    model = models.create(name, CLASSES, dtype=dtype, **small(name) | options)
    feed = types.SimpleNamespace(
        fetch=lambda arrays, item: item, preprocess=lambda arrays, images, key, rows: images
    )
    rate = {"lenet1": 0.3, "lenet4": 0.3, "autoencoder_lectures": 0.5}.get(
        name, 0.003 if name.startswith("vgg") else 0.01
    )
    sgd = make_optimizer(choose("sgd", weight_decay=0.0), choose("constant", base=rate), steps)
    over = mesh.make_batch_mesh(jax.devices()[:devices])
    state = jax.device_put(
        init_state(model, sgd, jax.random.key(0), images[:1]), mesh.make_replicated_sharding(over)
    )
    parts = train_step.StepParts(model, sgd, feed, jax.random.key(2))
    step = functools.partial(train_step.train_step, parts)
    compiled = train_step.compile_train(step, "jit", over)
    sums = [0.0]
    for _ in range(steps):
        state = compiled(state, None, batch)
        sums.append(float(state.sums["loss"]))
    return np.diff(sums), state


# These compile for long, and a smaller model of the same code is trained too.
LONG = ("inception_v2", "plain110", "resnet101", "resnet110", "resnet152", "resnet1202")
ALL = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in models.MODELS
]


@pytest.mark.parametrize("name", ALL)
def test_twenty_steps_on_two_devices_lower_the_loss(name):
    losses, state = train_model(name, 20, 2)
    assert int(state.step) == 20 and int(state.nan_step) == -1
    assert np.mean(losses[-2:]) < 0.97 * losses[0], losses


# One model per file, for what the models of a file share.
FAMILIES = ("mlp", "small_cnn", "lenet1", "lenet5", "lenet5_modern", "autoencoder",
            "autoencoder_lectures", "autoencoder_deep", "alexnet", "zfnet", "vgg_a", "googlenet",
            "bn_inception", "resnet20")  # fmt: skip


def shapes(name, **options):
    """Returns the shapes of (params, stats) of a small model, and the model."""
    image = jax.ShapeDtypeStruct(
        (1, *(SIDE.get(name, 32),) * 2, models.get_paper_input(name)[0][2]), jnp.float32
    )
    model = models.create(name, CLASSES, **small(name) | options)
    return model, image, *jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.mark.parametrize(
    "name", [n for n in models.MODELS if n not in ("perceptron", "resnet1202")]
)
def test_every_model_has_each_norm(name):
    stats = {norm: shapes(name, norm=norm)[3] for norm in ("none", "bn", "lrn")}
    assert stats["bn"] and not stats["none"] and not stats["lrn"]


@pytest.mark.parametrize("name", FAMILIES)
def test_lrn_changes_what_a_model_computes_and_costs_no_parameter(name):
    model, image, params, stats = shapes(name, norm="lrn")
    none, _, same, _ = shapes(name, norm="none")
    assert jax.tree.structure(params) == jax.tree.structure(same)

    def powers(m):
        return str(jax.make_jaxpr(lambda p, s, x: m.apply(p, s, x)[0])(params, stats, image)).count(
            "rsqrt"
        )

    assert powers(model) > powers(none)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_model_uses_the_requested_initializer(name):
    """He's variance is twice Xavier's, for the same random numbers."""
    he, xavier = (shapes(name, initializer=i)[0] for i in ("he", "xavier"))
    image = shapes(name)[1]
    drawn = [
        dict(jax.tree_util.tree_leaves_with_path(m.init(jax.random.key(3), image)[0]))
        for m in (he, xavier)
    ]
    kernels = [path for path in drawn[0] if path[-1].key == "kernel"]
    assert len(kernels) >= 2
    for path in kernels:
        np.testing.assert_allclose(drawn[0][path], np.sqrt(2) * drawn[1][path], rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_close_to_float32_and_keeps_parameters_and_statistics_float32(name):
    wide, image, params, stats = shapes(name)
    narrow = shapes(name, dtype="bfloat16")[0]
    params, stats = wide.init(jax.random.key(0), image)
    images = jax.random.uniform(jax.random.key(1), (2, *image.shape[1:]))
    exact, near = (
        np.asarray(jax.jit(lambda x, m=m: m.apply(params, stats, x)[0])(images))
        for m in (wide, narrow)
    )
    assert near.dtype == exact.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()
    for model, dtype in ((wide, jnp.float32), (narrow, jnp.bfloat16)):
        stages = jax.eval_shape(model.features, params, stats, images)
        assert stages and {x.dtype for x in stages.values()} == {jnp.dtype(dtype)}
    _, moved = jax.eval_shape(
        lambda key: narrow.apply(params, stats, images, train=True, key=key), jax.random.key(0)
    )
    assert {x.dtype for x in jax.tree.leaves((params, moved))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout_is_on_in_training_only(name):
    still = {"aux_heads": False} if "aux_heads" in models.list_options(name) else {}
    still |= {"input_noise_std": 0.0} if name.startswith("autoencoder") else {}
    model, image, _, _ = shapes(name, dropout=0.5, norm="none", **still)
    params, stats = model.init(jax.random.key(0), image)
    images = jax.random.uniform(jax.random.key(1), (2, *image.shape[1:]))
    off = models.create(name, CLASSES, **small(name) | still | {"dropout": 0.0, "norm": "none"})

    def train(model, key):
        return model.apply(params, stats, images, train=True, key=key)[0]

    def test(model):
        return model.apply(params, stats, images)[0]

    every = jax.jit(lambda key: (train(model, key), train(off, key), test(model), test(off)))
    (one, without, *tests), (two, *_), (again, *_) = (every(jax.random.key(k)) for k in (1, 2, 1))
    assert (
        np.array_equal(one, again)
        and not np.array_equal(one, two)
        and not np.array_equal(one, without)
    )
    for other in tests:
        np.testing.assert_allclose(other, without, rtol=1e-5, atol=1e-6)
