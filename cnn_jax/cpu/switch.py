"""Switches the CPU kernels on and off: the variable CNN_JAX_ROUTES, or `use` in Python."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import jax

from cnn_jax import mesh
from cnn_jax.cpu.settings import MIN_BATCH_VALUES
from cnn_jax.errors import UserError

VARIABLE = "CNN_JAX_ROUTES"
CHOICES = ("", "xla", "cpu")
_choice: ContextVar[str | None] = ContextVar("_choice", default=None)


def read_choice() -> str:
    """Reads the switch.

    Returns:
      "xla" (plain XLA everywhere), "cpu" (CPU kernels everywhere) or "" (by platform and size).

    Raises:
      UserError: If CNN_JAX_ROUTES has another value.
    """
    inside = _choice.get()
    choice = os.environ.get(VARIABLE, "") if inside is None else inside
    if choice not in CHOICES:
        raise UserError(
            f"{VARIABLE}={choice}: set it to xla (plain XLA) or cpu (CPU kernels), or unset it"
        )
    return choice


@contextlib.contextmanager
def use(choice: str) -> Iterator[None]:
    """Sets the switch for code that is traced inside the block, instead of CNN_JAX_ROUTES.

    Args:
      choice: "xla", "cpu" or "", as `read_choice` returns them.

    Raises:
      UserError: If there is no such choice.

    Example:
      with switch.use("xla"):
          y, dy = jax.jvp(loss, (params,), (direction,))
    """
    token = _choice.set(choice)
    try:
        read_choice()
        yield
    finally:
        _choice.reset(token)


def are_kernels_enabled(x: jax.Array) -> bool:
    """Returns whether the CPU kernels handle an input. By default they do if it is large, on a CPU.

    Args:
      x: The input, of any shape.
    """
    choice = read_choice()
    if choice:
        return choice == "cpu"
    return x.size >= MIN_BATCH_VALUES and mesh.get_platform() == "cpu"


def is_on_cpu() -> bool:
    """Returns whether to use optimizations for CPUs that do not depend on the size of an input."""
    return (read_choice() or mesh.get_platform()) == "cpu"


def are_rewrites_enabled() -> bool:
    """Returns whether to use rewrites that help on a CPU and cost nothing on other platforms."""
    return read_choice() != "xla"


def are_chunks_enabled() -> bool:
    """Returns whether to compute sums over a batch in chunks, which needs a single device.

    With several devices, a chunk of the batch would have to be moved between them.
    """
    return jax.device_count() == 1
