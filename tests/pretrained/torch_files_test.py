"""Weights in PyTorch's files: every kind of tensor, and files that are refused."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
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
from helpers.weight_files import read_arrays

from cnn_jax import pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing, files, match

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


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
    got = read_arrays(write(tmp_path / "x.pth", state, storages))
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
    got = read_arrays(write(tmp_path / "x.pth", ordered, {"0": A}))
    np.testing.assert_array_equal(got["transposed"], A.T)
    np.testing.assert_array_equal(got["row"], A[1])
    np.testing.assert_array_equal(got["parameter"], A)
    np.testing.assert_array_equal(got["0.1"], A)


def test_a_view_in_the_old_stream_format_is_read(tmp_path):
    state = {"part": tensor(A, "0", shape=(2,), strides=(1,), view=("1", 2, 2))}
    np.testing.assert_array_equal(
        read_arrays(write_stream(tmp_path / "x.pth", state, {"0": A}))["part"], [2, 3]
    )


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
        read_arrays(whole)


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
        match.read_parameter(match.TensorSource("w", A.shape), files.open_weights(path).tensors)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04nothing", b"hello, this is text", b"\x89HDF\r\n\x1a\nnothing"]
)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth: (is no \.safetensors|cannot be read)"):
        pretrained.load("resnet18", tmp_path / "x.pth")
