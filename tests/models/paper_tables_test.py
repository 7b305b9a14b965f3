"""Parameters, multiply-adds and feature sizes of the papers, and the smallest images."""

import jax
import pytest
from helpers import published_counts
from helpers.abstract_models import SMALLEST_SIDES, draw_images, make_abstract

from cnn_jax import models
from cnn_jax.cost.traced_counts import count_multiply_adds, count_parameters
from cnn_jax.errors import UserError


def feature_shapes(name, side=0, **options):
    model, params, stats, image = make_abstract(name, side=side, **options)
    return {
        stage: x.shape[1:]
        for stage, x in jax.eval_shape(model.features, params, stats, image).items()
    }


@pytest.mark.parametrize("count", published_counts.PARAMETERS, ids=published_counts.label)
def test_models_have_the_papers_parameter_counts(count):
    image, classes = models.get_paper_input(count.net)
    model = models.create(count.net, classes, **count.options)
    assert count_parameters(model, image) == count.parameters


def test_models_state_the_published_parameter_counts():
    """For default options, heads included. The table is an independent source."""
    published = {c.net: c.parameters for c in published_counts.PARAMETERS if not c.options}
    stated = {name: models.MODELS[name].parameters for name in published}
    assert stated == published and len(published) == 33


@pytest.mark.parametrize("name", published_counts.MULTIPLY_ADDS)
def test_multiply_adds_are_the_papers(name):
    printed, share = published_counts.MULTIPLY_ADDS[name]
    image, classes = models.get_paper_input(name)
    assert count_multiply_adds(models.create(name, classes), image) == pytest.approx(
        printed, rel=share
    )


def test_multiply_adds_by_hand():
    # A "SAME" 5x5 to 28x28x6 from 1 channel, a 5x5 to 10x10x16 from 6, dense 400-120-84-10.
    by_hand = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 25 * 6 + 400 * 120 + 120 * 84 + 84 * 10
    assert count_multiply_adds(models.create("lenet5_modern", 10), (28, 28, 1)) == by_hand
    assert (
        count_parameters(models.create("mlp", 10, hidden=(20,)), (8, 8, 1))
        == 64 * 20 + 20 + 20 * 10 + 10
    )


def test_an_image_too_small_gives_the_smallest_size():
    with pytest.raises(UserError, match="the smallest are 12x12"):
        models.create("lenet5_modern", 10).init(jax.random.key(0), draw_images(1, 8))


def test_features_have_the_papers_sizes():
    assert feature_shapes("lenet5") == {
        "c1": (28, 28, 6), "s2": (14, 14, 6), "c3": (10, 10, 16), "s4": (5, 5, 16),
        "c5": (1, 1, 120), "f6": (84,),
    }  # fmt: skip
    assert feature_shapes("alexnet") == {
        "conv1": (55, 55, 96), "pool1": (27, 27, 96), "conv2": (27, 27, 256),
        "pool2": (13, 13, 256), "conv3": (13, 13, 384), "conv4": (13, 13, 384),
        "conv5": (13, 13, 256), "pool5": (6, 6, 256), "fc6": (4096,), "fc7": (4096,),
    }  # fmt: skip
    assert feature_shapes("zfnet") == {
        "conv1": (110, 110, 96), "pool1": (55, 55, 96), "conv2": (26, 26, 256),
        "pool2": (13, 13, 256), "conv3": (13, 13, 384), "conv4": (13, 13, 384),
        "conv5": (13, 13, 256), "pool5": (6, 6, 256), "fc6": (4096,), "fc7": (4096,),
    }  # fmt: skip
    vgg = feature_shapes("vgg_c", 64)
    assert (
        vgg["conv1_2"] == (64, 64, 64)
        and vgg["pool1"] == (32, 32, 64)
        and vgg["conv3_3"] == (16, 16, 256)
    )
    assert vgg["pool5"] == (2, 2, 512) and len(vgg) == 13 + 5 + 2
    assert feature_shapes("resnet20", 32) == {
        "stem": (32, 32, 16), "stage1": (32, 32, 16), "stage2": (16, 16, 32), "stage3": (8, 8, 64),
        "pool": (64,),
    }  # fmt: skip
    assert set(feature_shapes("resnet50", 64)) == {
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "stage4",
        "pool",
    }
    assert feature_shapes("mlp", 8) == {"hidden1": (256,)}
    assert feature_shapes("mlp", 8, hidden=()) == {}
    assert set(feature_shapes("lenet5_modern", 28)) == {
        "conv1",
        "pool1",
        "conv2",
        "pool2",
        "dense1",
        "dense2",
    }


@pytest.mark.parametrize("name", SMALLEST_SIDES)
def test_the_smallest_image_works_and_a_smaller_one_is_refused(name):
    side = SMALLEST_SIDES[name]
    assert all(min(shape) > 0 for shape in feature_shapes(name, side).values())
    with pytest.raises(UserError, match=f"{side - 1}x{side - 1}; the smallest are {side}x{side}"):
        make_abstract(name, side=side - 1)
