"""Whether layers take this library's routes for a CPU, or leave all to XLA: the one place that chooses.

The routes: convolution (`conv.py`), maxima's gradient (`pooling.py`), sums over all but the channels (`sums.py`). What
each is worth: benchmarks/README.md.
"""

import os

import jax

from cnn_jax import mesh
from cnn_jax.cpu.settings import FEW
from cnn_jax.errors import UserError

_CHOICE = os.environ.get("CNN_JAX_ROUTES", "")
if _CHOICE not in ("", "xla", "cpu"):
    raise UserError(f"CNN_JAX_ROUTES={_CHOICE}: set it to xla (plain XLA) or cpu (our routes), or unset it.")


def cpu(x: jax.Array) -> bool:
    """Whether ours are taken for this input: on a CPU. CNN_JAX_ROUTES=xla or cpu, read at import, says otherwise."""
    return _CHOICE == "cpu" or (not _CHOICE and x.size >= FEW and mesh.platform() == "cpu")


def parts(count: int, size: int) -> list[slice]:
    """`count` images or rows in parts of at most `size`, where there is one device; else whole.

    A batch that lies on several devices would be sent around between them.
    """
    size = size if jax.device_count() == 1 else count
    return [slice(first, first + size) for first in range(0, count, size)]
