"""What a net costs, counted without running it: parameters, multiply-adds, activations; layer by layer or in all."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from cnn_jax import models
from cnn_jax.cost.chains import ConvChain
from cnn_jax.layers.conv import Conv
from cnn_jax.layers.sizes import effective_size
from cnn_jax.models import Model

Shape = tuple[int, int, int]


class Layer(NamedTuple):
    """A layer at batch 1, without the batch.

    Attributes:
      name: its place in the tree of parameters, if it has any.
      layer: what kind it is.
      output: shape, [H, W, C] or [units].
      kernel: height x width / stride.
      parameters: trained numbers.
      multiply_adds: of its convolution or matrix product; 0 of all others.
      activation_bytes: of its output in float32; a ReLU takes none of its own.
    """

    name: str
    layer: str
    output: tuple[int, ...]
    kernel: str
    parameters: int
    multiply_adds: int
    activation_bytes: int


def layers(model: Model, shape: Shape) -> list[Layer]:
    """Every layer of a net for images of shape (H, W, C), in the order of a forward pass, auxiliary heads included."""
    seen: list[tuple[tuple[str, ...], nn.Module, int, Any]] = []

    def record(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        begun, output = len(seen), call(*args, **kwargs)
        module = context.module
        # A leaf: none of its own layers was seen meanwhile.
        if context.method_name == "__call__" and begun == len(seen) and not isinstance(module, nn.Dropout):
            seen.append((module.path, module, module.variables.get("params", {}), output))
        return output

    with nn.intercept_methods(record):
        _abstract(model, shape)
    return [_layer(*what) for what in seen]


def _layer(path: tuple[str, ...], module: nn.Module, params: dict[str, Any], output: Any) -> Layer:
    weights = params["kernel"].size if "kernel" in params else 0
    return Layer(
        "/".join(path),
        type(module).__name__,
        output.shape[1:],
        _kernel(module),
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        weights * math.prod(output.shape[1:-1]),
        4 * output.size,
    )


def _kernel(module: nn.Module) -> str:
    """'3x3/2, 2 groups' of a layer that has a window."""
    of = lambda *names: next((value for n in names if (value := getattr(module, n, None)) is not None), None)  # noqa: E731
    kernel, stride, groups = of("kernel_size", "kernel", "window"), of("strides", "stride"), of("feature_group_count")
    if kernel is None:
        return ""
    sides = "x".join(map(str, (kernel, kernel) if isinstance(kernel, int) else kernel))
    step = stride if isinstance(stride, int) or stride is None else stride[0]
    return sides + (f"/{step}" if step and step > 1 else "") + (f", {groups} groups" if groups and groups > 1 else "")


class Totals(NamedTuple):
    """A net's layers added up, as it answers at test: without auxiliary heads; names as `Layer` has them."""

    name: str
    image: Shape
    num_classes: int
    parameters: int
    multiply_adds: int
    activation_bytes: int


def summarize_model(name: str, image_size: int | None = None, **options: Any) -> tuple[Totals, list[Layer]]:
    """The named net with the paper's classes on the paper's images, or on square ones of another size.

    options: of models.create.
    """
    shape, classes = models.paper_input(name)
    shape = (image_size, image_size, shape[2]) if image_size else shape
    heads = {"aux_heads": False} if "aux_heads" in models.known_options(name) else {}
    rows = layers(models.create(name, **options | heads), shape)
    total = [
        sum(row[i] for row in rows)
        for i in map(Layer._fields.index, ("parameters", "multiply_adds", "activation_bytes"))
    ]
    return Totals(name, shape, classes, *total), rows


class _Chain(nn.Module):
    """The convolutions of a stack, without biases, each as large as its input."""

    stack: ConvChain

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for height, width, maps in self.stack.kernels:
            x = Conv(maps, (height, width), kernel_dilation=self.stack.dilation, use_bias=False)(x)
        return x


def chain(stack: ConvChain) -> Callable[..., jax.Array]:
    """A stack of convolutions as a function (variables, images [B, side, side, inputs]) -> [B, side, side, maps]."""
    return _Chain(stack).apply


def count_convolutions(stack: ConvChain) -> dict[str, int | list[int]]:
    """What a stack costs an image: weights, multiply_adds; and its receptive_field, [height, width] in pixels."""
    net = _Chain(stack)
    image = (stack.side, stack.side, stack.inputs)
    rows = layers(Model(net.lazy_init, net.apply, None), image)
    field = [1 + sum(effective_size(k[axis], stack.dilation) - 1 for k in stack.kernels) for axis in (0, 1)]
    return {
        "weights": sum(row.parameters for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "receptive_field": field,
    }


def table(rows: list[Layer] | list[Totals]) -> str:
    """Rows under their fields' names, numbers to the right with commas."""
    fields = rows[0]._fields
    number = [isinstance(value, int) for value in rows[0]]
    cells = [[field.replace("_", "-") for field in fields]]
    for row in rows:
        cells.append([f"{v:,}" if n else "x".join(map(str, v)) if isinstance(v, tuple) else v
                      for v, n in zip(row, number, strict=True)])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = lambda row: [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, number, strict=True)]  # noqa: E731
    return "\n".join("  ".join(aligned(row)).rstrip() for row in cells)


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
