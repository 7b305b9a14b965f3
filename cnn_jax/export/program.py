"""StableHLO programs: a model with its weights, which JAX runs without this library."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export
from jax.typing import DTypeLike

from cnn_jax.cpu import switch
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole

PLATFORMS = ("cpu", "cuda", "tpu")
Forward = Callable[[jax.Array], jax.Array]


def make_program(
    forward: Forward,
    image_shape: Sequence[int],
    dtype: DTypeLike = jnp.float32,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Traces a function of a batch of any size.

    The kernels that make training fast on CPUs are left out, so that one program runs everywhere.

    Args:
      forward: images [B, H, W, C] -> logits [B, classes]. The arrays that it closes over, such as
        parameters, become part of the program.
      image_shape: (H, W, C).
      dtype: Data type of the images.
      platforms: On which the program can run.

    Returns:
      The program; `.call(images)` runs it, and `.mlir_module()` is its text.

    Example:
      >>> program = make_program(lambda x: x.mean((1, 2)), (32, 32, 3))
      >>> program.call(jnp.ones((2, 32, 32, 3))).shape
      (2, 3)
      >>> program.call(jnp.ones((5, 32, 32, 3))).shape
      (5, 3)
    """
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), dtype)
    with switch.use("xla"):
        return export.export(jax.jit(forward), platforms=tuple(platforms))(images)


def save_program(path: str | os.PathLike[str], program: export.Exported) -> None:
    """Writes a program to a file, whole or not at all.

    Raises:
      UserError: If the file cannot be written.
    """
    with explain_os_errors(f"cannot write {path}"):
        write_whole(Path(path), bytes(program.serialize()))


def load_program(path: str | os.PathLike[str]) -> export.Exported:
    """Reads a program that `save_program` wrote.

    Outside of this library, jax.export.deserialize(bytearray(...)) does the same.

    Raises:
      UserError: If the file cannot be read, or is no such program.
    """
    try:
        return export.deserialize(bytearray(Path(path).read_bytes()))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # flatbuffers raises whatever the bytes lead it to.
        raise UserError(f"{path} is no program of jax.export, or is damaged") from error
