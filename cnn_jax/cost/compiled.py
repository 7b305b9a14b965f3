"""The compiler's report on a program, and its cache for devices that are not attached.

The compiler of TPUs takes minutes for a large model. JAX's compile cache does not help where no TPU
is attached, because JAX loads a program that it reads from the cache onto a device.
"""

import contextlib
import gzip
import hashlib
import json
import os
import zlib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax

from cnn_jax.files import write_whole

# Besides the program these decide what is compiled.
PACKAGES = ("jax", "jaxlib", "libtpu")
VARIABLES = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")


class CompilerReport(NamedTuple):
    """A compiler's report on a program, for one device.

    Attributes:
      text: The compiled program's HLO text.
      flops: FLOPs; a loop's body counts once.
      bytes_accessed: Bytes read and written.
      memory_parts: Bytes of arguments, temporaries, outputs and the program.
    """

    text: str
    flops: float
    bytes_accessed: float
    memory_parts: dict[str, int]


def compile_for_report(
    lowered: jax.stages.Lowered, topology: str | None = None, folder: Path | None = None
) -> CompilerReport:
    """Compiles a program, or reads the compiler's earlier report on it.

    Args:
      lowered: The program.
      topology: The TPU slice for which it is lowered; None: for devices of this machine.
      folder: Where reports of programs for slices are kept; None: nowhere.

    Raises:
      jax.errors.JaxRuntimeError: If the compiler fails, also because the program needs more memory
        than a device has.
    """
    if topology is None or folder is None:
        return _compile(lowered)
    path = folder / f"plan-{_compute_digest(lowered, topology)}.json.gz"
    if (kept := _read_report(path)) is None:
        kept = _compile(lowered)
        with contextlib.suppress(OSError):  # It is compiled again the next time.
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, gzip.compress(json.dumps(kept._asdict()).encode()))
    return kept


def _compile(lowered: jax.stages.Lowered) -> CompilerReport:
    compiled = lowered.compile()
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    assert memory is not None and cost is not None and text is not None  # of CPU, GPU and TPU
    return CompilerReport(
        text=text,
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        memory_parts={
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "program": memory.generated_code_size_in_bytes,
        },
    )


def _compute_digest(lowered: jax.stages.Lowered, topology: str) -> str:
    versions = [_find_version(name) for name in PACKAGES]
    variables = [os.environ.get(name, "") for name in VARIABLES]
    words = "\0".join([topology, *versions, *variables, lowered.as_text()])
    return hashlib.sha256(words.encode()).hexdigest()


def _find_version(package: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def _read_report(path: Path) -> CompilerReport | None:
    """Returns the report of a file; None: there is none, or it is damaged."""
    try:
        return CompilerReport(**json.loads(gzip.decompress(path.read_bytes())))
    except (OSError, EOFError, zlib.error, ValueError, TypeError):
        return None
