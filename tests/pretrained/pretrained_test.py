"""Weights from files: each format, refused files, our own files, downloads, fine-tuning."""

import dataclasses
import hashlib
import http.server
import json
import re
import threading
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import traverse_util
from helpers.torch_pickles import (
    A,
    Call,
    Name,
    Outside,
    opcodes,
    pickled,
    tensor,
    write_stream,
    write_zip,
)
from PIL import Image

from cnn_jax import models, pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing, download, files, match, names
from cnn_jax.pretrained.preprocessing import KERAS_CAFFE, TORCHVISION

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


def read(path):
    return {
        name: np.asarray(tensor.read()) for name, tensor in files.open_weights(path).tensors.items()
    }


@WRITERS
def test_torch_tensors_of_every_kind_are_read(write, tmp_path):
    storages = {
        "0": A,
        "1": A.astype(np.float16),
        "2": A.astype(ml_dtypes.bfloat16),
        "3": A.astype(np.float64),
        "4": np.array(3, np.int64),
    }
    state = {f"kind{key}": tensor(array, key) for key, array in storages.items()}
    got = read(write(tmp_path / "x.pth", state, storages))
    for key, array in storages.items():
        assert got[f"kind{key}"].dtype == array.dtype
        np.testing.assert_array_equal(got[f"kind{key}"], array)


@WRITERS
def test_torch_views_and_wrappers_of_old_versions_are_read(write, tmp_path):
    old = ("torch._utils._rebuild_tensor", tensor(A, "0").arguments[:4])
    state = {
        "transposed": tensor(A, "0", shape=(3, 2), strides=(1, 3)),
        "row": tensor(A, "0", shape=(3,), strides=(1,), offset=3),
        "parameter": Call(
            "torch._utils._rebuild_parameter",
            (tensor(A, "0"), True, Call("collections.OrderedDict")),
        ),
        "0.1": Call(
            "torch.nn.parameter.Parameter",
            (Call(*old),),
            (True, False, Call("collections.OrderedDict")),
        ),
    }
    # An OrderedDict as Python 2 pickled it, and with the attribute that state_dict() gives it.
    pairs = [[name, value] for name, value in state.items()]
    ordered = Call("collections.OrderedDict", (pairs,), {"_metadata": {"": {"version": 1}}})
    got = read(write(tmp_path / "x.pth", ordered, {"0": A}))
    np.testing.assert_array_equal(got["transposed"], A.T)
    np.testing.assert_array_equal(got["row"], A[1])
    np.testing.assert_array_equal(got["parameter"], A)
    np.testing.assert_array_equal(got["0.1"], A)


def test_a_view_in_the_old_stream_format_is_read(tmp_path):
    state = {"part": tensor(A, "0", shape=(2,), strides=(1,), view=("1", 2, 2))}
    np.testing.assert_array_equal(
        read(write_stream(tmp_path / "x.pth", state, {"0": A}))["part"], [2, 3]
    )


# --- refused files


def bomb(module_and_name, argument="import pathlib; pathlib.Path('ran').touch()"):
    return {"weight": Call(module_and_name, (argument,))}


