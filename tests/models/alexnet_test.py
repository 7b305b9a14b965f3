"""AlexNet, ZFNet: layers, towers and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.abstract_models import (
    SMALLEST_SIDES,
    count_layer_parameters,
    get_image_shape,
    make_abstract,
)

from cnn_jax import models
from cnn_jax.cost.traced_counts import count_multiply_adds
from cnn_jax.errors import UserError


def make_filled(name, value, side, **options):
    """Returns a model of three classes whose parameters all have one value, which takes no time."""
    model, params, stats, _ = make_abstract(name, 3, side, **options)
    return model, jax.tree.map(lambda p: jnp.full(p.shape, value, p.dtype), params), stats


def test_alexnet_layer_by_layer():
    _, params, _, _ = make_abstract("alexnet", 1000)
    assert count_layer_parameters(params) == {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624,
        "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000,
    }  # fmt: skip
    adds = [
        105_415_200, 27 * 27 * 256 * 25 * 48, 13 * 13 * 384 * 9 * 256, 13 * 13 * 384 * 9 * 192,
        13 * 13 * 256 * 9 * 192, 9216 * 4096, 4096 * 4096, 4096 * 1000,
    ]  # fmt: skip
    assert count_multiply_adds(models.create("alexnet", 1000), (227, 227, 3)) == sum(adds)


def test_half_of_alexnet_keeps_conv5_and_the_dense_layers():
    _, params, _, _ = make_abstract("alexnet_half", 1000)
    assert [params[f"conv{i}"]["kernel"].shape[-1] for i in range(1, 6)] == [48, 128, 192, 192, 256]
    assert params["fc6"]["kernel"].shape == (9216, 4096)


@pytest.mark.parametrize("name", ["alexnet_half", "zfnet"])
def test_dropout_is_on_in_training_and_off_in_evaluation(name):
    images = jnp.ones((1, *get_image_shape(name, SMALLEST_SIDES[name])))
    model, params, stats = make_filled(name, 0.01, SMALLEST_SIDES[name])
    apply = jax.jit(model.apply, static_argnames="train")
    still, _ = apply(params, stats, images)
    first, second, again = (
        apply(params, stats, images, train=True, key=jax.random.key(k))[0] for k in (1, 2, 1)
    )
    assert np.array_equal(first, again) and not np.allclose(first, second, rtol=1e-4)
    np.testing.assert_allclose(first, still, rtol=0.15)  # Kept activations are scaled up.
    all_dropped = models.create(name, 3, dropout=1.0)
    np.testing.assert_allclose(
        all_dropped.apply(params, stats, images, train=True, key=jax.random.key(1))[0], 0.01
    )


@pytest.mark.parametrize("name, meet", [("alexnet", False), ("alexnet_one_tower", True)])
def test_alexnet_s_towers_do_not_meet_before_conv3(name, meet):
    model, params, stats = make_filled(name, 0.01, 67)
    images = jnp.ones((1, 67, 67, 3))

    @jax.jit
    def pull(params):
        """Returns how much the second tower's conv2 depends on each channel of conv1."""

        def second(p):
            return model.features(p, stats, images)["conv2"][..., 128:].sum()

        return jnp.abs(jax.grad(second)(params)["conv1"]["kernel"]).sum((0, 1, 2))

    pulled = np.asarray(pull(params))
    assert (
        (pulled[48:] > 0).all()
        and bool((pulled[:48] > 0).all()) is meet
        and bool(pulled[:48].any()) is meet
    )


def test_table_3_of_zfnet_leaves_layers_out_and_changes_widths():
    """Zeiler, Fergus 2013, Table 3."""

    def sizes(name, **options):
        side = 227 if name == "alexnet" else 224
        model = models.create(name, 1000, **options)
        image = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
        params, _ = jax.eval_shape(model.init, jax.random.key(0), image)
        return {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in params.items()}

    every = ("conv3", "conv4", "fc6", "fc7")
    none = sizes("alexnet", left_out=every)
    assert none.keys() == {"conv1", "conv2", "conv5", "fc8"}
    assert none["conv5"] == 256 * 9 * 128 + 256 and none["fc8"] == (9_216 + 1) * 1000
    narrow = sizes("alexnet", dense_units=2048)
    assert narrow["fc6"] == (9_216 + 1) * 2048 and narrow["fc7"] == (2048 + 1) * 2048
    wide = sizes("zfnet", channels=(96, 256, 512, 1024, 512), dense_units=8192)
    assert wide["conv4"] == (9 * 512 + 1) * 1024 and wide["fc6"] == (36 * 512 + 1) * 8192
    with pytest.raises(UserError, match=r"model\.channels: must be 5 numbers"):
        sizes("zfnet", channels=(96, 256))
