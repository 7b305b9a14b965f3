"""LeNet-5 against its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.abstract_models import count_layer_parameters, make_abstract

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.layers import rbf
from cnn_jax.layers.conv import TableConv
from cnn_jax.models import lenet


def test_lenet5_layer_by_layer():
    _, params, _, _ = make_abstract("lenet5")
    assert count_layer_parameters(params) == {
        "c1": 156,
        "s2": 12,
        "c3": 1_516,
        "s4": 32,
        "c5": 48_120,
        "f6": 10_164,
    }
    of_28, _ = jax.eval_shape(
        models.create("lenet5", 10).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1))
    )
    assert count_layer_parameters(of_28) == count_layer_parameters(params)


def test_lenet5_with_all_connections_of_c3():
    _, params, _, _ = make_abstract("lenet5", c3="full")
    assert count_layer_parameters(params)["c3"] == 6 * 16 * 25 + 16


def count_connections(name, side):
    """Connections of a unit times units, layer by layer, as the papers count them."""
    model = models.create(name, 10)
    image = jax.ShapeDtypeStruct((1, side, side, 1), "float32")
    params, stats = jax.eval_shape(model.init, jax.random.key(0), image)
    stages = jax.eval_shape(model.features, params, stats, image)
    sizes, total = count_layer_parameters(params), 0
    for layer, size in sizes.items():
        if layer.startswith("s"):  # a sum of four with a coefficient, and a bias
            total += 5 * stages[layer].size
        elif layer.startswith("c"):
            total += size * stages[layer].shape[1] * stages[layer].shape[2]
        else:
            total += size
    return sizes, total


def test_lenet1_has_the_parameters_and_connections_of_its_paper():
    """LeCun et al. 1990: 2,578 independent parameters, 98,442 connections."""
    sizes, connections = count_connections("lenet1", 28)
    assert sizes == {"c1": 104, "s2": 8, "c3": 512, "s4": 24, "output": 1_930}
    assert sum(sizes.values()) == 2_578 and connections == 98_442


def test_lenet4_has_the_connections_of_its_paper():
    """LeCun et al. 1998, Sec. III-C: about 260,000 connections."""
    sizes, connections = count_connections("lenet4", 32)
    assert sizes == {
        "c1": 104,
        "s2": 16,
        "c3": 1_216,
        "s4": 32,
        "f5": 48_120,
        "output": 1_210,
    }
    assert abs(connections - 260_000) < 3_000
    assert len(set(lenet.LENET4_TABLE)) == 16  # Each map of C3 is connected to other maps.


def test_lenet4s_pairs_of_subsampling_maps_see_the_same_map():
    model, images = (
        models.create("lenet4", 10),
        jax.random.uniform(jax.random.key(0), (1, 32, 32, 1)),
    )
    params, stats = model.init(jax.random.key(1), images)
    stages = model.features(params, stats, images)
    # Initial coefficients are equal, so the two maps of a pair are the same.
    np.testing.assert_array_equal(stages["s2"][..., 0::2], stages["s2"][..., 1::2])
    assert stages["s2"].shape == (1, 14, 14, 8) and stages["s4"].shape == (1, 5, 5, 16)


def test_lenet5_accepts_ten_classes_only():
    with pytest.raises(UserError, match="100 classes; its bitmaps are of ten digits"):
        make_abstract("lenet5", 100)


# LeCun et al. 1998, Table I: a row per map of S2, a column per map of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_c3_is_connected_as_in_table_i():
    seen = np.array([[mark == "X" for mark in line] for line in TABLE_I.split()])  # [6, 16]
    assert seen.sum() == 60
    conv = TableConv(lenet.C3_TABLE, (5, 5))
    x = jax.random.normal(jax.random.key(6), (1, 5, 5, 6))
    variables = conv.init(jax.random.key(7), x)
    assert variables["params"]["kernel"].shape == (5, 5, 60)
    jacobian = jax.jacrev(lambda x: conv.apply(variables, x)[0, 0, 0])(x)[:, 0]  # [16, 5, 5, 6]
    np.testing.assert_array_equal(np.abs(jacobian).max((1, 2)) > 0, seen.T)
    # Kernels are in the order of the table: the four of map 7 begin after 6 * 3 + 4.
    np.testing.assert_allclose(
        jacobian[7, :, :, 3], variables["params"]["kernel"][..., 22 + 2], rtol=1e-6
    )


def test_each_map_of_c3_is_initialized_by_its_own_fan_in():
    conv = TableConv(lenet.C3_TABLE, (5, 5), kernel_init=lenet.uniform)
    kernel = np.abs(conv.init(jax.random.key(0), jnp.zeros((1, 5, 5, 6)))["params"]["kernel"])
    for part, inputs in ((kernel[..., :18], 3), (kernel[..., 18:54], 4), (kernel[..., 54:], 6)):
        assert 0.95 * 2.4 / (25 * inputs) < part.max() <= 2.4 / (25 * inputs)


def test_pixels_are_mapped_as_the_paper_s():
    np.testing.assert_allclose(lenet.scale_pixels(jnp.array([0.0, 1.0])), [-0.1, 1.175], rtol=1e-6)


def test_lenet5_pads_and_centers_digits_and_measures_distances():
    model = models.create("lenet5", 10)
    small = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    params, stats = model.init(jax.random.key(0), small)
    logits, _ = model.apply(params, stats, small)
    padded, _ = model.apply(params, stats, jnp.pad(small, ((0, 0), (2, 2), (2, 2), (0, 0))))
    np.testing.assert_allclose(logits, padded, rtol=1e-6)
    f6 = np.asarray(model.features(params, stats, small)["f6"])
    np.testing.assert_allclose(
        logits, -((f6[:, None] - rbf.draw_bitmaps()) ** 2).sum(-1), rtol=1e-5
    )


def test_lenet5_learns():
    model = models.create("lenet5", 10)
    images, labels = jax.random.uniform(jax.random.key(1), (16, 28, 28, 1)), jnp.arange(16) % 10
    params, stats = model.init(jax.random.key(0), images)

    @jax.jit
    def step(params):
        def loss(params):
            return rbf.compute_map_loss(
                -model.apply(params, stats, images, train=True)[0], labels, 100.0
            ).mean()

        value, grads = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.001 * g, params, grads)

    losses = []
    for _ in range(4):
        value, params = step(params)
        losses.append(float(value))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_lenet5_is_scored_by_the_map_criterion():
    logits, labels = -jnp.array([[1.0, 3.0], [40.0, 1.0]]), jnp.array([0, 0])
    for given, j in ((None, jnp.inf), (4.0, 4.0)):
        options = {} if given is None else {"rubbish": given}
        loss, error = models.create("lenet5", 2, **options).score(logits, None, labels)
        np.testing.assert_allclose(loss, rbf.compute_map_loss(-logits, labels, j), rtol=1e-6)
        assert error.tolist() == [False, True]