HOSTILE = {
    "system": (
        bomb("posix.system", "touch ran"),
        "holds 'posix.system'.*save the state dict alone",
    ),
    "exec": (bomb("builtins.exec"), "holds 'builtins.exec'"),
    "nested in a key": ({"weight": {"a": Call("builtins.eval", ("1",))}}, "holds 'builtins.eval'"),
    "named on the stack": (
        {"weight": opcodes("os") + opcodes("system") + b"\x93"},
        "holds 'os.system'",
    ),
    "a whole module": (
        Call("torchvision.models.resnet.ResNet"),
        "holds 'torchvision.models.resnet.ResNet'",
    ),
    "torch's own loader": (bomb("torch.load", "x"), "holds 'torch.load'"),
    "an object made": (
        {"w": opcodes(Name("collections.OrderedDict")) + b")\x81"},
        "instruction NEWOBJ",
    ),
    "an object of old": (b"(iposix\nsystem\n", "instruction INST"),
    "a call of a string": (
        {"w": opcodes("os.system") + opcodes(()) + b"R"},
        "treats a str as a Global",
    ),
    "a key that takes forever to hash": (
        {"a": b"}(" + opcodes((1, 2)) + b"K\x01u"},
        "keys are not names",
    ),
    "a number": ({"weight": 3}, "'weight', which is no tensor"),
    "no dictionary": ([1], "holds no state dict"),
    "a checkpoint": (
        {"epoch": 3, "state_dict": {"a": tensor(A, "0")}},
        "'epoch', which is no tensor; save the state dict alone",
    ),
    "outside of nothing": ({"w": Outside(("module", 1, 2))}, "something other than tensors"),
    "a negative size": ({"w": tensor(A, "0", shape=(-2, 3))}, "size of -2"),
    "a shape beyond its storage": (
        {"w": tensor(A, "0", shape=(10**9, 3))},
        "'w': shape .* does not lie inside",
    ),
    "a shape that repeats": (
        {"w": tensor(A, "0", shape=(10**9, 3), strides=(0, 1))},
        "'w': shape .* does not lie inside",
    ),
    "an offset beyond": ({"w": tensor(A, "0", offset=1)}, "'w': shape .* does not lie inside"),
    "a storage that says more": (
        {"w": tensor(A, "0", size=10**12)},
        "'w': the file has .* of 1000000000000 numbers",
    ),
    "a storage that is not there": ({"w": tensor(A, "9")}, "'w': the file has 0 bytes"),
    "a string that says 4 GB": (
        b"X\xff\xff\xff\xffab",
        "more than 16,777,216 bytes: more than weights need",
    ),
    "a place that says 4 billion": (b"}r\xff\xff\xff\xff", "holds no state dict"),
    "nothing on the stack": (b"e", "damaged or cut short"),
}


