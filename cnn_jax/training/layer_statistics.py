"""Measures statistics of every layer's values and of their gradients, for every model.

A layer is a module that has parameters of its own or is an activation function. Its outputs, and
the gradient of the loss with respect to them, are measured on a batch of training images, with
dropout and batch statistics as in training. Nothing is updated.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import data, models
from cnn_jax.config import Experiment, change
from cnn_jax.errors import UserError
from cnn_jax.evaluation.losses import compute_loss_and_error
from cnn_jax.layers.activations import Activation, PRelu
from cnn_jax.models import Model
from cnn_jax.training.components import Components, make_model
from cnn_jax.training.state import State
from cnn_jax.values import MAX_INT32

BINS = 30  # Bins of a histogram, from the smallest to the largest value.
UNITS = 8  # Number of units of a layer, the first ones, whose percentiles are kept.
PERCENTILES = (15, 50, 85)  # As in Ioffe, Szegedy 2015 (arXiv:1502.03167), Figure 1.
# A value is saturated where the activation function's slope is below this share of its slope at 0.
SATURATED = 0.05
# Weights with a smaller absolute value count as 0: under an L1 penalty weights oscillate around 0.
ZERO = 1e-3
NEAR_ZERO = 1e-3  # Input at which the slope "at 0" is taken, because ReLU has no slope at 0.
DIGITS = 5  # Significant digits of a number in layers.jsonl.


class SeenLayer(NamedTuple):
    """A layer in a forward pass.

    Attributes:
      values: The layer's outputs, [B, ..., units].
      flat: Whether the activation function is saturated at each value, a bool array of the shape of
        `values`; None: the layer is no activation function.
      kernel: The layer's weights; None: it has none.
    """

    values: jax.Array
    flat: jax.Array | None
    kernel: jax.Array | None = None


def make_measured_model(experiment: Experiment, num_classes: int) -> Model:
    """Returns the experiment's model in a form whose layers can be intercepted one by one.

    Blocks run one after another, without `lax.scan` and without rematerialization. This changes the
    numbers by rounding only. The model is that of one device.

    Args:
      experiment: The run.
      num_classes: Number of logits.
    """
    choice, known = experiment.model, models.list_options(experiment.model.name)
    plain = {"scan_min_blocks": MAX_INT32, "remat": False}
    choice = change(choice, **{name: value for name, value in plain.items() if name in known})
    return make_model(Experiment(model=choice), num_classes)


def make_measurement(
    experiment: Experiment, parts: Components, loaders: dict[int, data.Loader], arrays: Any
) -> Callable[[State, int], list[dict[str, Any]]] | None:
    """Returns a function that measures the layers of a seed on its first batch, not augmented.

    Args:
      experiment: The run.
      parts: The result of `make_components`.
      loaders: {seed: loader of the seed}.
      arrays: The loaders' arrays, on the devices.

    Returns:
      (state of one seed, the seed) -> the layers of a line of layers.jsonl; None if the run
      measures no layers.

    Raises:
      UserError: If the run measures layers, and several processes train it.
    """
    if not experiment.log.layer_statistics:
        return None
    if jax.process_count() > 1:
        raise UserError("log.layer_statistics: measured by one process only, not by several")
    model = make_measured_model(experiment, parts.dataset.num_classes)
    loader, *_ = loaders.values()

    def measure_batch(params: Any, stats: Any, arrays: Any, item: Any, key: jax.Array) -> Any:
        batch = loader.fetch(arrays, item)
        images = loader.preprocess(arrays, batch["image"])
        return measure(model, params, stats, images, batch["label"], key)

    compiled = jax.jit(measure_batch)
    image = jax.ShapeDtypeStruct((experiment.data.batch_size, *loader.image_shape), "float32")

    @functools.cache
    def first_batch(seed: int) -> Any:
        with contextlib.closing(loaders[seed].batches(0)) as batches:
            return next(batches)

    def measure_seed(state: State, seed: int) -> list[dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(seed), int(state.step))
        found = compiled(state.params, state.stats, arrays, first_batch(seed), key)
        return to_json(found, list_layers(model, state.params, state.stats, image))

    return measure_seed


def measure(
    model: Model, params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array
) -> dict[str, dict[str, jax.Array]]:
    """Measures every layer of a model. It is meant to be compiled by `jax.jit`.

    Args:
      model: The result of `make_measured_model`.
      params: The model's parameters.
      stats: Batch norm's running averages, which do not change.
      images: [B, H, W, C] float32, preprocessed.
      labels: [B] int32.
      key: Random key of dropout.

    Returns:
      {layer: {name of a statistic: array}}. Every layer has these:

      - mean, std, low, high, counts [BINS]: of its values over all images and units; `counts` is a
        histogram from low to high;
      - units [UNITS or fewer, 3]: PERCENTILES of the values of each of the first units;
      - grad_mean, grad_std, grad_low, grad_high, grad_counts [BINS]: the same of the gradients of
        each image's own loss with respect to the values.

      An activation function also has `saturated`, the share of values at which its slope is less
      than SATURATED times the slope at 0, and `dead`, the share of units (channels of a feature
      map) that are saturated at every value. A layer with a kernel also has kernel_mean,
      kernel_std, kernel_low, kernel_high, kernel_counts [BINS], and kernel_zeros, the share of
      weights whose absolute value is below ZERO.
    """

    def forward(probes: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, SeenLayer]]:
        seen: dict[str, SeenLayer] = {}
        with nn.intercept_methods(_make_interceptor(probes, seen)):
            outputs, _ = model.apply(params, stats, images, train=True, key=key)
        loss, _ = compute_loss_and_error(model, outputs, images, labels)
        return loss.sum(), seen

    shapes = jax.eval_shape(lambda: forward({})[1])
    probes = {name: jnp.zeros(x.values.shape, x.values.dtype) for name, x in shapes.items()}
    gradients, layers = jax.grad(forward, has_aux=True)(probes)
    return {name: _describe(layer, gradients[name]) for name, layer in layers.items()}


def list_layers(
    model: Model, params: Any, stats: Any, images: jax.ShapeDtypeStruct
) -> list[tuple[str, str]]:
    """Returns (name, kind) of every layer that is measured, in the order of the forward pass.

    Args:
      model: The result of `make_measured_model`.
      params: The model's parameters, or their shapes.
      stats: Batch norm's running averages, or their shapes.
      images: [B, H, W, C]; only the shape and dtype matter.
    """
    kinds: list[tuple[str, str]] = []

    def run(params: Any, stats: Any, images: jax.Array, key: jax.Array) -> Any:
        with nn.intercept_methods(_make_interceptor({}, {}, kinds)):
            return model.apply(params, stats, images, train=True, key=key)

    jax.eval_shape(run, params, stats, images, jax.random.key(0))
    return kinds


def _make_interceptor(
    probes: Mapping[str, jax.Array],
    seen: dict[str, SeenLayer],
    kinds: list[tuple[str, str]] | None = None,
) -> Callable:
    """Returns a Flax interceptor that stores every layer's output in `seen`.

    If there is a probe under the layer's name, the interceptor adds it to the output. The gradient
    with respect to the probe is then that with respect to the output.
    """

    def intercept(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module, output = context.module, call(*args, **kwargs)
        if context.method_name != "__call__" or not _is_layer(module):
            return output
        name = first = "/".join(module.path)
        while name in seen:  # A module that is called again.
            name = f"{first}#{sum(other.partition('#')[0] == first for other in seen) + 1}"
        if name in probes:
            output = output + probes[name]
        kernel = module.variables.get("params", {}).get("kernel")
        seen[name] = SeenLayer(output, _find_saturated(module, args[0]), kernel)
        if kinds is not None:
            kinds.append((name, _name_kind(module)))
        return output

    return intercept


def _is_layer(module: nn.Module) -> bool:
    own = module.variables.get("params", {})
    return isinstance(module, Activation) or any(not isinstance(p, Mapping) for p in own.values())


def _find_saturated(module: nn.Module, x: jax.Array) -> jax.Array | None:
    """Returns where an activation function is saturated; None: the module is no such function."""
    if isinstance(module, Activation):
        slope: Callable[[jax.Array], jax.Array] = module.slope
    elif isinstance(module, PRelu):
        negative = module.variables["params"]["slope"]
        negative = negative.reshape((1,) * (x.ndim - 1) + (-1,))

        def slope(x: jax.Array) -> jax.Array:
            return jnp.where(x > 0, jnp.ones_like(x), negative)
    else:
        return None
    peak = slope(jnp.full((1,) * (x.ndim - 1) + x.shape[-1:], NEAR_ZERO, jnp.float32))
    return jnp.abs(slope(x.astype(jnp.float32))) < SATURATED * peak


def _name_kind(module: nn.Module) -> str:
    if isinstance(module, Activation):
        return getattr(module.function, "__name__", "activation")
    return type(module).__name__


def _describe(layer: SeenLayer, gradient: jax.Array) -> dict[str, jax.Array]:
    values = layer.values.astype(jnp.float32)
    units = values.reshape(-1, values.shape[-1])[:, :UNITS]
    found = _summarize(values)
    found["units"] = jnp.percentile(units, jnp.array(PERCENTILES), axis=0).T
    if layer.flat is not None:
        found["saturated"] = layer.flat.mean()
        found["dead"] = layer.flat.all(tuple(range(layer.flat.ndim - 1))).mean()
    if layer.kernel is not None:
        kernel = layer.kernel.astype(jnp.float32)
        found |= {f"kernel_{k}": v for k, v in _summarize(kernel).items()}
        found["kernel_zeros"] = (jnp.abs(kernel) < ZERO).mean()
    return found | {f"grad_{k}": v for k, v in _summarize(gradient.astype(jnp.float32)).items()}


def _summarize(x: jax.Array) -> dict[str, jax.Array]:
    """Returns mean, std, low, high and counts [BINS] of an array's values."""
    finite = jnp.nan_to_num(x)
    low, high = finite.min(), finite.max()
    width = jnp.where(high > low, high - low, 1.0) / BINS
    bins = jnp.clip(((finite - low) / width).astype(jnp.int32), 0, BINS - 1)
    counts = jnp.bincount(bins.ravel(), length=BINS)
    return {"mean": x.mean(), "std": x.std(), "low": low, "high": high, "counts": counts}


def to_json(measured: Mapping[str, Mapping[str, Any]], kinds: list[tuple[str, str]]) -> list[dict]:
    """Returns the result of `measure` as the layers of a line of layers.jsonl.

    Args:
      measured: The result of `measure`.
      kinds: The result of `list_layers`, which gives the order of the layers.

    Returns:
      A dictionary for each layer. Its numbers have DIGITS significant digits; a number that is not
      finite is None.
    """
    found = jax.device_get(measured)
    return [
        {"layer": name, "kind": kind} | {k: _to_plain(v.tolist()) for k, v in found[name].items()}
        for name, kind in kinds
    ]


def _to_plain(x: Any) -> Any:
    if isinstance(x, list):
        return [_to_plain(item) for item in x]
    if isinstance(x, int):
        return x
    return float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None
