"""The backward rule of ReLU: that of backpropagation, the deconvnet's, or the guided one.

The three differ in which part of the signal that comes from above passes a ReLU with the input x:

- backprop: where x > 0, which is the gradient;
- deconvnet: where the signal is positive (Zeiler, Fergus 2013, arXiv:1311.2901, Sec. 2.1);
- guided: where both are (Springenberg et al. 2014, arXiv:1412.6806, Sec. 3.4 and Figure 1).

A rule is applied to a function, not to layers: the function is traced, and each elementwise maximum
with zero in it is replaced. It does not matter whether the model calls `nn.relu`, `jax.nn.relu` or
`jnp.maximum(x, 0)`, or where, so that no ReLU keeps its own gradient unnoticed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.extend.core import Literal as Constant

from cnn_jax.errors import UserError

Rule = Literal["backprop", "deconvnet", "guided"]
RULES: tuple[Rule, ...] = ("backprop", "deconvnet", "guided")
# Calls whose body can stand in their place: names have changed between versions of JAX.
_INLINED = ("jit", "pjit", "closed_call", "remat", "checkpoint", "remat2", "custom_jvp_call")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def relu(rule: Rule, x: jax.Array) -> jax.Array:
    """Computes max(x, 0), with the rule's backward pass.

    Args:
      rule: One of RULES.
      x: Array of any shape.
    """
    return jnp.maximum(x, jnp.zeros((), x.dtype))


def _relu_forward(rule: Rule, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return relu(rule, x), x > 0


def _relu_backward(rule: Rule, positive: jax.Array, signal: jax.Array) -> tuple[jax.Array]:
    passes = {
        "backprop": positive,
        "deconvnet": signal > 0,
        "guided": positive & (signal > 0),
    }[rule]
    return (jnp.where(passes, signal, jnp.zeros((), signal.dtype)),)


relu.defvjp(_relu_forward, _relu_backward)


def apply_relu_rule(function: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """Returns the function with another backward rule in each of its ReLUs.

    Its values are the same. It must be differentiated in reverse mode.

    Args:
      function: A function of arrays, or trees of them, that JAX can trace.
      rule: One of RULES.

    Raises:
      UserError: If there is no such rule. The returned function raises it when a ReLU lies where
        it cannot be replaced, such as inside a loop of unknown length.

    Example:
      >>> guided = apply_relu_rule(jax.nn.relu, "guided")
      >>> values, pull = jax.vjp(guided, jnp.array([-1.0, 2.0, 3.0]))
      >>> print(pull(jnp.array([1.0, -1.0, 1.0]))[0])
      [0. 0. 1.]
    """
    if rule not in RULES:
        raise UserError(f"rule={rule}: choose {', '.join(RULES)}")

    def changed(*args: Any) -> Any:
        traced, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        replaced = functools.partial(relu, rule)
        outputs = _evaluate(replaced, traced.jaxpr, traced.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return changed


def count_relus(function: Callable[..., Any], *args: Any) -> int:
    """Returns how many ReLUs a function computes; one inside a scan counts once.

    Args:
      function: A function of arrays, or trees of them.
      *args: Its arguments, or their shapes (`jax.ShapeDtypeStruct`).
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    bodies = [body for equation in jaxpr.eqns for body in _find_bodies(equation)]
    return sum(map(_is_relu, jaxpr.eqns)) + sum(map(_count, bodies))


def _is_relu(equation: Any) -> bool:
    """Returns whether an equation is the maximum of floating-point numbers and a constant zero."""
    if equation.primitive.name != "max":
        return False
    floating = jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating)
    zeros = [
        isinstance(v, Constant) and jnp.ndim(v.val) == 0 and v.val == 0 for v in equation.invars
    ]
    return floating and sum(zeros) == 1


def _find_bodies(equation: Any) -> list[Jaxpr]:
    """Returns the programs inside an equation, such as the body of a loop."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                found.append(item)
    return found


def _evaluate(
    replaced: Callable[[jax.Array], jax.Array],
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
) -> list[Any]:
    """Computes a program equation by equation, `replaced` in the place of each ReLU."""
    values: dict[Any, Any] = {}

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Constant) else values[variable]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        if _is_relu(equation):
            x = inputs[0] if isinstance(equation.invars[1], Constant) else inputs[1]
            outputs = [replaced(x)]
        elif any(map(_count, _find_bodies(equation))):
            outputs = _enter(replaced, equation, inputs)
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            # Older versions of JAX have functions apart from the other parameters.
            functions, params = bound if isinstance(bound, tuple) else ((), bound)
            outputs = equation.primitive.bind(*functions, *inputs, **params)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _enter(replaced: Callable, equation: Any, inputs: Sequence[Any]) -> list[Any]:
    """Computes an equation that has ReLUs inside."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _scan(replaced, equation, inputs)
    if name not in _INLINED:
        raise UserError(
            f"a ReLU inside {name} keeps its own gradient: no backward rule can be given to it"
        )
    jaxpr, consts = _open(params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"])
    return _evaluate(replaced, jaxpr, consts, inputs)


def _open(body: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """Returns the program and the constants of what an equation holds."""
    return (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())


def _scan(replaced: Callable, equation: Any, inputs: Sequence[Any]) -> list[Any]:
    """Runs lax.scan again, with the rule in its body."""
    params = equation.params
    jaxpr, consts = _open(params["jaxpr"])
    # What the body sees a slice of has one axis more outside. (The parameters that count them have
    # other names in other versions of JAX.)
    carried = sum(map(_have_one_rank, equation.outvars, jaxpr.outvars))
    sliced = len(inputs) - sum(map(_have_one_rank, equation.invars, jaxpr.invars))
    first, last = len(inputs) - sliced - carried, len(inputs) - sliced

    def step(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = _evaluate(replaced, jaxpr, consts, [*inputs[:first], *carry, *slices])
        return outputs[:carried], outputs[carried:]

    carry, stacked = jax.lax.scan(
        step,
        list(inputs[first:last]),
        list(inputs[last:]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *stacked]


def _have_one_rank(outside: Any, inside: Any) -> bool:
    return len(outside.aval.shape) == len(inside.aval.shape)
