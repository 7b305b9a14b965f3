"""Prefixes that wrappers of PyTorch models put before the names of tensors."""

import itertools

import numpy as np
import pytest
from helpers.torch_pickles import A, Call, tensor, write_stream, write_zip

from cnn_jax import pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import files, match, names
from cnn_jax.pretrained.wrappers import PREFIXES, strip_prefix

ORDERS = [
    "".join(order) for count in (1, 2, 3) for order in itertools.permutations(PREFIXES, count)
]


@pytest.mark.parametrize("prefix", [*ORDERS, "module.module."])
def test_wrappers_are_taken_off_in_any_order(prefix):
    plain = {"conv1.weight": 1, "layer1.0.bn1.bias": 2}
    wrapped = {prefix + name: value for name, value in plain.items()}
    assert strip_prefix(wrapped) == (plain, prefix)
    assert strip_prefix(wrapped | {"n_averaged": 3}) == (plain, prefix)


def test_a_counter_inside_a_wrapper_is_skipped():
    tensors = {"_orig_mod.module.fc.bias": 1, "_orig_mod.n_averaged": 2}
    assert strip_prefix(tensors) == ({"fc.bias": 1}, "_orig_mod.module.")


@pytest.mark.parametrize(
    "tensors", [{"module.a": 1, "b": 2}, {"a": 1, "n_averaged": 2}, {"n_averaged": 1}, {}]
)
def test_names_without_a_shared_prefix_are_kept(tensors):
    assert strip_prefix(tensors) == (tensors, "")


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod."])
def test_a_wrapped_model_s_file_is_loaded_and_reported(prefix, tmp_path, capsys):
    layout = names.find_layout("torch", "resnet18", {})
    storages, state = (
        {"n": np.array(3, np.int64)},
        {"n_averaged": tensor(np.array(3, np.int64), "n")},
    )
    shapes = match.list_shapes("resnet18", 5, layout.options, layout.preprocessing)
    for number, (path, shape) in enumerate(shapes.items()):
        name = names.find_name("torch", layout, path.partition("/")[2])
        values = np.full(match.find_torch_source(name, shape, 0).shape, number, np.float32)
        storages[str(number)] = values
        state[prefix + name] = tensor(values, str(number))
    loaded = pretrained.load("resnet18", write_zip(tmp_path / "x.pth", state, storages))
    flat = match.flatten(loaded.params, loaded.stats)
    assert [int(np.ravel(flat[path])[0]) for path in shapes] == list(range(len(shapes)))
    said = capsys.readouterr().err
    assert said == f"{tmp_path / 'x.pth'}: every name begins with {prefix!r}, which is left out\n"


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_a_training_state_gives_the_remedy(write, tmp_path):
    state = {"args": Call("argparse.Namespace", (), {"lr": 1}), "model": {"a": tensor(A, "0")}}
    with pytest.raises(
        UserError, match=r"argparse\.Namespace.*save the state dict alone: torch\.save"
    ):
        files.open_weights(write(tmp_path / "x.pth", state, {"0": A}))
