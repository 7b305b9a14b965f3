"""What a net costs, counted without running it: parameters and multiply-adds."""

import math
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from cnn_jax.models import Model

Shape = tuple[int, int, int]


def parameters(model: Model, shape: Shape) -> int:
    """Trained numbers of a net for images of shape (H, W, C); running statistics are not counted."""
    params, _ = _abstract(model, shape)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def multiply_adds(model: Model, shape: Shape) -> int:
    """Multiply-adds of convolutions and matrix products in one image's forward pass; padding counts as input."""
    params, stats = _abstract(model, shape)
    forward = jax.make_jaxpr(lambda p, s, x: model.apply(p, s, x, train=False)[0])
    return _count(forward(params, stats, _images(shape)).jaxpr)


def _images(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), "float32")


def _abstract(model: Model, shape: Shape) -> tuple[Any, Any]:
    return jax.eval_shape(model.init, jax.random.key(0), _images(shape))


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            maps = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += math.prod(equation.outvars[0].aval.shape) * (math.prod(kernel) // maps)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(map(_count, _inner(equation.params)))
    return total


def _inner(params: dict[str, Any]) -> list[Jaxpr]:
    """The programs that an equation calls: of a jit, a scan, a function with a gradient of its own ..."""
    programs = (Jaxpr, ClosedJaxpr)
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda leaf: isinstance(leaf, programs))
    return [getattr(leaf, "jaxpr", leaf) for leaf in leaves if isinstance(leaf, programs)]
