"""The small CNN: the effect of each option on layers and parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models

IMAGE = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)


def shapes(**options):
    """Returns (parameters of each layer, shapes of the stages)."""
    model = models.create("small_cnn", 10, **options)
    params, stats = jax.eval_shape(model.init, jax.random.key(0), IMAGE)
    stages = jax.eval_shape(model.features, params, stats, IMAGE)
    sizes = {name: sum(x.size for x in jax.tree.leaves(layer)) for name, layer in params.items()}
    return sizes, {name: stage.shape[1:] for name, stage in stages.items()}


def test_the_default_layer_by_layer():
    sizes, stages = shapes()
    assert sizes == {"conv1_1": 416, "conv2_1": 12_832, "dense1": 100_416, "output": 650}
    assert stages == {
        "conv1_1": (28, 28, 16),
        "pool1": (14, 14, 16),
        "conv2_1": (14, 14, 32),
        "pool2": (7, 7, 32),
        "dense1": (64,),
    }


def test_depth_width_and_kernel():
    sizes, stages = shapes(channels=(4, 6, 8), convolutions=2, kernel=3, hidden=(), width=2.0)
    assert [stages[f"conv{stage}_2"] for stage in (1, 2, 3)] == [
        (28, 28, 8),
        (14, 14, 12),
        (7, 7, 16),
    ]
    assert sizes["conv1_1"] == 9 * 8 + 8 and sizes["conv3_2"] == 9 * 16 * 16 + 16
    assert sizes["output"] == 4 * 4 * 16 * 10 + 10 and len(sizes) == 7


@pytest.mark.parametrize(
    "options, first, second",
    [
        ({"pooling": "max", "pool_size": 3}, 14, 7),
        ({"pooling": "average"}, 14, 7),
        ({"pooling": "strided"}, 14, 7),
        ({"pooling": "none"}, 28, 28),
        ({"pooling": "max", "pool_stride": 3}, 10, 4),
    ],
)
def test_poolings_leave_feature_maps_of_these_sides(options, first, second):
    sizes, stages = shapes(hidden=(), **options)
    sides = [shape[0] for shape in stages.values()]
    assert second == sides[-1] and first in sides
    assert sizes["output"] == second**2 * 32 * 10 + 10


def test_overlapping_max_pooling_looks_beyond_its_square_and_average_pooling_averages():
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))

    def pooled(**options):
        model = models.create("small_cnn", 10, channels=(3,), hidden=(), **options)
        params, stats = model.init(jax.random.key(1), images)
        stages = model.features(params, stats, images)
        return np.asarray(stages["conv1_1"])[0], np.asarray(stages["pool1"])[0]

    maps, out = pooled()
    np.testing.assert_allclose(out, maps.reshape(4, 2, 4, 2, 3).max((1, 3)))
    maps, out = pooled(pooling="average")
    np.testing.assert_allclose(out, maps.reshape(4, 2, 4, 2, 3).mean((1, 3)), atol=1e-6)
    maps, out = pooled(pool_size=3)
    np.testing.assert_allclose(out[1, 1], maps[2:5, 2:5].max((0, 1)))


def test_the_three_kinds_of_layers_have_the_same_units_and_these_parameters():
    few = {"channels": (4, 8), "kernel": 3, "pooling": "strided", "hidden": ()}
    found = {layer: shapes(layer=layer, **few) for layer in ("conv", "local", "dense")}
    stages = [stages for _, stages in found.values()]
    assert stages[0] == stages[1] == stages[2] == {"conv1_1": (14, 14, 4), "conv2_1": (7, 7, 8)}
    conv, local, dense = (sizes for sizes, _ in found.values())
    assert conv["conv2_1"] == 9 * 4 * 8 + 8 and local["conv2_1"] == 49 * conv["conv2_1"]
    assert dense["conv1_1"] == (784 + 1) * 14 * 14 * 4
    assert dense["conv2_1"] == (14 * 14 * 4 + 1) * 7 * 7 * 8
    assert conv["output"] == local["output"] == dense["output"] == 392 * 10 + 10


def test_global_pooling_leaves_the_channels_and_dropout_without_hidden_layers_is_before_the_last():
    sizes, _ = shapes(global_pool=True, hidden=())
    assert sizes["output"] == 32 * 10 + 10
    model = models.create("small_cnn", 10, hidden=(), dropout=1.0)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    params, stats = model.init(jax.random.key(1), images)
    logits, _ = model.apply(params, stats, images, train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(logits, 0)  # Only the bias is left, as every input is dropped.
