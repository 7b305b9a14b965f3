"""The Inception models: their tables, auxiliary heads and the loss that includes the heads."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import models
from cnn_jax.cost import traced_counts
from cnn_jax.errors import UserError
from cnn_jax.layers import conv, pooling
from cnn_jax.models import googlenet, inception
from cnn_jax.training import train_step
from cnn_jax.training.state import init_state


def test_bn_inception_has_the_parameters_of_public_weights():
    """11,295,240 in the weights ported from Caffe, whose convolutions also have biases."""
    model = models.create("bn_inception", 1000)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    # A scale and a shift per channel.
    biases = (
        sum(
            leaf.size
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if path[-2].key == "norm"
        )
        // 2
    )
    assert traced_counts.count_parameters(model, (224, 224, 3)) + biases == 11_295_240


def test_each_change_from_inception_v2_to_v3_adds_its_parameters():
    def count(**options):
        return traced_counts.count_parameters(
            models.create("inception_v2", 1000, **options), (299, 299, 3)
        )

    three = 9 * (3 * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64)
    one = 49 * 3 * 64 + 2 * 64
    assert count(factorized_7x7=True) - count() == three - one
    assert count(aux_norm=True) - count() == 768  # A scale and a shift instead of a bias.


def test_a_1x1_convolution_before_a_5x5_saves_the_paper_s_share():
    def weights(*kernels):
        net = nn.Sequential(
            [conv.Conv(maps, (size, size), use_bias=False) for size, maps in kernels]
        )
        shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 28, 28, 128)))
        return [leaf.size for leaf in jax.tree.leaves(shapes)]

    assert weights((5, 256)) == [819_200]
    assert weights((1, 32), (5, 256)) == [4_096, 204_800]


def get_module_shapes(name, side):
    """Returns {module: output shape} of a model, without computing anything."""
    net = models.MODELS[name].build(10)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), images)
    seen = functools.partial(
        net.apply,
        train=False,
        mutable=["intermediates"],
        capture_intermediates=lambda m, _: bool(m.name),
    )
    _, found = jax.eval_shape(seen, variables, images)
    found = {
        name: of["__call__"][0] for name, of in found["intermediates"].items() if "__call__" in of
    }
    return {
        name: shape.shape[1:]
        for name, shape in found.items()
        if isinstance(shape, jax.ShapeDtypeStruct)
    }


# Each module's output, the next one's input in the papers' tables: side and channels.
GRIDS = {
    "googlenet": {
        "conv2": (56, 192), "inception3a": (28, 256), "inception3b": (28, 480),
        "inception4a": (14, 512), "inception4b": (14, 512), "inception4c": (14, 512),
        "inception4d": (14, 528), "inception4e": (14, 832), "inception5a": (7, 832),
        "inception5b": (7, 1024),
    },
    "bn_inception": {
        "conv2": (56, 192), "inception3a": (28, 256), "inception3b": (28, 320),
        "inception3c": (14, 576), "inception4a": (14, 576), "inception4b": (14, 576),
        "inception4c": (14, 608), "inception4d": (14, 608), "inception4e": (7, 1056),
        "inception5a": (7, 1024), "inception5b": (7, 1024),
    },
    "inception_v3": {
        "conv1a": (149, 32), "conv1b": (147, 32), "conv1c": (147, 64), "conv2": (73, 80),
        "conv3": (71, 192), "mixed35a": (35, 256), "mixed35b": (35, 288), "mixed35c": (35, 288),
        "reduce35": (17, 768), "mixed17a": (17, 768), "mixed17d": (17, 768), "reduce17": (8, 1280),
        "mixed8a": (8, 2048), "mixed8b": (8, 2048),
    },
}  # fmt: skip
GRIDS["googlenet_bn"] = GRIDS["googlenet"]
GRIDS["inception_v2"] = {k: v for k, v in GRIDS["inception_v3"].items() if "conv1" not in k} | {
    "conv1": (147, 64)
}


@pytest.mark.parametrize("name", GRIDS)
def test_modules_have_the_output_shapes_of_the_table(name):
    found = get_module_shapes(name, 299 if name in ("inception_v2", "inception_v3") else 224)
    assert {k: found[k] for k in GRIDS[name]} == {
        k: (side, side, maps) for k, (side, maps) in GRIDS[name].items()
    }


def random(*shape):
    return jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize("name, side, heads", [("googlenet_bn", 79, 2), ("inception_v3", 107, 1)])
def test_auxiliary_heads_exist_in_training_only(name, side, heads):
    """Tested by shapes, on the smallest images that the heads allow."""
    images, key = jnp.zeros((2, side, side, 3)), jax.random.key(0)

    def shapes(**options):
        model = models.create(name, 4, **options)
        params, stats = jax.eval_shape(model.init, key, images)
        outputs, moved = jax.eval_shape(
            functools.partial(model.apply, train=True), params, stats, images, key=key
        )
        logits, _ = jax.eval_shape(model.apply, params, stats, images)
        assert jax.tree.structure(moved) == jax.tree.structure(stats) and logits.shape == (2, 4)
        return params, outputs

    params, outputs = shapes()
    assert isinstance(outputs, tuple) and [o.shape for o in outputs] == [(2, 4)] * (1 + heads)
    bare, alone = shapes(aux_heads=False)
    assert alone.shape == (2, 4)
    assert set(params) - set(bare) == {key for key in params if key.startswith("aux")}
    assert len(set(params) - set(bare)) == heads


def test_googlenet_s_heads_give_logits_in_training_only():
    model = models.create("googlenet", 4)
    images = random(2, 79, 79, 3)
    params, stats = model.init(jax.random.key(0), images[:1])

    @jax.jit
    def both(params, key):
        return model.apply(params, stats, images, train=True, key=key)[0], model.apply(
            params, stats, images
        )[0]

    (main, *heads), logits = both(params, jax.random.key(2))
    assert all(np.isfinite(o).all() and np.ptp(o) > 0 for o in (main, *heads, logits))
    again, same = both(params, jax.random.key(3))  # Dropout differs.
    assert not np.array_equal(again[0], main) and not np.array_equal(again[1], heads[0])
    np.testing.assert_array_equal(same, logits)
    zeroed = params | {
        name: jax.tree.map(jnp.zeros_like, params[name]) for name in ("aux4a", "aux4d")
    }
    (main_too, *zeros), logits_too = both(zeroed, jax.random.key(2))
    np.testing.assert_array_equal(main_too, main)
    np.testing.assert_array_equal(logits_too, logits)
    assert not np.any(zeros)


# By hand: GoogLeNet's sides, backward from 1: 2, 4, 8, 16, 31; from a head's 5: 10, 20, 40, 79.
# torchvision states
# 15 and 75 for its own models. Inception v3, backward from a head's 5: 11, 23, 25,
# 51, 53, 107.
@pytest.mark.parametrize(
    "name, heads, side",
    [
        ("googlenet", False, 31),
        ("googlenet", True, 79),
        ("googlenet_bn", False, 15),
        ("inception_v3", False, 75),
        ("inception_v3", True, 107),
        ("inception_v2", False, 75),
    ],
)
def test_an_image_too_small_gives_the_smallest_size(name, heads, side):
    model = models.create(name, 4, aux_heads=heads)

    def init(n):
        return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, n, side, 3)))

    init(side)
    with pytest.raises(
        UserError, match=f"images of {side - 1}x{side}; the smallest are {side}x{side}"
    ):
        init(side - 1)


def test_a_grid_reduction_pools_and_convolves_side_by_side():
    block = inception.make_grid_reduction((((1, 1, 4), (3, 3, 6)), ((3, 3, 5),)), conv.ConvUnit)
    x = random(1, 9, 9, 7)
    y, _ = block.init_with_output(jax.random.key(0), x, train=False)
    assert y.shape == (1, 4, 4, 6 + 5 + 7)
    np.testing.assert_array_equal(y[..., 11:], nn.max_pool(x, (3, 3), (2, 2)))


def test_a_fork_s_convolutions_have_the_same_input():
    block = googlenet.Inception(
        (((1, 1, 4), ((1, 3, 5), (3, 1, 6))),),
        functools.partial(pooling.MaxPool, 1, 1),
        0,
        conv.ConvUnit,
    )
    x = random(1, 6, 6, 3)
    y, variables = block.init_with_output(jax.random.key(0), x, train=False)
    assert y.shape == (1, 6, 6, 5 + 6 + 3)

    def of(name, maps, kernel, x):
        return conv.ConvUnit(maps, kernel).apply(
            {"params": variables["params"][name]}, x, train=False
        )

    inner = of("branch1_1", 4, (1, 1), x)
    np.testing.assert_array_equal(y[..., :5], of("branch1_2_1x3", 5, (1, 3), inner))
    np.testing.assert_array_equal(y[..., 5:11], of("branch1_2_3x1", 6, (3, 1), inner))


def cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean()


def test_the_loss_sums_the_heads_and_the_error_uses_the_main_logits():
    """One training step of a model with three linear heads."""
    images = random(6, 2, 2, 1)
    kernels = {
        name: jax.random.normal(jax.random.key(k), (4, 3))
        for k, name in enumerate(("main", "aux1", "aux2"))
    }

    def outputs(params, images):
        return tuple(images.reshape(-1, 4) @ params[name] for name in ("main", "aux1", "aux2"))

    main, *heads = outputs(kernels, images)
    # One error, and a different number in each head.
    labels = jnp.argmax(main, 1).at[0].add(1).astype(jnp.int32) % 3
    assert all((jnp.argmax(head, 1) != labels).sum() != 1 for head in heads)
    model = models.Model(
        lambda key, images: (kernels, {}),
        lambda params, stats, images, train, key: (outputs(params, images), stats),
        features=None,
        module=None,
        aux_weight=0.3,
    )
    feed = types.SimpleNamespace(
        fetch=lambda arrays, item: item, preprocess=lambda arrays, images, key, rows: images
    )
    tx = optax.with_extra_args_support(optax.sgd(1.0))
    state = init_state(model, tx, jax.random.key(0), images[:1])
    parts = train_step.StepParts(model, tx, feed, jax.random.key(0))
    after = train_step.train_step(parts, state, None, {"image": images, "label": labels})

    loss = cross_entropy(main, labels) + 0.3 * sum(cross_entropy(head, labels) for head in heads)
    assert float(after.sums["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(after.sums["error"]) == pytest.approx(1 / 6)
    x, one_hot = np.asarray(images.reshape(-1, 4)), np.eye(3)[labels]
    for name, weight, logits in zip(kernels, (1, 0.3, 0.3), (main, *heads), strict=True):
        gradient = weight * x.T @ (np.asarray(jax.nn.softmax(logits)) - one_hot) / 6
        np.testing.assert_allclose(kernels[name] - after.params[name], gradient, atol=1e-5)


def test_the_weight_of_the_heads_is_the_model_s():
    def weight(name, **options):
        return models.create(name, 4, **options).aux_weight

    assert (weight("googlenet"), weight("inception_v3"), weight("mlp"), weight("bn_inception")) == (
        0.3,
        0.4,
        0.0,
        0.0,
    )
    assert weight("googlenet", aux_weight=0.1) == 0.1


def test_norm_is_lrn_batch_norm_or_none():
    def shapes(norm):
        return jax.eval_shape(
            models.create("googlenet", 4, norm=norm).init,
            jax.random.key(0),
            jnp.zeros((1, 79, 79, 3)),
        )

    assert (
        jax.tree.structure(shapes("lrn")) == jax.tree.structure(shapes("none"))
        and not shapes("lrn")[1]
    )
    assert shapes("bn")[1] and "bias" not in shapes("bn")[0]["conv1"]["conv"]
    with pytest.raises(UserError, match=r"model\.norm='layer': choose none or bn or lrn"):
        shapes("layer")


@pytest.mark.parametrize("counted", [False, True])
def test_inception_v3_pools_as_its_option_says(counted, monkeypatch):
    asked, pool = [], pooling.avg_pool
    monkeypatch.setattr(
        pooling, "avg_pool", lambda *arguments: asked.append(arguments[1:]) or pool(*arguments)
    )
    model = models.create("inception_v3", 3, aux_heads=False, count_padding=counted)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))
    assert asked == [(3, 1, "SAME", counted)] * 9  # The modules that do not reduce the grid.


@pytest.mark.parametrize(
    "name, stages, shapes",
    [
        (
            "googlenet",
            2 + 9 + 1,
            {
                "inception3b": (28, 28, 480),
                "inception4e": (14, 14, 832),
                "inception5b": (7, 7, 1024),
            },
        ),
        ("bn_inception", 1 + 10 + 1, {"inception3c": (14, 14, 576), "inception5b": (7, 7, 1024)}),
        (
            "inception_v3",
            1 + 11 + 1,
            {"mixed35c": (35, 35, 288), "mixed17d": (17, 17, 768), "mixed8b": (8, 8, 2048)},
        ),
    ],
)
def test_features_have_the_tables_sizes(name, stages, shapes):
    side = 299 if name == "inception_v3" else 224
    model, image = models.create(name, 10), jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    kept = jax.eval_shape(
        model.features, *jax.eval_shape(model.init, jax.random.key(0), image), image
    )
    assert len(kept) == stages and {stage: kept[stage].shape[1:] for stage in shapes} == shapes
