"""Settings for CPUs: XLA's flags and oneDNN's compiler options.

benchmarks/README.md has the measurements.
"""

import functools
import importlib.util
import logging
import os
import platform
import sys
import warnings
from collections.abc import MutableMapping
from importlib import metadata

# Without this flag XLA uses YNNPACK for convolutions, whose kernel gradients take up to four times
# as long as XLA's own.
FLAGS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}
# Compiler options by which oneDNN computes convolutions. It is even faster for feature maps of few
# channels.
ONEDNN = {"xla_cpu_use_onednn": True, "xla_cpu_experimental_onednn_custom_call": True}
# Tested versions of jaxlib (first, first untested). Other versions get no flags, because XLA aborts
# the process if it does not know a flag.
TESTED_JAXLIB, ONEDNN_JAXLIB = ((0, 10), (0, 13)), ((0, 12), (0, 13))
# Shorter runs do not use oneDNN: XLA cannot write a program that calls oneDNN to the compile cache
# (std::bad_alloc), so the next launch spends some seconds on compiling the program again. The first
# steps do not wait for that: see `cnn_jax.training.first_steps`.
MIN_ONEDNN_STEPS = 100
# An evaluation of fewer pixels (84 crops of 224x224) takes less time than it would gain.
MIN_ONEDNN_PIXELS = 2**22
# For batches of fewer values (B * H * W * C) the kernels are slower than plain XLA, because the
# overhead of each call exceeds its computation.
MIN_BATCH_VALUES = 2**13


def configure(environ: MutableMapping[str, str] = os.environ) -> str | None:
    """Sets XLA's flags for a CPU. Call it before JAX starts its backend.

    On x86 with a tested jaxlib, this function adds `FLAGS` to XLA_FLAGS, except flags that are
    already there. Elsewhere, and if XLA_FLAGS names a file of flags, it does nothing. JAX reads
    XLA_FLAGS once, when it starts its backend: at the first computation or listing of devices.

    Args:
      environ: The environment to change.

    Returns:
      None, or one line for the user if a CPU backend has already started without the flags.
    """
    given = environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in FLAGS.items() if f"--{name}" not in given]
    names_file = given.strip() and not given.lstrip().startswith("-")
    if not missing or names_file or not _is_x86_with(TESTED_JAXLIB):
        return None
    started = _find_started_platform() if environ is os.environ else None
    if started == "cpu":
        return (
            "JAX has already started without the flags that make it fast on a CPU: call"
            f" cnn_jax.cpu.configure() first, or set XLA_FLAGS={' '.join(missing)}"
        )
    if started is None:
        environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()
    return None


@functools.cache
def configure_once() -> None:
    """Calls `configure` once per process, and logs a warning if JAX has already started."""
    if too_late := configure():
        logging.getLogger("cnn_jax").warning(too_late)


def _find_started_platform() -> str | None:
    """Returns the platform of JAX's backend, or None if JAX has not started it."""
    # Functions of jax itself would start it.
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is None or not bridge.backends_are_initialized():
        return None
    return sys.modules["jax"].default_backend()


def computes_on_cpu() -> bool:
    """Returns whether JAX computes on a CPU.

    If JAX has not started its backend, this function starts it only where it could find another
    device: where the package of one is installed, unless JAX_PLATFORMS is cpu.
    """
    import jax

    platform = _find_started_platform()
    if platform is None and not _may_find_accelerator(jax.config.jax_platforms or ""):
        return True
    return (platform or jax.default_backend()) == "cpu"


def _may_find_accelerator(platforms: str) -> bool:
    """Returns whether JAX may find an accelerator, given the value of JAX_PLATFORMS."""
    if platforms:
        return platforms != "cpu"
    packages = ("jax_plugins", "libtpu")  # As JAX looks for them, besides entry points.
    plugins = metadata.entry_points(group="jax_plugins")
    return bool(plugins) or any(importlib.util.find_spec(name) for name in packages)


def choose_onednn_for_run(
    steps: int, values: int, environ: MutableMapping[str, str] = os.environ
) -> dict[str, bool]:
    """Returns the compiler options of a run on a CPU: those of oneDNN if the run is long.

    The options are those of the training step and of the evaluations during the run.

    Args:
      steps: Number of training steps of the run.
      values: Number of values of a batch of images, B * H * W * C.
      environ: The environment. If its XLA_FLAGS names one of oneDNN's options, the user has chosen,
        and no option is set.

    Returns:
      The argument `compiler_options` of `jax.jit`: `ONEDNN`, or {}.
    """
    is_long = steps >= MIN_ONEDNN_STEPS and values >= MIN_BATCH_VALUES
    return _choose_onednn(is_long, environ)


def choose_onednn_for_views(
    pixels: int, environ: MutableMapping[str, str] = os.environ
) -> dict[str, bool]:
    """Returns the compiler options of an evaluation by views on a CPU: oneDNN for many pixels.

    Args:
      pixels: Number of pixels of all views of all images, at the size that the model takes.
      environ: As in `choose_onednn_for_run`.

    Returns:
      The argument `compiler_options` of `jax.jit`: `ONEDNN`, or {}.
    """
    return _choose_onednn(pixels >= MIN_ONEDNN_PIXELS, environ)


def _choose_onednn(is_long: bool, environ: MutableMapping[str, str]) -> dict[str, bool]:
    given = environ.get("XLA_FLAGS", "")
    if not is_long or not _is_x86_with(ONEDNN_JAXLIB) or any(name in given for name in ONEDNN):
        return {}
    # Programs with oneDNN's operations cannot be written to the compile cache.
    warnings.filterwarnings(
        "ignore", "Error writing persistent compilation cache entry for .*MemoryError"
    )
    return ONEDNN


def _is_x86_with(versions: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    jaxlib = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return is_x86 and versions[0] <= jaxlib < versions[1]
