"""Names and shapes of public weights, with torchvision's ResNet-18 as .safetensors."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.torch_pickles import A, write_stream, write_zip
from helpers.weight_files import TIMM, drop_tensor, write_safetensors

from cnn_jax import pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing, match
from cnn_jax.pretrained.preprocessing import TORCHVISION

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


def test_every_tensor_is_used_once_and_where_it_belongs(resnet18, tmp_path):
    loaded = pretrained.load("resnet18", write_safetensors(tmp_path / "x.safetensors", resnet18))
    assert loaded.num_classes == 5 and loaded.options == {} and loaded.preprocessing == TORCHVISION
    block = loaded.params["stage2_block1"]
    np.testing.assert_array_equal(
        block["conv1"]["kernel"], resnet18["layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(
        block["projection_norm"]["scale"], resnet18["layer2.0.downsample.1.weight"]
    )
    np.testing.assert_array_equal(
        loaded.stats["stage4_block2"]["norm2"]["var"], resnet18["layer4.1.bn2.running_var"]
    )
    np.testing.assert_array_equal(loaded.params["head"]["kernel"], resnet18["fc.weight"].T)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded[:2])} == {np.dtype(np.float32)}
    used = sum(leaf.size for leaf in jax.tree.leaves(loaded[:2]))
    assert used == sum(array.size for array in resnet18.values()) - 1


CONV = "layer1.0.conv2.weight"
WRONG = {
    "missing": (
        lambda a: drop_tensor(a, CONV),
        f"has no tensor '{CONV}'; is this a file of resnet18",
    ),
    "two missing": (
        lambda a: drop_tensor(drop_tensor(a, CONV), "bn1.bias"),
        f"has no tensor '{CONV}' and 1 more",
    ),
    "extra": (
        lambda a: a | {"layer1.2.conv1.weight": A},
        "has the tensor 'layer1.2.conv1.weight', which resnet18 has not",
    ),
    "renamed": (
        lambda a: drop_tensor(a, CONV) | {"conv9": a[CONV]},
        f"no tensor '{CONV}', but has the tensor 'conv9'",
    ),
    "transposed": (
        lambda a: a | {"layer2.0.conv1.weight": a["layer2.0.conv1.weight"].swapaxes(0, 1).copy()},
        r"'layer2.0.conv1.weight' has shape \(64, 128, 3, 3\); in resnet18 it is \(128, 64, 3, 3\)",
    ),
    "a head of another width": (
        lambda a: a | {"fc.bias": A[0]},
        r"'fc.bias' has shape \(3,\); in resnet18 it is \(5,\)",
    ),
    "a head of no shape": (
        lambda a: a | {"fc.weight": np.array(1, np.float32)},
        r"'fc.weight' has shape \(\); in",
    ),
    "a head of nothing": (
        lambda a: a | {"fc.weight": np.zeros((2**40, 0), np.float32)},
        r"has shape \(1099511627776, 0\)",
    ),
    "a headless net": (
        lambda a: drop_tensor(a, "fc.weight"),
        "no tensor 'fc.weight', the last of resnet18",
    ),
    "nothing": (lambda a: {"x": A}, "no tensor 'fc.weight'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_tensors_that_the_model_lacks_are_named(kind, resnet18, tmp_path):
    change, words = WRONG[kind]
    path = write_safetensors(tmp_path / "x.safetensors", change(resnet18))
    with pytest.raises(UserError, match=words):
        pretrained.load("resnet18", path)


def test_a_truncated_safetensors_file_or_a_false_header_is_refused(resnet18, tmp_path):
    raw = write_safetensors(tmp_path / "x.safetensors", resnet18).read_bytes()
    for wrong in (raw[:-4], (2**62).to_bytes(8, "little") + raw[8:], raw[:5000]):
        (tmp_path / "y.safetensors").write_bytes(wrong)
        with pytest.raises(UserError, match="damaged or cut short"):
            pretrained.load("resnet18", tmp_path / "y.safetensors")


def test_weights_of_another_model_and_models_without_weights_are_refused(resnet18, tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", resnet18)
    for name, words in (
        ("resnet34", "no tensor 'layer1.2.conv1.weight' and .* more; is this a file of resnet34"),
        ("vgg_c", "is of torch, which has no weights of vgg_c"),
        ("resnet19", "no such model; nearest: .*resnet18"),
    ):
        with pytest.raises(UserError, match=words):
            pretrained.load(name, path)
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        pretrained.load("resnet18", tmp_path / "nowhere.pth")


def test_timm_s_config_and_torchvision_s_second_weights_change_the_preprocessing(
    resnet18, tmp_path
):
    path = write_safetensors(tmp_path / "model.safetensors", resnet18)
    for content in (TIMM, {"architecture": "resnet18", "pretrained_cfg": TIMM}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        recipe = pretrained.load("resnet18", path).preprocessing
        assert recipe == Preprocessing(
            160, (0.5,) * 3, (1,) * 3, resize=168, interpolation="bicubic"
        )
    for content in (
        "{",
        "{}",
        "[]",
        json.dumps(TIMM | {"mean": "red"}),
        json.dumps(TIMM | {"crop_pct": 0}),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json .*; repair it, or move it away"):
            pretrained.load("resnet18", path)
    (tmp_path / "config.json").unlink()
    second = path.rename(tmp_path / "resnet50-11ad3fa6.safetensors")
    assert pretrained.load("resnet18", second).preprocessing == dataclasses.replace(
        TORCHVISION, resize=232
    )


def test_timm_s_vgg_with_convolutions_as_dense_layers_is_read(tmp_path):
    """fc6 is a 2x2 convolution with the numbers of torchvision's dense layer."""
    draw = np.random.default_rng(0)
    dense = draw.random((3, 512, 2, 2), np.float32)
    as_conv = match.find_torch_source("x", (2048, 3), 4, 512)
    as_dense = match.find_torch_source("x", (2048, 3), 2, 512)
    assert as_conv.shape == (3, 512, 2, 2) and as_dense.shape == (3, 2048)
    np.testing.assert_array_equal(as_conv.convert(dense), as_dense.convert(dense.reshape(3, -1)))
    assert as_conv.convert(dense)[512 * 3 + 7, 1] == dense[1, 7, 1, 1]
