"""Initial parameters without a forward pass."""

import jax
import numpy as np
import pytest
from helpers.abstract_models import draw_images

from cnn_jax import models


@pytest.mark.parametrize("name", ["resnet20", "lenet5", "autoencoder"])
def test_parameters_initialized_without_a_forward_pass_are_flax_s(name):
    x = draw_images(1, 28)[..., :1]
    params, _ = models.create(name).init(jax.random.key(3), x)
    net = models.MODELS[name].build(10)
    jax.tree.map(
        np.testing.assert_array_equal, params, net.init(jax.random.key(3), x, train=False)["params"]
    )
