"""Tensors of a public model, as its file of weights holds them."""

import numpy as np
import pytest

from cnn_jax.pretrained import match, names


@pytest.fixture(scope="session")
def resnet18():
    """Returns {PyTorch's name: array} of a ResNet-18 with 5 classes."""
    draw = np.random.default_rng(0)
    layout = names.find_layout("torch", "resnet18", {})
    arrays = {"bn1.num_batches_tracked": np.array(3, np.int64)}
    for path, shape in match.list_shapes(
        "resnet18", 5, layout.options, layout.preprocessing
    ).items():
        name = names.find_name("torch", layout, path.partition("/")[2])
        arrays[name] = draw.random(match.find_torch_source(name, shape, 0, 0).shape, np.float32)
    arrays["bn1.bias"] = arrays["bn1.bias"].astype(np.float16)
    arrays["bn1.weight"] = arrays["bn1.weight"].astype(np.float64)
    return arrays
