"""A model's parameters and multiply-adds, counted from its traced functions.

Nothing is compiled or computed. `summary` says why there are two counts.
"""

import math
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from cnn_jax.models import Model

Shape = tuple[int, int, int]


def count_parameters(model: Model, shape: Shape) -> int:
    """Counts a model's trained numbers; running statistics do not count.

    Args:
      model: The model.
      shape: (H, W, C) of its images.
    """
    params, _ = _trace_init(model, shape)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count_multiply_adds(model: Model, shape: Shape) -> int:
    """Counts the multiply-adds of convolutions and matrix products in an image's forward pass.

    They are read from the traced program; padding counts as input.

    Args:
      model: The model.
      shape: (H, W, C) of its images.
    """
    params, stats = _trace_init(model, shape)

    def forward(params: Any, stats: Any, images: jax.Array) -> Any:
        return model.apply(params, stats, images, train=False)[0]

    return _count_products(jax.make_jaxpr(forward)(params, stats, _make_image_struct(shape)).jaxpr)


def _make_image_struct(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), "float32")


def _trace_init(model: Model, shape: Shape) -> tuple[Any, Any]:
    """Returns the shapes of a model's parameters and statistics."""
    return jax.eval_shape(model.init, jax.random.key(0), _make_image_struct(shape))


def _count_products(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = _shape(equation.invars[1])
            channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += math.prod(_shape(equation.outvars[0])) * (math.prod(kernel) // channels)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = _shape(equation.invars[0])
            terms = math.prod(left[dimension] for dimension in contracted)
            total += math.prod(_shape(equation.outvars[0])) * terms
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(map(_count_products, _find_inner_programs(equation.params)))
    return total


def _shape(operand: Any) -> tuple[int, ...]:
    return operand.aval.shape


def _find_inner_programs(params: dict[str, Any]) -> list[Jaxpr]:
    """Returns the programs that an equation calls: of a jit, a scan, a custom gradient ..."""
    kinds = (Jaxpr, ClosedJaxpr)
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda leaf: isinstance(leaf, kinds))
    return [getattr(leaf, "jaxpr", leaf) for leaf in leaves if isinstance(leaf, kinds)]