@WRITERS
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused_and_not_executed(kind, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, words = HOSTILE[kind]
    path = write(tmp_path / "x.pth", state, {"0": A})
    with pytest.raises(UserError, match=words) as caught:
        pretrained.load("resnet18", path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_unpickling_the_hostile_pickles_would_execute_them(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled(HOSTILE["exec"][0]))
    assert (tmp_path / "ran").exists()


@WRITERS
@pytest.mark.parametrize("left", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(write, left, tmp_path):
    b = np.arange(1000, dtype=np.float32)
    whole = write(
        tmp_path / "x.pth",
        {"a.weight": tensor(A, "0"), "b.weight": tensor(b, "1")},
        {"0": A, "1": b},
    )
    whole.write_bytes(whole.read_bytes()[: int(left * whole.stat().st_size)])
    words = "tensor 'b.weight': the file has|cut short"
    with pytest.raises(UserError, match=words):
        read(whole)


def test_a_zip_that_is_compressed_or_damaged_is_refused(tmp_path):
    zeros = np.zeros(10**6, np.float32)
    small = write_zip(
        tmp_path / "small.pth", {"w": tensor(zeros, "0")}, {"0": zeros}, zipfile.ZIP_DEFLATED
    )
    with pytest.raises(UserError, match=r"net/data\.pkl in compressed form"):
        files.open_weights(small)
    path = write_zip(tmp_path / "x.pth", {"w": tensor(A, "0")}, {"0": A})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(A.tobytes(), (A + 1).tobytes()))
    with pytest.raises(UserError, match="'w' cannot be read, it may be damaged: Bad CRC"):
        match.read_value(match.TensorSource("w", A.shape), files.open_weights(path).tensors)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04nothing", b"hello, this is text", b"\x89HDF\r\n\x1a\nnothing"]
)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth: (is no \.safetensors|cannot be read)"):
        pretrained.load("resnet18", tmp_path / "x.pth")


# --- names and shapes, with torchvision's ResNet-18 as .safetensors


@pytest.fixture(scope="session")
def resnet18():
    """Returns {PyTorch's name: array} of a ResNet-18 with 5 classes."""
    draw = np.random.default_rng(0)
    plan = names.make_plan("torch", "resnet18", {})
    arrays = {"bn1.num_batches_tracked": np.array(3, np.int64)}
    for path, shape in match.list_shapes("resnet18", 5, plan.options, plan.preprocessing).items():
        name = names.find_name("torch", plan, path.partition("/")[2])
        arrays[name] = draw.random(match.find_torch_source(name, shape, 0, 0).shape, np.float32)
    arrays["bn1.bias"] = arrays["bn1.bias"].astype(np.float16)
    arrays["bn1.weight"] = arrays["bn1.weight"].astype(np.float64)
    return arrays


def safetensors_file(path, arrays):
    from safetensors.numpy import save_file

    save_file(arrays, path)
    return path


def test_every_tensor_is_used_once_and_where_it_belongs(resnet18, tmp_path):
    loaded = pretrained.load("resnet18", safetensors_file(tmp_path / "x.safetensors", resnet18))
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


def drop_tensor(arrays, name):
    return {k: v for k, v in arrays.items() if k != name}


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
    path = safetensors_file(tmp_path / "x.safetensors", change(resnet18))
    with pytest.raises(UserError, match=words):
        pretrained.load("resnet18", path)


def test_a_truncated_safetensors_file_or_a_false_header_is_refused(resnet18, tmp_path):
    raw = safetensors_file(tmp_path / "x.safetensors", resnet18).read_bytes()
    for wrong in (raw[:-4], (2**62).to_bytes(8, "little") + raw[8:], raw[:5000]):
        (tmp_path / "y.safetensors").write_bytes(wrong)
        with pytest.raises(UserError, match="damaged or cut short"):
            pretrained.load("resnet18", tmp_path / "y.safetensors")


def test_weights_of_another_model_and_models_without_weights_are_refused(resnet18, tmp_path):
    path = safetensors_file(tmp_path / "x.safetensors", resnet18)
    for name, words in (
        ("resnet34", "no tensor 'layer1.2.conv1.weight' and .* more; is this a file of resnet34"),
        ("vgg_c", "is of torch, which has no weights of vgg_c"),
        ("resnet19", "no such model; nearest: .*resnet18"),
    ):
        with pytest.raises(UserError, match=words):
            pretrained.load(name, path)
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        pretrained.load("resnet18", tmp_path / "nowhere.pth")


TIMM = {
    "input_size": [3, 160, 160],
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [1] * 3,
}


def test_timm_s_config_and_torchvision_s_second_weights_change_the_preprocessing(
    resnet18, tmp_path
):
    path = safetensors_file(tmp_path / "model.safetensors", resnet18)
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


# --- Keras


def test_h5_files_with_names_of_keras_1_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["block1_conv1/block1_conv1_W_1:0"] = A
        file["block1_conv1/block1_conv1_b_1:0"] = A[0]
        file["model_weights/bn_1/bn_1/moving_variance:0"] = A
        file["model_weights/fc1/fc1/kernel:0"] = A
        file["optimizer_weights/momentum"] = A
    assert sorted(read(tmp_path / "x.h5")) == [
        "block1_conv1/bias",
        "block1_conv1/kernel",
        "bn_1/moving_variance",
        "fc1/kernel",
    ]


def test_hostile_and_broken_h5_files_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "other.bin").write_bytes(bytes(24))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = A
    many = h5py.VirtualLayout((2, 3), "f4")
    many[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (2, 3))
    cases = {
        "'l/kernel' lies in another file": lambda g: g.create_dataset(
            "kernel", (2, 3), "f4", external=[(str(tmp_path / "other.bin"), 0, 24)]
        ),
        "'l/kernel' lies in another file: not": lambda g: g.create_virtual_dataset("kernel", many),
        "'l/kernel' says 4000000000000 bytes": lambda g: g.create_dataset(
            "kernel", (10**12,), "f4", chunks=(1024,)
        ),
        "'l/kernel' is of type .*, not of numbers": lambda g: g.create_dataset(
            "kernel", data="text"
        ),
        "'predictions/kernel', the last": lambda g: g.__setitem__(
            "kernel", h5py.ExternalLink("other.h5", "secret")
        ),
    }
    for number, (words, make) in enumerate(cases.items()):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            make(file.create_group("l"))
        with pytest.raises(UserError, match=words):
            pretrained.load("resnet50", path)
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = A
    with pytest.raises(
        UserError, match=r"does not hold the name of layer conv2d, .*: save it as \.keras"
    ):
        pretrained.load("resnet50", tmp_path / "x.weights.h5")


