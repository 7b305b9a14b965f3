"""What a TPU chip has, as Google prints it, and how its slices are named."""

import re
from typing import NamedTuple

from cnn_jax.errors import UserError


class Chip(NamedTuple):
    """What bounds a step on one chip; of a chip that is here, what was measured.

    Attributes:
      name: in words.
      memory: bytes.
      bandwidth: of that memory, bytes a second.
      flops: a second, in products of bfloat16 on a TPU, of the run's own type elsewhere.
      interconnect: bytes a second to all other chips and from them together; None: not known.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float
    interconnect: float | None


# cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e: "HBM capacity", "HBM bandwidth" (v6e: of the page's 2025 edition,
# later rounded down), "Peak compute per chip (bf16)", "Bidirectional inter-chip interconnect (ICI) bandwidth (per
# chip)", for which v4's page has no number.
TPUS = {
    "v4": Chip("TPU v4", 32 * 2**30, 1.2e12, 275e12, None),
    "v5e": Chip("TPU v5e", 16e9, 819e9, 197e12, 400e9),
    "v5p": Chip("TPU v5p", 95e9, 2.765e12, 459e12, 1.2e12),
    "v6e": Chip("TPU v6e", 32e9, 1.64e12, 918e12, 800e9),
}
KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}  # as JAX calls them
# The same pages: sides of a slice, and the chips of the largest one that can be had.
SLICES = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 6144), "v6e": (2, 256)}
FORMS = "write v5e:AxB or v6e:AxB, v4:AxBxC or v5p:AxBxC, for example v5e:4x4 or v5p:2x2x1"


def of_topology(topology: str) -> tuple[Chip, int]:
    """(the chip, how many) of a slice, 'v5e:4x4'; raises UserError where its name is not of that form."""
    generation, _, sides = topology.partition(":")
    if generation not in TPUS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", sides):
        raise UserError(f"--topology={topology}: no such slice; {FORMS}")
    count, (dimensions, most) = 1, SLICES[generation]
    for side in sides.split("x"):
        count *= int(side)
    if sides.count("x") + 1 != dimensions or count > most:
        raise UserError(
            f"--topology={topology}: a {generation} slice has {dimensions} sides and at most {most:,} chips"
        )
    return TPUS[generation], count
