"""Models as functions: logits, invalid options, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.abstract_models import draw_images, make_abstract

from cnn_jax import models
from cnn_jax.errors import UserError


@pytest.mark.parametrize("name", ["mlp", "lenet5_modern", "resnet20", "plain20"])
def test_small_models_give_the_same_logits_for_any_batch(name):
    model = models.create(name, 7)
    params, stats = model.init(jax.random.key(0), draw_images(1, 16))
    logits, same = model.apply(params, stats, draw_images(3, 16))
    assert logits.shape == (3, 7) and same is stats
    alone, _ = model.apply(params, stats, draw_images(3, 16)[:1])
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("resnet21", {}, "no such model; nearest: .*resnet20"),
        ("mlp", {"shortcut": "A"}, "model.shortcut: mlp has no such option"),
        ("plain20", {"shortcut": "B"}, "plain20 has no such option"),
        ("resnet34", {"stride_in": "3x3"}, "resnet34 has no such option"),
        ("resnet50", {"stride_in": "2x2"}, "model.stride_in='2x2': choose 1x1 or 3x3"),
        ("resnet20", {"dtype": "float16"}, "choose float32 or bfloat16"),
        ("mlp", {"dropout": 1.5}, "model.dropout=1.5: must be at most 1"),
        ("mlp", {"hidden": (4, 0)}, "model.hidden=0: must be at least 1"),
        ("perceptron", {"bn_group": 4}, "perceptron has no such option"),
        ("resnet20", {"bn_epsilon": -1.0}, "model.bn_epsilon=-1.0: must be at least 0"),
        ("mlp", {"width": 0.0}, "model.width=0.0: must be more than 0"),
        ("resnet20", {"shortcut": "D"}, "model.shortcut='D': choose A or B or C or plain"),
        (
            "mlp",
            {"activation": "step"},
            "model.activation='step': choose sigmoid or tanh or scaled_tanh or relu",
        ),
    ],
)
def test_an_invalid_option_is_refused(name, options, words):
    with pytest.raises(UserError, match=words):
        models.create(name, 10, **options).init(jax.random.key(0), draw_images(1))


def test_invalid_classes_image_sizes_and_missing_keys_are_refused():
    with pytest.raises(UserError, match="num_classes=0: must be at least 1"):
        models.create("mlp", 0)
    model = models.create("mlp", 3, dropout=0.5)
    params, stats = model.init(jax.random.key(0), draw_images(1))
    with pytest.raises(UserError, match="mlp: images of 16x16x3 do not have the size"):
        model.apply(params, stats, draw_images(1, 16))
    with pytest.raises(UserError, match="mlp: training needs random numbers: pass a key to apply"):
        model.apply(params, stats, draw_images(1), train=True)


def test_images_of_uint8_are_converted_to_float():
    model = models.create("mlp", 3)
    pixels = jnp.arange(192, dtype=jnp.uint8).reshape(1, 8, 8, 3)
    params, stats = model.init(jax.random.key(0), pixels)
    logits, _ = model.apply(params, stats, pixels)
    assert np.ptp(logits) > 1 and np.array_equal(
        logits, model.apply(params, stats, pixels.astype(jnp.float32))[0]
    )


def test_an_option_that_removes_a_deviation_removes_it_from_the_list():
    def words(name, **options):
        return " ".join(models.describe_deviations(name, **options))

    assert "biases" in words("alexnet") and "biases" in words("alexnet", initial_bias=0.1)
    assert "biases" not in words("alexnet", initial_bias=1.0)
    assert "He's" in words("googlenet", initializer="paper") and "He's" not in words(
        "googlenet", initializer="xavier"
    )
    assert "LRN's" not in words("googlenet", norm="none") and "0.001" not in words(
        "inception_v3", norm="none"
    )
    assert "whole batch" in words("resnet20") and "whole batch" not in words(
        "resnet20", bn_group=64
    )
    assert "rubbish" in words("lenet5", rubbish=None) and "rubbish" not in words(
        "lenet5", rubbish=100.0
    )


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("vgg_a", {"norm": "batch"}, "model.norm='batch': choose none or bn or lrn"),
        ("alexnet", {"initializer": "heh"}, "model.initializer='heh': choose paper or xavier or"),
        ("alexnet", {"towers": 3}, "alexnet has no such option"),
        ("zfnet", {"initial_bias": 1.0}, "zfnet has no such option"),
    ],
)
def test_an_option_of_another_model_is_refused(name, options, words):
    with pytest.raises(UserError, match=words):
        make_abstract(name, **options)


def test_deviations_belong_to_known_models():
    for name in ("lenet5", "alexnet", "alexnet_half", "alexnet_owt", "zfnet", "vgg_a", "vgg_e"):
        assert models.describe_deviations(name), name


def test_pixels_of_uint8_initialize_a_model_that_pools():
    model = models.create("lenet5_modern", 3)
    pixels = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), pixels)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ["resnet20", "lenet5_modern", "autoencoder"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (0, 32, 32, 3), (2, 0, 0, 3), (2, 32, 32, 0)])
def test_images_that_are_no_batch_are_refused(name, shape):
    model = models.create(name, 3, width=0.1)
    images, words = jnp.zeros(shape), rf"{name}: images of shape \({shape[0]},.*give \[B, H, W, C\]"
    for call in (
        lambda: model.init(jax.random.key(0), images),
        lambda: model.apply({}, {}, images),
        lambda: model.features({}, {}, images),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_the_perceptrons_take_vectors():
    model = models.create("perceptron", 3)
    params, stats = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    assert model.apply(params, stats, jnp.ones((2, 4)))[0].shape == (2, 3)


def test_parameters_of_another_model_and_keys_that_are_numbers_are_refused():
    model = models.create("resnet20", 3, width=0.1)
    params, stats = model.init(jax.random.key(0), draw_images(1))
    with pytest.raises(UserError, match="resnet20: images of 8x8x1 do not have the size"):
        model.features(params, stats, draw_images(1)[..., :1])
    for wrong in (({}, stats), (params, {}), (stats, params)):
        with pytest.raises(UserError, match="resnet20: params or stats are not those of this"):
            model.apply(*wrong, draw_images(1))
    with pytest.raises(UserError, match="to init one such as jax"):
        model.init(0, draw_images(1))


def test_options_may_be_numbers_of_numpy():
    labels = np.array([0, 2, 1])
    module = models.create("mlp", labels.max() + 1, hidden=np.array([4, 2])).module
    assert type(module.num_classes) is int and module.hidden == (4, 2)
