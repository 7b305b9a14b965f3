"""What XLA and the C library are told on a CPU: XLA's flags, oneDNN's options, and malloc's.

benchmarks/README.md has the measurements.
"""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import MutableMapping
from importlib import metadata

# Without this XLA gives convolutions to YNNPACK, whose kernel gradients take up to four times as
# long as XLA's own.
FLAGS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
# oneDNN is faster still where feature maps have few channels.
ONEDNN = {"xla_cpu_use_onednn": True, "xla_cpu_experimental_onednn_custom_call": True}
# Tested versions of jaxlib, from the first up to but not including the second: XLA ends a process
# that has a flag it does not know.
TESTED_JAXLIB, ONEDNN_JAXLIB = ((0, 10), (0, 13)), ((0, 12), (0, 13))
# Runs of fewer steps do not use oneDNN: a program that calls it cannot be kept in the compilation
# cache (XLA fails to write it, std::bad_alloc), so the next launch compiles for some seconds again.
MIN_ONEDNN_STEPS = 100
# Batches of fewer values (all pixels) lose by everything in this package: each call then costs
# more than what it computes.
MIN_BATCH_VALUES = 2**13

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def configure(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """Sets XLA's flags for a CPU; call it before JAX starts its backend.

    On x86 with a tested jaxlib it adds `FLAGS` to XLA_FLAGS; a flag that XLA_FLAGS names already
    keeps its value. Elsewhere it does nothing. JAX starts its backend when it first computes or
    lists its devices, and reads XLA_FLAGS then, once.

    Args:
      environ: The environment to change.

    Returns:
      None, or one line to show the user if it is too late: a CPU backend runs without the flags.
    """
    given = environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in FLAGS.items() if f"--{name}" not in given]
    if not missing or not _is_x86_with(TESTED_JAXLIB):
        return None
    started = _started_platform() if environ is os.environ else None
    if started == "cpu":
        return (
            "JAX runs already, without the flags that make it fast on a CPU: call"
            f" cnn_jax.cpu.configure() first, or set XLA_FLAGS={' '.join(missing)}"
        )
    if started is None:
        environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()
    return None


def _started_platform() -> str | None:
    """The platform of JAX's backend, or None if JAX has not started it."""
    # Asking jax itself would start it.
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is None or not bridge.backends_are_initialized():
        return None
    return sys.modules["jax"].default_backend()


def compiler_options(
    steps: int, values: int, environ: MutableMapping[str, str] = os.environ
) -> dict[str, bool]:
    """Chooses the compiler options of a training step on a CPU: oneDNN for long runs.

    Args:
      steps: How often the step will run.
      values: Values of a batch of images, B * H * W * C.
      environ: The environment; options that its XLA_FLAGS names are left to it.

    Returns:
      `compiler_options` of `jax.jit`.
    """
    if (
        steps < MIN_ONEDNN_STEPS
        or values < MIN_BATCH_VALUES
        or not _is_x86_with(ONEDNN_JAXLIB)
        or any(name in environ.get("XLA_FLAGS", "") for name in ONEDNN)
    ):
        return {}
    warnings.filterwarnings(
        "ignore", "Error writing persistent compilation cache entry for 'jit_step'"
    )
    return ONEDNN


def _is_x86_with(versions: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    jaxlib = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return is_x86 and versions[0] <= jaxlib < versions[1]


def keep_memory(values: int) -> None:
    """Keeps freed memory with this process, for the rest of its life.

    XLA allocates the memory of all of a step's temporaries anew at each step, hundreds of
    megabytes, which glibc by default returns to the system each time; the system then zeroes and
    maps its pages again, one by one. The price: a process may hold two or three times what a step
    needs. With one arena threads wait for each other, which small batches feel (LeNet-5 at batch
    1: half the speed), while the others gain a tenth.

    Args:
      values: Values of a batch, B * H * W * C. Nothing changes below `MIN_BATCH_VALUES`, or
        elsewhere than on Linux with glibc.
    """
    if values < MIN_BATCH_VALUES or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)
