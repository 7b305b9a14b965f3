"""Convolutions one after another, whose cost a study compares; importing this imports no JAX."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConvChain:
    """Convolutions one after another, of stride 1; nothing is trained.

    Attributes:
      label: Its name in the table.
      group: The alternatives that it is compared with; the first of them is the measure.
      side: Height and width of the feature maps, which stay as large.
      inputs: Input channels.
      kernels: Height, width and output channels of each convolution.
      dilation: Of all kernels.
      source: Where figures are printed.
      paper: The printed figures: weights.
    """

    label: str
    group: str
    side: int
    inputs: int
    kernels: tuple[tuple[int, int, int], ...]
    dilation: int = 1
    source: str = ""
    paper: dict[str, float] = field(default_factory=dict)
