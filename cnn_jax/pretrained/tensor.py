"""A tensor in a file: its shape, known at once, and its values, read when they are needed."""

import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError


class Tensor(NamedTuple):
    """A tensor in a file.

    Attributes:
      shape: The file has been checked to have the bytes for it.
      read: Returns the values, of any number type.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


# What the readers of files raise where bytes are not what they should be.
READ_ERRORS = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)
