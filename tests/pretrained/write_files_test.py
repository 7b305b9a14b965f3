"""Weights in our own files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.torch_pickles import write_stream, write_zip
from helpers.weight_files import drop_tensor, make_weights

from cnn_jax import models, pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing, files, match

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


OURS = [
    ("lenet5_modern", {"norm": "bn", "bn_epsilon": 1.001e-5}),
    ("mlp", {"hidden": (20, 30)}),
    ("lenet5", {}),
]


@pytest.mark.parametrize("name, options", OURS, ids=[name for name, _ in OURS])
def test_saving_and_loading_is_bit_identical(name, options, tmp_path):
    params, stats = make_weights(name, options)
    pretrained.save(tmp_path / "x.safetensors", name, params, stats, 4, GRAY, options)
    loaded = pretrained.load(name, tmp_path / "x.safetensors")
    assert (loaded.options, loaded.num_classes, loaded.preprocessing) == (options, 4, GRAY)
    assert jax.tree.structure(loaded[:2]) == jax.tree.structure((params, stats))
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and bool((a == b).all()), (params, stats), loaded[:2]
    )
    assert all(jax.tree.leaves(same))
    model = models.create(name, loaded.num_classes, **loaded.options)
    assert jax.eval_shape(model.apply, *loaded[:2], jnp.zeros((1, 28, 28, 1)))[0].shape == (1, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_parameters_that_the_model_lacks_are_not_saved(tmp_path):
    params, stats = make_weights("lenet5_modern", {})
    cases = [
        ((params, stats, 5, GRAY), r"params/Dense_2/bias: .*\(4,\).*with 5 classes"),
        ((params, stats, 4, GRAY, {"norm": "bn"}), "nothing, but .*norm"),
        ((params | {"more": {"x": jnp.zeros(3)}}, stats, 4, GRAY), r"params/more/x: .*nothing"),
        (
            (jax.tree.map(lambda a: a.astype(jnp.bfloat16), params), stats, 4, GRAY),
            "bfloat16.*float32",
        ),
        ((params, stats, 4, GRAY, {"norms": "bn"}), "no such option; nearest: norm"),
    ]
    for arguments, words in cases:
        with pytest.raises(UserError, match=words):
            pretrained.save(tmp_path / "x.safetensors", "lenet5_modern", *arguments)
    with pytest.raises(UserError, match=r"cannot write .* \(No such file"):
        pretrained.save(
            tmp_path / "none" / "x.safetensors", "lenet5_modern", params, stats, 4, GRAY
        )
    assert not list(tmp_path.iterdir())


def test_our_own_file_edited_by_hand_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    params, stats = make_weights("mlp", {})
    arrays = {k: np.asarray(v) for k, v in match.flatten(params, stats).items()}
    told = {
        "name": "mlp",
        "num_classes": 4,
        "options": {},
        "preprocessing": dataclasses.asdict(GRAY),
    }
    cases = [
        (told | {"name": "lenet5"}, "is of 'lenet5', not of mlp"),
        (told | {"num_classes": 10**9}, "num_classes=1000000000: must be at most"),
        (told | {"num_classes": "four"}, "num_classes=four: must be an integer"),
        (told | {"options": {"hidden": [3]}}, "has shape .*; in mlp it is"),
        (told | {"options": {"os": 1}}, "model.os: mlp has no such option"),
        (
            told | {"preprocessing": {"crop": -1, "mean": [1.0], "std": [1.0]}},
            "preprocessing.crop=-1 is invalid",
        ),
        (told | {"preprocessing": {"run": "x"}}, "does not describe its model"),
        ({"name": "mlp"}, "does not describe its model"),
    ]
    for wrong, words in cases:
        path.write_bytes(files.to_native_safetensors(arrays, wrong))
        with pytest.raises(UserError, match=words):
            pretrained.load("mlp", path)
    path.write_bytes(files.to_native_safetensors(drop_tensor(arrays, "params/Dense_0/bias"), told))
    with pytest.raises(UserError, match="no tensor 'params/Dense_0/bias'"):
        pretrained.load("mlp", path)
