"""A new head, and parameters that are frozen."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from helpers.torch_pickles import write_stream, write_zip
from helpers.weight_files import make_weights

from cnn_jax import models, pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


HEADED = [
    ("resnet20", 32, 3),
    ("vgg_a", 32, 3),
    ("alexnet_owt", 64, 3),
    ("googlenet_bn", 80, 3),
    ("mlp", 8, 1),
]


OTHERS = [
    ("lenet5_modern", 28, 1),
    ("lenet1", 28, 1),
    ("lenet4", 32, 1),
    ("small_cnn", 28, 1),
    ("cuda_convnet", 24, 3),
]


@pytest.mark.parametrize("name, side, channels", [*HEADED, *OTHERS])
def test_a_new_head_replaces_only_what_depends_on_the_classes(name, side, channels):
    image = jnp.zeros((1, side, side, channels))
    five, three = (
        jax.eval_shape(models.create(name, n).init, jax.random.key(0), image)[0] for n in (5, 3)
    )
    replaced = jax.eval_shape(
        lambda params, key: pretrained.replace_head(name, params, key, 3), five, jax.random.key(0)
    )
    assert jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), replaced, three
    ) == jax.tree.map(lambda _: True, three)


def test_a_new_head_has_lecun_kernels_and_zero_biases():
    params, _ = make_weights("mlp", {"hidden": (500, 300)})
    replaced = pretrained.replace_head("mlp", params, jax.random.key(1), 200)
    assert (
        replaced["Dense_0"] is not params["Dense_0"]
        and replaced["Dense_1"]["kernel"] is params["Dense_1"]["kernel"]
    )
    kernel = np.asarray(replaced["Dense_2"]["kernel"])
    assert abs(kernel.std() * 300**0.5 - 1) < 0.02 and not replaced["Dense_2"]["bias"].any()
    assert params["Dense_2"]["bias"].shape == (4,)
    with pytest.raises(UserError, match="lenet5 has no head"):
        pretrained.replace_head("lenet5", make_weights("lenet5", {})[0], jax.random.key(0), 3)


def test_frozen_parameters_do_not_change_even_with_weight_decay():
    params, _ = make_weights("lenet5_modern", {"norm": "bn"})
    mask = pretrained.make_trainable_mask(params, ["Dense_2/*", "norm?/scale"])
    flat = traverse_util.flatten_dict(mask, sep="/")
    assert {path for path, on in flat.items() if on} == {
        "Dense_2/kernel",
        "Dense_2/bias",
        "norm1/scale",
        "norm2/scale",
    }
    decayed = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1, momentum=0.9))
    tx = optax.multi_transform({True: decayed, False: optax.set_to_zero()}, mask)
    state, moved = tx.init(params), params
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, moved)
        moved = optax.apply_updates(moved, updates)
    same = traverse_util.flatten_dict(
        jax.tree.map(lambda a, b: bool((a == b).all()), params, moved), sep="/"
    )
    assert same == {path: not on for path, on in flat.items()}


def test_a_single_pattern_needs_no_list():
    mask = pretrained.make_trainable_mask({"stem": {"kernel": 1}, "head": {"kernel": 2}}, "head/*")
    assert mask == {"stem": {"kernel": False}, "head": {"kernel": True}}


def test_a_pattern_without_a_match_is_refused():
    params, _ = make_weights("lenet5_modern", {})
    with pytest.raises(UserError, match=r"no parameter fits 'Dense_9/\*'"):
        pretrained.make_trainable_mask(params, ["Dense_0/*", "Dense_9/*"])


def test_the_example_of_the_docs_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/pretrained.md").read_text(), re.S
    )
    exec(compile("\n".join(blocks), "docs/pretrained.md", "exec"), {})
    assert "frozen parameters moved: 0" in capsys.readouterr().out
