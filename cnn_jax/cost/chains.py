"""Chains of convolutions, whose cost a study compares. This module does not import JAX."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConvChain:
    """A chain of convolutions of stride 1, which is not trained.

    Attributes:
      label: Its name in the table.
      group: The alternatives that it is compared with. Ratios are to the first of them.
      side: Height and width of all feature maps.
      inputs: Input channels.
      kernels: Height, width and output channels of each convolution.
      dilation: Dilation of all kernels.
      source: The source of the printed figures.
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
