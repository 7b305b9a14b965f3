"""Small files of weights of every kind that is read, their tensors, and weights of our models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.pretrained import Preprocessing, files, match
from helpers.torch_pickles import A, tensor, write_stream, write_zip


def read_all(path):
    weights = files.open_weights(path)
    sources = {name: match.TensorSource(name, one.shape) for name, one in weights.tensors.items()}
    return {name: match.read_parameter(source, weights.tensors) for name, source in sources.items()}


def write_keras(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name in ("conv1", "fc1"):
            file[f"{name}/{name}/kernel:0"] = A
            file[f"{name}/{name}/bias:0"] = A[0]
    return path


def write_ours(path):
    recipe = Preprocessing(crop=4, mean=(0.1,), std=(0.3,))
    shapes = match.list_shapes("mlp", 3, {"hidden": (2,)}, recipe)
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    metadata = {
        "name": "mlp",
        "num_classes": 3,
        "options": {"hidden": (2,)},
        "preprocessing": vars(recipe),
    }
    path.write_bytes(files.to_native_safetensors(arrays, metadata))
    return path


def state():
    return {"a.weight": tensor(A, "0"), "b.weight": tensor(A.T.copy(), "1")}


STORAGES = {"0": A, "1": A.T.copy()}
WRITERS = {
    "zip": lambda path: write_zip(path, state(), STORAGES),
    "stream": lambda path: write_stream(path, state(), STORAGES),
    "keras": write_keras,
    "ours": write_ours,
}


TIMM = {
    "input_size": [3, 160, 160],
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [1] * 3,
}


def read_arrays(path):
    return {
        name: np.asarray(tensor.read()) for name, tensor in files.open_weights(path).tensors.items()
    }


def write_safetensors(path, arrays):
    from safetensors.numpy import save_file

    save_file(arrays, path)
    return path


def drop_tensor(arrays, name):
    return {k: v for k, v in arrays.items() if k != name}


def make_weights(name, options, classes=4):
    model, draw = models.create(name, classes, **options), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    return jax.tree.map(
        lambda leaf: jnp.asarray(draw.standard_normal(leaf.shape, np.float32)), shapes
    )
