"""Files of weights that would take long, and damaged ones, are refused in bounded time."""

import io
import pickletools
import time
import zipfile

import numpy as np
import pytest
from helpers.torch_pickles import A, Call, Name, opcodes, pickled, tensor, write_pickle, write_zip
from helpers.weight_files import WRITERS, read_all

from cnn_jax import pretrained
from cnn_jax.errors import UserError
from cnn_jax.pretrained import keras_files, torch_pickle

SECONDS = 5  # It takes a second on an idle machine.
MANY = 3_000_000


def refuse(path, words):
    """Checks that the file is refused with these words, in bounded process time."""
    begin = time.process_time()
    with pytest.raises(UserError, match=words) as caught:
        pretrained.load("resnet18", path)
    assert time.process_time() - begin < SECONDS
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


NESTED = b")" + b"\x85" * MANY
WIDE = b"(" + b")" * MANY + b"t"
TEXT = b"X" + (20 * 2**20).to_bytes(4, "little") + b"a" * 20 * 2**20


@pytest.mark.parametrize("content", [NESTED, WIDE, TEXT], ids=["nested", "wide", "text"])
def test_a_pickle_larger_than_weights_need_is_refused(content, tmp_path):
    refuse(
        write_pickle(tmp_path / "zip.pth", b"\x80\x02" + content + b"."),
        "a pickle of more than .*: more than weights need; save",
    )
    stream = tmp_path / "stream.pth"
    stream.write_bytes(b"\x80\x02" + content + b".")
    refuse(stream, "a pickle of more than .*: more than weights need; save")


def test_a_list_that_is_expanded_repeatedly_is_refused(tmp_path):
    """Each call has three instructions and would copy 10,000 entries."""
    pairs = b"](" + b"".join(opcodes((str(i), i)) for i in range(10_000)) + b"e"
    arguments = pairs + b"\x85q\x00" + opcodes(Name("collections.OrderedDict")) + b"q\x01"
    refuse(
        write_pickle(tmp_path / "x.pth", b"\x80\x02" + arguments + b"h\x01h\x00R" * 30_000 + b"."),
        "more than weights need",
    )


def test_a_tensor_of_many_dimensions_is_refused(tmp_path):
    shape = (1,) * 1_000
    state = {"w": tensor(A, "0", shape=shape, strides=shape)}
    refuse(
        write_zip(tmp_path / "x.pth", state, {"0": A}), "a call of torch._utils._rebuild_tensor_v2"
    )


class Zeros:
    """A file of zeros, sparse if the file system supports it."""

    def __init__(self, size):
        self.size = size

    def write_to(self, archive, entry):
        block = bytes(2**20)
        info = zipfile.ZipInfo(entry)
        info.file_size = self.size
        with archive.open(info, "w", force_zip64=True) as file:
            for _ in range(self.size // len(block)):
                file.write(block)


# Instead of 1.5 GB, 64 MB: larger than any part may be, except for the weights themselves.
@pytest.mark.parametrize(
    "entries, words",
    [
        ({"net/data.pkl": Zeros(2**26)}, "cannot be read, it may be damaged"),
        (
            {"net/data.pkl": b"\x80\x02}.", "net/byteorder": Zeros(2**26)},
            "net/byteorder of 67,108,864 bytes; at most 16",
        ),
        (
            {"config.json": Zeros(2**26), "model.weights.h5": b""},
            "config.json of 67,108,864 bytes; at most 4,194,304",
        ),
        (
            {"config.json": b'{"config": {"layers": []}}', "model.weights.h5": Zeros(2**26)},
            "a model.weights.h5 that is no HDF5 file",
        ),
    ],
    ids=["pickle", "byteorder", "config", "weights"],
)
def test_an_entry_of_zeros_is_not_read(entries, words, tmp_path, monkeypatch):
    path, read = tmp_path / "x.pth", []
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            if isinstance(content, Zeros):
                content.write_to(archive, entry)
            else:
                archive.writestr(entry, content)
    whole = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda file, *n: read.append(whole(file, *n)) or read[-1]
    )
    refuse(path, words)
    assert sum(map(len, read)) < 2**20


def test_weights_larger_than_any_published_ones_are_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_files, "MAX_WEIGHTS_BYTES", 1_000)
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", '{"config": {"layers": []}}')
        archive.writestr("model.weights.h5", keras_files.HDF5_SIGNATURE + bytes(2_000))
    refuse(tmp_path / "x.keras", "model.weights.h5 of 2,008 bytes; at most 1,000")


def test_a_zip_with_many_entries_is_refused_before_listing_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        for number in range(100_000):
            info = zipfile.ZipInfo(f"net/data/{number}")
            info.header_offset = info.CRC = 0
            archive.filelist.append(info)
        archive.writestr("net/byteorder", "little")
    refuse(tmp_path / "x.pth", "its list of tensors takes .* bytes; at most 4,194,304")


def test_a_safetensors_header_larger_than_weights_need_is_refused(tmp_path):
    header = b'{"a":' + b" " * 5 * 2**20 + b"{}}"
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refuse(tmp_path / "x.safetensors", "its list of tensors takes .* bytes")


def test_an_h5_of_many_groups_is_refused(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(keras_files, "MAX_OBJECTS", 50)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(60):
            file.create_group(f"g{number}")
    refuse(tmp_path / "x.h5", "more than 50 objects: more than weights have")


def test_the_bounds_leave_room_for_the_largest_model():
    """They are five times ResNet-152's state dict, with names as long as in three wrappers."""
    state = {
        f"module.module.module.layer3.35.bn{i}.running_mean": tensor(A, str(i))
        for i in range(1_000)
    }
    text = pickled(Call("collections.OrderedDict", ([list(pair) for pair in state.items()],)))
    assert len(text) * 5 < torch_pickle.MAX_PICKLE_BYTES
    assert len(torch_pickle.unpickle(io.BytesIO(text))) == 1_000
    assert sum(1 for _ in pickletools.genops(text)) * 5 < torch_pickle.MAX_INSTRUCTIONS


# --- damaged files: any bytes give a UserError or tensors of the written shapes


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_file_is_refused_or_read(kind, tmp_path):
    """250 times, bits are flipped, bytes replaced, or parts removed."""
    raw = WRITERS[kind](tmp_path / "whole").read_bytes()
    good = read_all(tmp_path / "whole")
    rng, path = np.random.default_rng(0), tmp_path / "damaged"
    refused = 0
    for number in range(250):
        damaged = bytearray(raw)
        place = int(rng.integers(len(raw)))
        if number % 3 == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif number % 3 == 1:
            damaged[place : place + 4] = rng.bytes(4)
        else:
            del damaged[place : len(raw) if number % 2 else place + int(rng.integers(1, 20))]
        path.write_bytes(damaged)
        begin = time.process_time()
        try:
            found = pretrained.load("mlp", path).params if kind == "ours" else read_all(path)
            assert found
        except UserError:
            refused += 1
        assert time.process_time() - begin < SECONDS, damaged
    assert refused >= 100, "most of the damage cuts something off"
    assert good
