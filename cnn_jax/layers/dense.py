"""The fully connected layer."""

import functools
from typing import Any

import flax.linen as nn
import jax


def _as_inputs(*args: jax.Array | None, **_: Any) -> list[jax.Array | None]:
    inputs, *parameters = args
    assert inputs is not None  # only the bias may be None
    return [inputs, *(p if p is None else p.astype(inputs.dtype) for p in parameters)]


# flax's `nn.Dense`, except that it computes in the dtype of its input. A model therefore computes
# in the dtype of its images.
Dense = functools.partial(nn.Dense, promote_dtype=_as_inputs)