def test_an_h5_that_misses_a_layer_names_it(tmp_path):
    h5py = pytest.importorskip("h5py")
    plan = names.make_plan("keras", "resnet50", {})
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for path, shape in match.list_shapes(
            "resnet50", 3, plan.options, plan.preprocessing
        ).items():
            layer, leaf = names.find_name("keras", plan, path.partition("/")[2]).split("/")
            if layer != "conv4_block6_2_conv":
                file[f"{layer}/{layer}/{leaf}:0"] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match="no tensor 'conv4_block6_2_conv/bias' and 1 more"):
        pretrained.load("resnet50", tmp_path / "x.h5")


def test_a_keras_file_with_a_compressed_or_invalid_part_is_refused(tmp_path):
    pytest.importorskip("h5py")
    for config, compression, words in (
        ("{}", zipfile.ZIP_DEFLATED, "config.json in compressed form"),
        ("[]", zipfile.ZIP_STORED, "damaged or cut short"),
        ('{"config": {"layers": []}}', zipfile.ZIP_STORED, "damaged or cut short"),
    ):
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            archive.writestr("config.json", config, compression)
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
        with pytest.raises(UserError, match=words):
            pretrained.load("resnet50", tmp_path / "x.keras")


def test_without_h5py_the_error_names_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match="pip install h5py"):
        pretrained.load("resnet50", tmp_path / "x.h5")


# --- our own files

OURS = [
    ("lenet5_modern", {"norm": "bn", "bn_epsilon": 1.001e-5}),
    ("mlp", {"hidden": (20, 30)}),
    ("lenet5", {}),
]


def make_weights(name, options, classes=4):
    model, draw = models.create(name, classes, **options), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    return jax.tree.map(
        lambda leaf: jnp.asarray(draw.standard_normal(leaf.shape, np.float32)), shapes
    )


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
        path.write_bytes(files.to_safetensors(arrays, wrong))
        with pytest.raises(UserError, match=words):
            pretrained.load("mlp", path)
    path.write_bytes(files.to_safetensors(drop_tensor(arrays, "params/Dense_0/bias"), told))
    with pytest.raises(UserError, match="no tensor 'params/Dense_0/bias'"):
        pretrained.load("mlp", path)


