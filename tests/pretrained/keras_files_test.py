"""Weights in Keras's files."""

import zipfile

import numpy as np
import pytest
from helpers.torch_pickles import A, write_stream, write_zip
from helpers.weight_files import read_arrays

from cnn_jax import pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import Preprocessing, match, names

GRAY = Preprocessing(crop=28, mean=(0.1,), std=(0.3,))

WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])


def test_h5_files_with_names_of_keras_1_are_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["block1_conv1/block1_conv1_W_1:0"] = A
        file["block1_conv1/block1_conv1_b_1:0"] = A[0]
        file["model_weights/bn_1/bn_1/moving_variance:0"] = A
        file["model_weights/fc1/fc1/kernel:0"] = A
        file["optimizer_weights/momentum"] = A
    assert sorted(read_arrays(tmp_path / "x.h5")) == [
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
    layout = names.find_layout("keras", "resnet50", {})
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for path, shape in match.list_shapes(
            "resnet50", 3, layout.options, layout.preprocessing
        ).items():
            layer, leaf = names.find_name("keras", layout, path.partition("/")[2]).split("/")
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
