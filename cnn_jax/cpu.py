"""What a CPU needs to be told to be fast: XLA's flags, before JAX starts; the C library's memory, when a run begins.

Measured figures, and what each is worth: benchmarks/README.md.
"""

import ctypes
import os
import platform
import sys
from collections.abc import MutableMapping
from importlib import metadata

# oneDNN takes convolutions and matrix products where XLA was built with it (x86, JAX 0.12). YNNPACK, to which XLA
# gives convolutions otherwise, keeps them from it and is slower; without oneDNN (JAX 0.10) XLA's own are faster too.
FLAGS = {
    "xla_cpu_use_onednn": "true",
    "xla_cpu_experimental_onednn_custom_call": "true",
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
}
TESTED = ((0, 10), (0, 13))  # versions of jaxlib, from and below: XLA ends a process whose flags it does not know

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def choose_flags(environ: MutableMapping[str, str] = os.environ) -> None:
    """Adds FLAGS to XLA_FLAGS, on x86 only; what XLA_FLAGS says already stands.

    Without effect once JAX has started.
    """
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    if platform.machine().lower() not in ("x86_64", "amd64") or not TESTED[0] <= version < TESTED[1]:
        return
    said = environ.get("XLA_FLAGS", "")
    environ["XLA_FLAGS"] = " ".join(
        [said, *(f"--{name}={value}" for name, value in FLAGS.items() if f"--{name}" not in said)]
    ).strip()


def keep_memory() -> None:
    """Has glibc keep the memory that is freed, for the life of this process; elsewhere than on Linux does nothing.

    XLA asks for the memory of all of a step's temporaries anew at each step, hundreds of megabytes, which by default
    goes back to the system each time: its pages are then zeroed and mapped again, one by one.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)
