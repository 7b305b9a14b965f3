"""What a CPU needs to be told to be fast: XLA's flags, before JAX starts; oneDNN, for long runs; memory, kept.

Measured figures, and what each is worth: benchmarks/README.md.
"""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import MutableMapping
from importlib import metadata

# XLA gives convolutions to YNNPACK, whose kernel gradients take up to four times as long as XLA's own.
FLAGS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
# oneDNN is faster still where maps have few channels.
ONEDNN = {"xla_cpu_use_onednn": True, "xla_cpu_experimental_onednn_custom_call": True}
# Versions of jaxlib that were tried, from and below: XLA ends a process whose flags it does not know.
TRIED, WITH_ONEDNN = ((0, 10), (0, 13)), ((0, 12), (0, 13))
# Steps from which a run has oneDNN. A program that calls it cannot be kept for the next launch (XLA fails to write it,
# std::bad_alloc), which then compiles for some seconds again.
LONG = 100
# Values of a batch below which all this, and our routes, lose: each call then costs more than what it computes.
FEW = 2**13

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def choose_flags(environ: MutableMapping[str, str] = os.environ) -> None:
    """Adds FLAGS to XLA_FLAGS, on x86 only; what XLA_FLAGS says already stands. No effect once JAX has started."""
    said = environ.get("XLA_FLAGS", "")
    if _x86_with(TRIED):
        ours = [f"--{name}={value}" for name, value in FLAGS.items() if f"--{name}" not in said]
        environ["XLA_FLAGS"] = " ".join([said, *ours]).strip()


def compiler_options(steps: int, values: int, environ: MutableMapping[str, str] = os.environ) -> dict[str, bool]:
    """For jax.jit, of a training step that runs `steps` times on a CPU, on batches of so many values (all pixels).

    Flags that XLA_FLAGS names are left to it.
    """
    if (
        steps < LONG
        or values < FEW
        or not _x86_with(WITH_ONEDNN)
        or any(name in environ.get("XLA_FLAGS", "") for name in ONEDNN)
    ):
        return {}
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry for 'jit_step'")
    return ONEDNN


def _x86_with(versions: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    jaxlib = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    return platform.machine().lower() in ("x86_64", "amd64") and versions[0] <= jaxlib < versions[1]


def keep_memory(values: int) -> None:
    """Has glibc keep the memory that is freed, for the life of this process, where batches have so many values.

    Elsewhere than on Linux does nothing.

    XLA asks for the memory of all of a step's temporaries anew at each step, hundreds of megabytes, which by default
    goes back to the system each time: its pages are then zeroed and mapped again, one by one. The price: a process
    may hold two or three times what a step needs. With one arena threads wait for each other, which small batches
    would feel (LeNet-5 at batch 1: half the speed), where the others gain a tenth.
    """
    if values < FEW or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)