# --- preprocessing


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width", [(90, 120), (61, 40), (20, 31)])
def test_resizing_matches_pillow(method, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    recipe = Preprocessing(
        crop=28, mean=(0.0,) * 3, std=(1.0,) * 3, resize=32, interpolation=method, maximum=255.0
    )
    ours = np.asarray(recipe.apply(image[None])[0])
    size = [int(32 * side / min(height, width)) for side in (width, height)]
    theirs = np.asarray(
        Image.fromarray(image).resize(size, getattr(Image.Resampling, method.upper())), np.float32
    )
    top, left = (round((side - 28) / 2) for side in theirs.shape[:2])
    difference = np.abs(ours - theirs[top : top + 28, left : left + 28])
    assert (
        difference.max() <= 1 and difference.mean() < 0.04
    )  # Pillow computes in fixed-point arithmetic.


def test_channel_order_and_values_by_hand():
    image = np.zeros((1, 224, 224, 3), np.uint8) + np.array([255, 51, 0], np.uint8)
    keras = dataclasses.replace(KERAS_CAFFE, resize=0).apply(image)
    np.testing.assert_allclose(keras[0, 0, 0], [0 - 103.939, 51 - 116.779, 255 - 123.68], rtol=1e-5)
    torch = jax.jit(dataclasses.replace(TORCHVISION, resize=0).apply)(image)
    np.testing.assert_allclose(
        torch[0, 0, 0], [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225], rtol=1e-5
    )
    assert torch.dtype == jnp.float32


def test_an_image_smaller_than_the_crop_is_refused():
    with pytest.raises(UserError, match="images of 20x28 are smaller than the 28x28"):
        GRAY.apply(np.zeros((1, 20, 28, 1), np.uint8))


# --- downloads


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Returns (served folder, its URL, received requests). The cache is tmp_path / cache."""
    folder, seen = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def send_header(self, name, value):
            short = self.path.endswith("short.safetensors") and name == "Content-Length"
            super().send_header(name, str(int(value) + 10) if short else value)

        def log_message(self, *_):
            seen.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    yield folder, f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def cached(tmp_path):
    return sorted(
        path.name
        for path in (tmp_path / "cache").rglob("*")
        if path.is_file() or ".part" in path.name
    )


def test_a_url_is_fetched_once_and_checked(served, tmp_path):
    folder, url, seen = served
    params, stats = make_weights("mlp", {})
    pretrained.save(folder / "mlp.safetensors", "mlp", params, stats, 4, GRAY)
    digest = hashlib.sha256((folder / "mlp.safetensors").read_bytes()).hexdigest()
    good, bad = f"mlp-{digest[:8]}.safetensors", "mlp-01234567.safetensors"
    for name in (good, bad, "short.safetensors"):
        (folder / name).write_bytes((folder / "mlp.safetensors").read_bytes())
    for _ in range(2):
        loaded = pretrained.load("mlp", f"{url}/{good}")
        assert bool((loaded.params["Dense_1"]["kernel"] == params["Dense_1"]["kernel"]).all())
    assert len(seen) == 1 and cached(tmp_path) == [good]
    for name, words in (
        (bad, f"its SHA-256 begins with {digest[:8]}, not 01234567"),
        ("nowhere.pth", "the server says 404"),
        ("short.safetensors", r"cannot be fetched: .* bytes arrived; try again"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            pretrained.load("mlp", f"{url}/{name}")
        assert "\n" not in str(caught.value) and cached(tmp_path) == [good]


def test_files_of_one_name_in_several_folders_do_not_mix(served, tmp_path):
    folder, url, _ = served
    for name, options in (("a", {"hidden": (3,)}), ("b", {"hidden": (5,)})):
        (folder / name).mkdir()
        pretrained.save(
            folder / name / "model.safetensors",
            "mlp",
            *make_weights("mlp", options),
            4,
            GRAY,
            options,
        )
    for name, units in (("a", 3), ("b", 5)):
        loaded = pretrained.load("mlp", f"{url}/{name}/model.safetensors")
        assert loaded.params["Dense_0"]["bias"].shape == (units,)
    outside = f"{url}/../../../../{tmp_path}/outside.pth"
    with pytest.raises(UserError, match="404"):
        pretrained.load("mlp", outside)
    assert all(
        (tmp_path / "cache") in path.parents
        for path in tmp_path.rglob("model.safetensors")
        if folder not in path.parents
    )


def test_a_hub_s_config_is_downloaded_and_only_404_means_that_it_is_absent(
    served, resnet18, monkeypatch
):
    folder, url, _ = served
    monkeypatch.setattr(download, "HUB", "127.0.0.1")
    for name in ("with", "without"):
        (folder / name).mkdir()
        safetensors_file(folder / name / "model.safetensors", resnet18)
    (folder / "with" / "config.json").write_text(json.dumps(TIMM))
    assert pretrained.load("resnet18", f"{url}/with/model.safetensors").preprocessing.crop == 160
    assert (
        pretrained.load("resnet18", f"{url}/without/model.safetensors").preprocessing == TORCHVISION
    )

    def no_network(url, path):
        raise UserError("no network")

    monkeypatch.setattr(download, "_download", no_network)
    with pytest.raises(UserError, match="no network"):
        pretrained.load("resnet18", f"{url}/without/model.safetensors")


def test_errors_of_the_network_and_other_schemes_are_refused(served):
    free = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    free.server_close()
    for wrong, words in (
        (
            f"http://127.0.0.1:{free.server_port}/x.pth",
            "cannot be reached: .*; download it yourself and give its path",
        ),
        ("file:///etc/passwd", "must be a path, or a URL of https"),
        ("https://", "must be a path, or a URL of https"),
        ("http://[", "Invalid IPv6 URL"),
        ("http://127.0.0.1:1/a b.pth", "cannot be fetched: .* can't contain control characters"),
    ):
        with pytest.raises(UserError, match=words):
            pretrained.load("mlp", wrong)


# --- fine-tuning

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
