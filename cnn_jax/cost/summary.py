"""What a model costs: parameters, multiply-adds and activations, layer by layer and in all.

Counts are taken from an abstract forward pass (`jax.eval_shape`): nothing is compiled or computed.

There are two counts, and tests compare them. This one adds up the layers that a forward pass calls.
It has a row for each layer, counts what the papers count, and traces equal blocks once, so that all
models together take seconds. `traced_counts` adds up the products of the traced program; a plan
compares that count with the compiler's. The two differ where a program multiplies by zeros:
LeNet-5's C3 computes 96 kernels, of which the paper's table connects 60.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import models
from cnn_jax.errors import UserError
from cnn_jax.layers.activations import Activation
from cnn_jax.models import Model
from cnn_jax.terminal_tables import format_table

Shape = tuple[int, int, int]


class LayerCost(NamedTuple):
    """A layer at batch 1; shapes are without the batch.

    Attributes:
      name: Its path in the tree of parameters.
      layer: Its kind.
      output: Its output's shape, [H, W, C] or [units].
      kernel: Height x width / stride of its window; empty where it has none.
      parameters: Trained numbers.
      multiply_adds: Multiply-adds of its convolution or matrix product; 0 for all others.
      activation_bytes: Bytes of its output in float32. A ReLU takes no memory of its own.
    """

    name: str
    layer: str
    output: tuple[int, ...]
    kernel: str
    parameters: int
    multiply_adds: int
    activation_bytes: int


class ModelCost(NamedTuple):
    """The totals of a model in evaluation, without auxiliary heads.

    Attributes:
      name: The model.
      image: (H, W, C) of its images.
      num_classes: Logits.
      parameters: Trained numbers.
      multiply_adds: Multiply-adds of one image's forward pass.
      activation_bytes: Bytes of one image's activations in float32.
    """

    name: str
    image: Shape
    num_classes: int
    parameters: int
    multiply_adds: int
    activation_bytes: int


class Summary(NamedTuple):
    """The cost of a model and of each of its layers."""

    total: ModelCost
    layers: list[LayerCost]


class Counts(NamedTuple):
    """The counts on which estimates are based.

    Attributes:
      parameters: Trained numbers, auxiliary heads included.
      multiply_adds: Multiply-adds of one image's forward pass in evaluation.
    """

    parameters: int
    multiply_adds: int


def summarize_model(name: str, image_size: int | None = None, **options: Any) -> Summary:
    """Counts what a model costs.

    Args:
      name: A name of `models.MODELS`. It has as many classes as in its paper.
      image_size: Side of square images in pixels; None: the paper's images.
      **options: Of the model, as in `models.create`.

    Raises:
      UserError: If there is no such model or option, or the images do not suit it.

    Example:
      >>> summarize_model("resnet20").total.parameters
      269722
    """
    shape, classes = models.get_paper_input(name)
    shape = (image_size, image_size, shape[2]) if image_size else shape
    layers = _list_layers(name, classes, shape, **_find_heads_option(name), **options)
    return Summary(ModelCost(name, shape, classes, *add_up(layers)), list(layers))


def summarize_all(image_size: int | None = None) -> tuple[list[ModelCost], list[str]]:
    """Counts what every model costs.

    Args:
      image_size: As in `summarize_model`.

    Returns:
      The models' costs, and a message for each model that does not take such images.
    """
    totals, left_out = [], []
    for name in models.MODELS:
        try:
            totals.append(summarize_model(name, image_size).total)
        except UserError as error:
            left_out.append(str(error))
    return totals, left_out


def count_model(name: str, num_classes: int, shape: Shape, **options: Any) -> Counts:
    """Counts a model's parameters and multiply-adds. Results are cached.

    Args:
      name: A name of `models.MODELS`.
      num_classes: Logits.
      shape: (H, W, C) of its images.
      **options: Of the model, as in `models.create`.

    Raises:
      UserError: As `summarize_model` does.
    """
    every = _list_layers(name, num_classes, shape, **options)
    without = _find_heads_option(name)
    forward = _list_layers(name, num_classes, shape, **options | without) if without else every
    return Counts(add_up(every)[0], add_up(forward)[1])


def list_layers(model: Model, shape: Shape) -> list[LayerCost]:
    """Returns every layer of a model in the order of a forward pass, auxiliary heads included.

    Args:
      model: The model.
      shape: (H, W, C) of its images.
    """
    return list_calls(model.init, shape)


def list_calls(init: Callable[[jax.Array, jax.Array], Any], shape: Shape) -> list[LayerCost]:
    """Lists the layers that a function calls, in the order of its calls.

    Args:
      init: Called with a key and images [1, H, W, C] float32, which are traced. It returns
        variables, as a module's `init` does.
      shape: (H, W, C) of the images.

    Returns:
      A row for each layer; a layer's name is its path.
    """
    seen: list[LayerCost] = []
    known: dict[Any, tuple[str, list[LayerCost], Any]] = {}

    def record(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        path, key = "/".join(module.path), _make_key(module, args, kwargs)
        if key in known:  # An equal block costs the same and need not be traced again.
            first, layers, shapes = known[key]
            seen.extend(x._replace(name=path + x.name.removeprefix(first)) for x in layers)
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        begin, output = len(seen), call(*args, **kwargs)
        is_leaf = begin == len(seen)  # None of its own layers has been traced meanwhile.
        if is_leaf and not isinstance(module, nn.Dropout | Activation):
            seen.append(_measure_layer(module, output))
        if key is not None and path:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), output)
            known[key] = path, seen[begin:], shapes
        return output

    def run(key: jax.Array, images: jax.Array) -> Any:
        return init(key, images)

    # A new function, because JAX caches traces by function, and this trace is incomplete.
    with nn.intercept_methods(record):
        images = jax.ShapeDtypeStruct((1, *shape), "float32")
        jax.eval_shape(run, jax.random.key(0), images)
    return seen


def _make_key(module: nn.Module, args: tuple, kwargs: dict) -> Any:
    """Returns a key that modules of equal cost share; None if it is unknown."""
    fields = [f.name for f in dataclasses.fields(module) if f.name not in ("name", "parent")]
    values = tuple(getattr(module, name) for name in fields)
    leaves, structure = jax.tree.flatten((args, kwargs))
    inputs = tuple((x.shape, str(x.dtype)) if hasattr(x, "shape") else x for x in leaves)
    key = (type(module), values, inputs, structure)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _measure_layer(module: nn.Module, output: jax.Array) -> LayerCost:
    params = module.variables.get("params", {})
    weights = params["kernel"].size if "kernel" in params else 0
    return LayerCost(
        name="/".join(module.path),
        layer=type(module).__name__,
        output=output.shape[1:],
        kernel=_describe_kernel(module),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        multiply_adds=weights * math.prod(output.shape[1:-1]),
        activation_bytes=4 * output.size,
    )


def _describe_kernel(module: nn.Module) -> str:
    """Describes the window of a layer: '3x3/2, 2 groups'."""
    kernel = _find_first_field(module, "kernel_size", "kernel", "window")
    stride = _find_first_field(module, "strides", "stride")
    groups = _find_first_field(module, "feature_group_count")
    if kernel is None:
        return ""
    sides = "x".join(map(str, (kernel, kernel) if isinstance(kernel, int) else kernel))
    step = stride if isinstance(stride, int) or stride is None else stride[0]
    words = f"{sides}/{step}" if step and step > 1 else sides
    return f"{words}, {groups} groups" if groups and groups > 1 else words


def _find_first_field(module: nn.Module, *names: str) -> Any:
    """Returns the value of the first of these fields that the module has and that is not None."""
    values = (getattr(module, name, None) for name in names)
    return next((value for value in values if value is not None), None)


def _find_heads_option(name: str) -> dict[str, bool]:
    """Returns the option that removes auxiliary heads, if the model has any."""
    return {"aux_heads": False} if "aux_heads" in models.list_options(name) else {}


@functools.lru_cache(maxsize=256)
def _list_layers_once(
    name: str, num_classes: int, shape: Shape, options: tuple[tuple[str, Any], ...]
) -> tuple[LayerCost, ...]:
    return tuple(list_layers(models.create(name, num_classes, **dict(options)), shape))


def _list_layers(
    name: str, num_classes: int, shape: Shape, **options: Any
) -> tuple[LayerCost, ...]:
    return _list_layers_once(name, num_classes, shape, tuple(sorted(options.items())))


def add_up(layers: Sequence[LayerCost]) -> tuple[int, int, int]:
    """Sums what layers cost.

    Args:
      layers: The layers.

    Returns:
      (parameters, multiply-adds, bytes of activations).
    """
    return (
        sum(layer.parameters for layer in layers),
        sum(layer.multiply_adds for layer in layers),
        sum(layer.activation_bytes for layer in layers),
    )


def format_costs(rows: Sequence[LayerCost] | Sequence[ModelCost], width: int = 0) -> str:
    """Returns layers or models as a table under their fields' names.

    Args:
      rows: At least one, all of one type.
      width: As in `format_table`.
    """
    header = [field.replace("_", "-") for field in rows[0]._fields]
    return format_table(header, rows, width)


def format_summary(summary: Summary, deviations: Sequence[str] = (), width: int = 0) -> str:
    """Returns a model's layers, its total, and how it differs from its paper.

    Args:
      summary: The result of `summarize_model`.
      deviations: The result of `models.describe_deviations`.
      width: As in `format_table`.
    """
    parts = [format_costs(summary.layers, width), format_costs([summary.total], width)]
    if deviations:
        parts.append("\n  ".join(["Differs from the paper:", *deviations]))
    return "\n\n".join(parts)
