"""LeNet-5, AlexNet, ZFNet and VGG against their papers' tables, and the layers they need against plain loops."""


import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest

from cnn_jax import models
from cnn_jax.cost import summary
from cnn_jax.errors import UserError
from cnn_jax.layers.conv import TableConv
from cnn_jax.models import lenet

SMALLEST = {
    "lenet5": 28, "alexnet": 67, "alexnet_one_tower": 67, "alexnet_half": 67, "alexnet_owt": 63, "zfnet": 47,
    "vgg_a": 32, "vgg_a_lrn": 32, "vgg_b": 32, "vgg_c": 32, "vgg_d": 32, "vgg_e": 32,
}  # fmt: skip


def shape_of(name, side=0):
    if name == "lenet5":
        return side or 32, side or 32, 1
    return (*(side or (227 if name.startswith("alexnet") else 224),) * 2, 3)


def abstract(name, classes=10, side=0, **options):
    """The net, and its parameters, stats and one image as shapes."""
    model = models.create(name, classes, **options)
    image = jax.ShapeDtypeStruct((1, *shape_of(name, side)), "float32")
    return model, *jax.eval_shape(model.init, jax.random.key(0), image), image


def feature_shapes(name, side=0, **options):
    model, params, stats, image = abstract(name, side=side, **options)
    return {stage: x.shape[1:] for stage, x in jax.eval_shape(model.features, params, stats, image).items()}


def layer_sizes(params):
    return {layer: sum(leaf.size for leaf in jax.tree.leaves(tree)) for layer, tree in params.items()}


def test_batch_normalised_vgg_has_statistics():
    _, _, stats, _ = abstract("vgg_a", norm="bn")
    assert stats["norm1_1"]["mean"].shape == (64,)


def test_lenet5_layer_by_layer():
    _, params, _, _ = abstract("lenet5")
    assert layer_sizes(params) == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    of_28, _ = jax.eval_shape(models.create("lenet5", 10).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    assert layer_sizes(of_28) == layer_sizes(params)


def test_alexnet_layer_by_layer():
    _, params, _, _ = abstract("alexnet", 1000)
    assert layer_sizes(params) == {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624,
        "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000,
    }  # fmt: skip
    adds = [
        105_415_200, 27 * 27 * 256 * 25 * 48, 13 * 13 * 384 * 9 * 256, 13 * 13 * 384 * 9 * 192,
        13 * 13 * 256 * 9 * 192, 9216 * 4096, 4096 * 4096, 4096 * 1000,
    ]  # fmt: skip
    assert summary.count_multiply_adds(models.create("alexnet", 1000), (227, 227, 3)) == sum(adds)


def test_half_of_alexnet_keeps_conv5_and_the_dense_layers():
    _, params, _, _ = abstract("alexnet_half", 1000)
    assert [params[f"conv{i}"]["kernel"].shape[-1] for i in range(1, 6)] == [48, 128, 192, 192, 256]
    assert params["fc6"]["kernel"].shape == (9216, 4096)


def test_features_have_the_papers_sizes():
    assert feature_shapes("lenet5") == {
        "c1": (28, 28, 6), "s2": (14, 14, 6), "c3": (10, 10, 16), "s4": (5, 5, 16), "c5": (1, 1, 120), "f6": (84,),
    }  # fmt: skip
    assert feature_shapes("alexnet") == {
        "conv1": (55, 55, 96), "pool1": (27, 27, 96), "conv2": (27, 27, 256), "pool2": (13, 13, 256),
        "conv3": (13, 13, 384), "conv4": (13, 13, 384), "conv5": (13, 13, 256), "pool5": (6, 6, 256),
        "fc6": (4096,), "fc7": (4096,),
    }  # fmt: skip
    assert feature_shapes("zfnet") == {
        "conv1": (110, 110, 96), "pool1": (55, 55, 96), "conv2": (26, 26, 256), "pool2": (13, 13, 256),
        "conv3": (13, 13, 384), "conv4": (13, 13, 384), "conv5": (13, 13, 256), "pool5": (6, 6, 256),
        "fc6": (4096,), "fc7": (4096,),
    }  # fmt: skip
    vgg = feature_shapes("vgg_c", 64)
    assert vgg["conv1_2"] == (64, 64, 64) and vgg["pool1"] == (32, 32, 64) and vgg["conv3_3"] == (16, 16, 256)
    assert vgg["pool5"] == (2, 2, 512) and len(vgg) == 13 + 5 + 2
    assert feature_shapes("resnet20", 32) == {
        "stem": (32, 32, 16), "stage1": (32, 32, 16), "stage2": (16, 16, 32), "stage3": (8, 8, 64), "pool": (64,),
    }  # fmt: skip
    assert set(feature_shapes("resnet50", 64)) == {"stem", "stage1", "stage2", "stage3", "stage4", "pool"}
    assert feature_shapes("mlp", 8) == {"hidden1": (256,)}
    assert feature_shapes("mlp", 8, hidden=()) == {}
    assert set(feature_shapes("lenet5_modern", 28)) == {"conv1", "pool1", "conv2", "pool2", "dense1", "dense2"}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_image_works_and_a_smaller_one_is_told(name):
    side = SMALLEST[name]
    assert all(min(shape) > 0 for shape in feature_shapes(name, side).values())
    with pytest.raises(UserError, match=f"{side - 1}x{side - 1}; the smallest are {side}x{side}"):
        abstract(name, side=side - 1)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("vgg_a", {"norm": "batch"}, "model.norm='batch': choose none or bn or lrn"),
        ("alexnet", {"initializer": "heh"}, "model.initializer='heh': choose paper or xavier or"),
        ("alexnet", {"towers": 3}, "alexnet has no such option"),
        ("zfnet", {"initial_bias": 1.0}, "zfnet has no such option"),
    ],
)
def test_a_mistake_is_told(name, options, words):
    with pytest.raises(UserError, match=words):
        abstract(name, **options)


