"""PyTorch's files, written by hand, so that tests do not need PyTorch."""

import dataclasses
import zipfile

import ml_dtypes
import numpy as np

from cnn_jax.pretrained.torch_files import MAGIC, PROTOCOL


@dataclasses.dataclass(frozen=True)
class Call:
    """In a pickle: the result of calling a global, which then gets a state."""

    name: str
    arguments: tuple = ()
    state: object = None


@dataclasses.dataclass(frozen=True)
class Name:
    """In a pickle: a global."""

    name: str


@dataclasses.dataclass(frozen=True)
class Outside:
    """In a pickle: a reference to something outside of it."""

    value: tuple


def opcodes(value):
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if abs(value) < 2**31:
            return b"J" + value.to_bytes(4, "little", signed=True)
        case int():
            raw = value.to_bytes(16, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case str():
            return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
        case Name(name):
            module, _, leaf = name.rpartition(".")
            return f"c{module}\n{leaf}\n".encode()
        case Outside(inside):
            return opcodes(inside) + b"Q"
        case Call(name, arguments, state):
            built = opcodes(state) + b"b" if state is not None else b""
            return opcodes(Name(name)) + opcodes(arguments) + b"R" + built
        case bytes():
            return value  # Opcodes already.


def pickled(value):
    return b"\x80\x02" + opcodes(value) + b"."


KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "bfloat16": "BFloat16"}


def tensor(array, key, *, shape=None, strides=None, offset=0, size=None, view=None):
    kind = "BFloat16" if array.dtype == ml_dtypes.bfloat16 else KINDS[array.dtype.str[1:]]
    storage = Outside(
        (
            "storage",
            Name(f"torch.{kind}Storage"),
            key,
            "cpu",
            array.size if size is None else size,
            view,
        )
    )
    if view is None:
        storage = Outside(storage.value[:5])
    strides = strides or tuple(stride // array.itemsize for stride in array.strides)
    shape = shape or array.shape
    hooks = Call("collections.OrderedDict")
    return Call("torch._utils._rebuild_tensor_v2", (storage, offset, shape, strides, False, hooks))


def write_zip(path, state, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled(state))
        archive.writestr("net/byteorder", "little", zipfile.ZIP_STORED)
        for key, array in storages.items():
            archive.writestr(f"net/data/{key}", array.tobytes())
    return path


def write_pickle(path, content):
    """A file as torch writes it, of a pickle that is given, without tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/byteorder", "little")
    return path


def write_stream(path, state, storages):
    heads = (
        MAGIC,
        PROTOCOL,
        {"little_endian": True, "protocol_version": PROTOCOL},
        state,
        list(storages),
    )
    raw = b"".join(
        array.size.to_bytes(8, "little") + array.tobytes() for array in storages.values()
    )
    path.write_bytes(b"".join(map(pickled, heads)) + raw)
    return path


A = np.arange(6, dtype=np.float32).reshape(2, 3)
