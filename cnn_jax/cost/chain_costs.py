"""What a chain of convolutions costs: weights, multiply-adds and the receptive field."""

from typing import NamedTuple

import flax.linen as nn
import jax

from cnn_jax.cost.chains import ConvChain
from cnn_jax.cost.summary import add_up, list_calls
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.sizes import compute_effective_size


class Chain(nn.Module):
    """The convolutions of a chain, without biases and with SAME padding.

    Attributes:
      chain: Their kernels.
    """

    chain: ConvChain

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the feature maps [B, side, side, C] of images [B, side, side, inputs]."""
        for height, width, channels in self.chain.kernels:
            x = Conv(
                channels, (height, width), kernel_dilation=self.chain.dilation, use_bias=False
            )(x)
        return x


class ChainCost(NamedTuple):
    """The cost of a chain of convolutions per image.

    Attributes:
      weights: Trained numbers.
      multiply_adds: Multiply-adds of a forward pass.
      receptive_field: [height, width] in pixels on which one output depends.
    """

    weights: int
    multiply_adds: int
    receptive_field: list[int]


def count_convolutions(chain: ConvChain) -> ChainCost:
    """Counts the cost of a chain of convolutions per image."""
    module = Chain(chain)
    image = (chain.side, chain.side, chain.inputs)
    layers = list_calls(module.lazy_init, image)
    field = [
        1
        + sum(compute_effective_size(kernel[axis], chain.dilation) - 1 for kernel in chain.kernels)
        for axis in (0, 1)
    ]
    parameters, multiply_adds, _ = add_up(layers)
    return ChainCost(parameters, multiply_adds, field)