def test_lenet5_has_ten_bitmaps_only():
    with pytest.raises(UserError, match="100 classes; its bitmaps are of ten digits"):
        abstract("lenet5", 100)


def test_deviations_are_of_known_nets():
    for name in ("lenet5", *SMALLEST):
        assert models.deviations(name), name


# LeCun et al. 1998, Table I: a row a map of S2, a column a map of C3
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_c3_sees_what_table_i_gives_it():
    seen = np.array([[mark == "X" for mark in line] for line in TABLE_I.split()])  # [6, 16]
    assert seen.sum() == 60
    conv = TableConv(lenet.C3_TABLE, (5, 5))
    x = jax.random.normal(jax.random.key(6), (1, 5, 5, 6))
    variables = conv.init(jax.random.key(7), x)
    assert variables["params"]["kernel"].shape == (5, 5, 60)
    jacobian = jax.jacrev(lambda x: conv.apply(variables, x)[0, 0, 0])(x)[:, 0]  # [16, 5, 5, 6]
    np.testing.assert_array_equal(np.abs(jacobian).max((1, 2)) > 0, seen.T)
    # The kernels lie map by map in the table's order: map 7's four begin after 6 * 3 + 4.
    np.testing.assert_allclose(jacobian[7, :, :, 3], variables["params"]["kernel"][..., 22 + 2], rtol=1e-6)


def test_each_map_of_c3_is_drawn_by_its_own_fan_in():
    conv = TableConv(lenet.C3_TABLE, (5, 5), kernel_init=lenet.uniform)
    kernel = np.abs(conv.init(jax.random.key(0), jnp.zeros((1, 5, 5, 6)))["params"]["kernel"])
    for part, inputs in ((kernel[..., :18], 3), (kernel[..., 18:54], 4), (kernel[..., 54:], 6)):
        assert 0.95 * 2.4 / (25 * inputs) < part.max() <= 2.4 / (25 * inputs)


def test_map_loss_by_hand():
    distances, labels = jnp.array([[1.0, 3.0, 2.0], [40.0, 1.0, 0.5]]), jnp.array([0, 0])
    by_hand = [1 + np.log(np.exp(-4) + np.exp(-1) + np.exp(-3) + np.exp(-2)),
               40 + np.log(np.exp(-4) + np.exp(-40) + np.exp(-1) + np.exp(-0.5))]  # fmt: skip
    np.testing.assert_allclose(lenet.map_loss(distances, labels, 4.0), by_hand, rtol=1e-6)
    softmax = optax.softmax_cross_entropy_with_integer_labels(-distances, labels)
    np.testing.assert_allclose(lenet.map_loss(distances, labels, jnp.inf), softmax, rtol=1e-6)
    # The rubbish class holds back what lies far beyond it.
    push = jax.grad(lambda d: lenet.map_loss(d, jnp.array([0]), 4.0)[0])(jnp.array([[1.0, 30.0]]))
    assert push[0, 0] > 0.04 and abs(push[0, 1]) < 1e-11


