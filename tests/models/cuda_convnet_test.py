"""The CNN of cuda-convnet's definition files: its layers, and LRN before the pooling."""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models
from cnn_jax.layers.lrn import apply_local_response_norm
from cnn_jax.layers.pooling import max_pool_ceil


def test_layer_by_layer():
    model = models.create("cuda_convnet")
    image = jax.ShapeDtypeStruct((1, 24, 24, 3), jnp.float32)
    params, stats = jax.eval_shape(model.init, jax.random.key(0), image)
    sizes = {name: sum(x.size for x in jax.tree.leaves(layer)) for name, layer in params.items()}
    assert sizes == {
        "conv1": 4_864,
        "conv2": 102_464,
        "local3": 36 * (9 * 64 * 32 + 32),
        "local4": 36 * (9 * 32 * 32 + 32),
        "fc10": 36 * 32 * 10 + 10,
    }
    stages = jax.eval_shape(model.features, params, stats, image)
    assert [stages[name].shape[1:] for name in ("pool1", "pool2", "local3", "local4")] == [
        (12, 12, 64),
        (6, 6, 64),
        (6, 6, 32),
        (6, 6, 32),
    ]


def test_lrn_comes_before_the_pooling_with_cuda_convnets_constants():
    model = models.create("cuda_convnet", width=0.25, initializer="he")
    images = 100 * jax.random.normal(jax.random.key(0), (1, 24, 24, 3))
    params, stats = model.init(jax.random.key(1), images)
    stages = model.features(params, stats, images)
    normalized = apply_local_response_norm(stages["conv1"], 1.0, 5, 0.0002, 0.75)
    np.testing.assert_allclose(stages["pool1"], max_pool_ceil(normalized, 3, 2), rtol=1e-5)
