"""Initial parameters of a model without a forward pass, which flax's `init` would run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def init(function: Callable[[jax.Array, Any], Any], key: jax.Array, images: Any) -> Any:
    """Computes function(key, images), but only the operations that its result depends on.

    It executes them one by one, which is fast even for ResNet-1202, because equal operations are
    compiled only once for all models. Under a trace (eval_shape, jit) it calls the function itself.

    Args:
      function: Draws parameters, whose values must not depend on the images.
      key: A random key.
      images: An array, or its shape and dtype. Values are not used.

    Returns:
      The result of the function.
    """
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    if isinstance(key, jax.core.Tracer):
        return function(key, jnp.zeros(shape.shape, shape.dtype))
    traced, result = jax.make_jaxpr(function, return_shape=True)(key, shape)
    needed = {v for v in traced.jaxpr.outvars if not isinstance(v, Literal)}
    equations = []
    for equation in reversed(traced.jaxpr.eqns):
        if needed.intersection(equation.outvars):
            equations.append(equation)
            needed.update(v for v in equation.invars if not isinstance(v, Literal))
    assert traced.jaxpr.invars[-1] not in needed, "an initial parameter depends on the images"
    program = ClosedJaxpr(traced.jaxpr.replace(eqns=equations[::-1]), traced.consts)
    leaves = jaxpr_as_fun(program)(key, jnp.zeros(shape.shape, shape.dtype))
    return jax.tree.unflatten(jax.tree.structure(result), leaves)