def test_bitmaps_are_ten_different_drawings():
    codes = lenet.bitmaps()
    assert codes.shape == (10, 84) and codes.dtype == np.float32 and set(np.unique(codes)) == {-1.0, 1.0}
    apart = ((codes[:, None] - codes[None]) ** 2).sum(-1) / 4  # pixels that differ
    assert apart[~np.eye(10, dtype=bool)].min() >= 6
    one = codes[1].reshape(12, 7)
    assert (one[1:, 3] == 1).all() and one[5].sum() == 1 - 6  # the stem of the 1


def test_pixels_are_mapped_as_the_paper_s():
    np.testing.assert_allclose(lenet.contrast(jnp.array([0.0, 1.0])), [-0.1, 1.175], rtol=1e-6)


def test_lenet5_pads_digits_centres_them_and_measures_distances():
    model = models.create("lenet5", 10)
    small = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    params, stats = model.init(jax.random.key(0), small)
    logits, _ = model.apply(params, stats, small)
    padded, _ = model.apply(params, stats, jnp.pad(small, ((0, 0), (2, 2), (2, 2), (0, 0))))
    np.testing.assert_allclose(logits, padded, rtol=1e-6)
    f6 = np.asarray(model.features(params, stats, small)["f6"])
    np.testing.assert_allclose(logits, -((f6[:, None] - lenet.bitmaps()) ** 2).sum(-1), rtol=1e-5)


def test_lenet5_learns():
    model = models.create("lenet5", 10)
    images, labels = jax.random.uniform(jax.random.key(1), (16, 28, 28, 1)), jnp.arange(16) % 10
    params, stats = model.init(jax.random.key(0), images)

    @jax.jit
    def step(params):
        def loss(params):
            return lenet.map_loss(-model.apply(params, stats, images, train=True)[0], labels, 100.0).mean()

        value, grads = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.001 * g, params, grads)

    losses = []
    for _ in range(4):
        value, params = step(params)
        losses.append(float(value))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def filled(name, value, side, **options):
    """A net of three classes with all parameters of one value, for what random ones are not worth their time."""
    model, params, stats, _ = abstract(name, 3, side, **options)
    return model, jax.tree.map(lambda p: jnp.full(p.shape, value, p.dtype), params), stats


@pytest.mark.parametrize("name", ["alexnet_half", "zfnet"])
def test_dropout_is_on_in_training_and_off_in_evaluation(name):
    images = jnp.ones((1, *shape_of(name, SMALLEST[name])))
    model, params, stats = filled(name, 0.01, SMALLEST[name])
    apply = jax.jit(model.apply, static_argnames="train")
    still, _ = apply(params, stats, images)
    first, second, again = (apply(params, stats, images, train=True, key=jax.random.key(k))[0] for k in (1, 2, 1))
    assert np.array_equal(first, again) and not np.allclose(first, second, rtol=1e-4)
    np.testing.assert_allclose(first, still, rtol=0.15)  # what is kept is scaled up
    all_dropped = models.create(name, 3, dropout=1.0)
    np.testing.assert_allclose(all_dropped.apply(params, stats, images, train=True, key=jax.random.key(1))[0], 0.01)


@pytest.mark.parametrize("name, meet", [("alexnet", False), ("alexnet_one_tower", True)])
def test_alexnet_s_towers_do_not_meet_before_conv3(name, meet):
    model, params, stats = filled(name, 0.01, 67)
    images = jnp.ones((1, 67, 67, 3))

    @jax.jit
    def pull(params):
        """How much the second tower's conv2 depends on each map of conv1."""
        second = lambda p: model.features(p, stats, images)["conv2"][..., 128:].sum()
        return jnp.abs(jax.grad(second)(params)["conv1"]["kernel"]).sum((0, 1, 2))

    pulled = np.asarray(pull(params))
    assert (pulled[48:] > 0).all() and bool((pulled[:48] > 0).all()) is meet and bool(pulled[:48].any()) is meet
