"""Chains of convolutions: the papers' weights, and receptive fields against measured ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.cost.chain_costs import Chain, count_convolutions
from experiments.conv_arithmetic import CHAINS


def test_kernels_have_the_papers_costs():
    printed = [s for s in CHAINS if s.paper]
    assert len(printed) == 6
    for stack in printed:
        # The lectures do not count the 1x1 itself.
        left_out = 128 * 32 if stack.label.startswith("1x1") else 0
        assert count_convolutions(stack).weights == stack.paper["weights"] + left_out, stack.label
    # VGG, Sec. 2.3: 27 C^2 for three 3x3, 49 C^2 for a 7x7; GoogLeNet: 4,096 + 204,800 for 819,200
    assert {s.paper["weights"] / s.inputs**2 for s in printed if s.group == "for a 7x7"} == {27, 49}


@pytest.mark.parametrize("stack", CHAINS, ids=lambda s: f"{s.group}: {s.label}")
def test_a_stack_of_kernels_has_the_receptive_field_of_its_alternative(stack):
    """The receptive field is measured: the pixels on which the center of the output depends."""
    found = count_convolutions(stack)
    assert found.multiply_adds == 28 * 28 * found.weights
    kernels = tuple((h, w, 1) for h, w, _ in stack.kernels)
    narrow = stack.__class__(stack.label, stack.group, 28, 1, kernels, stack.dilation)
    ones = {
        "params": {
            f"Conv_{i}": {"kernel": jnp.ones((h, w, 1, 1))}
            for i, (h, w, _) in enumerate(narrow.kernels)
        }
    }

    def middle(x):
        return Chain(narrow).apply(ones, x)[0, 14, 14, 0]

    seen = np.asarray(jax.grad(middle)(jnp.zeros((1, 28, 28, 1))))[0, :, :, 0] != 0
    extent = [int(np.ptp(np.nonzero(seen)[axis])) + 1 for axis in (0, 1)]
    assert extent == found.receptive_field
    first = next(other for other in CHAINS if other.group == stack.group)
    assert found.receptive_field == count_convolutions(first).receptive_field
