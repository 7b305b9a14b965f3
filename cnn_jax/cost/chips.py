"""TPU chips: Google's published figures, and the names of slices."""

import re
from typing import NamedTuple

from cnn_jax.errors import UserError


class Chip(NamedTuple):
    """The limits of one chip, published or, for a local device, measured.

    Attributes:
      name: In words.
      memory: Bytes.
      bandwidth: Bandwidth of that memory, in bytes per second.
      flops: FLOP/s in matrix products of bfloat16 on a TPU, of the run's own type elsewhere.
      interconnect: Bytes per second to and from all other chips together; None: unknown.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float
    interconnect: float | None


class Slice(NamedTuple):
    """A slice of a TPU pod: its chip and the number of chips."""

    chip: Chip
    count: int  # type: ignore[assignment] # Hides tuple.count.


# cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e: "HBM capacity", "HBM bandwidth" (v6e: of the
# page's 2025 edition, later rounded down), "Peak compute per chip (bf16)", "Bidirectional
# inter-chip interconnect (ICI) bandwidth (per chip)", for which v4's page has no number.
TPUS = {
    "v4": Chip("TPU v4", 32 * 2**30, 1.2e12, 275e12, None),
    "v5e": Chip("TPU v5e", 16e9, 819e9, 197e12, 400e9),
    "v5p": Chip("TPU v5p", 95e9, 2.765e12, 459e12, 1.2e12),
    "v6e": Chip("TPU v6e", 32e9, 1.64e12, 918e12, 800e9),
}
# JAX's device_kind of each generation.
DEVICE_KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
# The same pages: (dimensions of a slice, chips of the largest slice).
LIMITS = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 6144), "v6e": (2, 256)}
HELP = "write v5e:AxB or v6e:AxB, v4:AxBxC or v5p:AxBxC, for example v5e:4x4 or v5p:2x2x1"


def parse_topology(topology: str) -> Slice:
    """Returns the slice with a name such as 'v5e:4x4'.

    Raises:
      UserError: If there is no such generation, or its slices do not have these sides.
    """
    generation, _, sides = topology.partition(":")
    if generation not in TPUS or not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){1,5}", sides):
        raise UserError(f"topology={topology}: no such slice; {HELP}")
    count, (dimensions, most) = 1, LIMITS[generation]
    for side in sides.split("x"):
        count *= int(side)
    if sides.count("x") + 1 != dimensions or count > most:
        raise UserError(
            f"topology={topology}: a {generation} slice has {dimensions} sides and at most"
            f" {most:,} chips"
        )
    return Slice(TPUS[generation], count)
