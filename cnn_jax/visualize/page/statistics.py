"""Histograms of each layer's values and gradients: from the run's log, or measured here."""

import functools

import jax
from matplotlib.figure import Figure

from cnn_jax.config import Experiment
from cnn_jax.report.elements import Part
from cnn_jax.report.parts.layers import draw_histograms, is_activation
from cnn_jax.report.reading.layers import make_layers
from cnn_jax.report.results import Layer
from cnn_jax.training import layer_log, layer_statistics
from cnn_jax.visualize.page.context import Context, make_figure
from cnn_jax.visualize.page.inside import spread_layers

MAX_STEPS = 4


def draw_statistics(context: Context) -> list[Part]:
    """Draws histograms of several layers, a row for each step that the run has measured."""
    folder = context.subject.folder
    lines = layer_log.read_lines(folder) if folder else []
    logged = make_layers(lines, str(folder), [])
    if logged:
        steps = spread_layers([str(step) for step in logged], MAX_STEPS)
        rows = {f"step {int(step):,}": logged[int(step)] for step in steps}
        source = "that the run has measured during training (log.layer_statistics)"
    else:
        rows = {"these images": measure_layers(context)}
        source = f"measured on these {len(context.x)} images, because the run has logged none"
    names = choose_names(next(iter(rows.values())))
    caption = (
        f"Densities of the values of layers and of the gradients of the loss, {source}. Layers, in"
        f" the order of the forward pass: {', '.join(names)}."
    )
    return [
        make_figure(
            "Statistics of layers",
            caption,
            "statistics.png",
            functools.partial(plot_histograms, rows, names),
        )
    ]


def measure_layers(context: Context) -> tuple[Layer, ...]:
    """Measures every layer of the trained model on the page's images."""
    subject = context.subject
    model = layer_statistics.make_measured_model(
        Experiment(model=subject.choice), subject.num_classes
    )
    key = jax.random.key(0)
    measure = jax.jit(functools.partial(layer_statistics.measure, model))
    found = measure(*context.trained, context.x, context.labels, key)
    shape = jax.ShapeDtypeStruct(context.x.shape, context.x.dtype)
    kinds = layer_statistics.list_layers(model, *context.trained, shape)
    line = {"step": 0, "layers": layer_statistics.to_json(found, kinds)}
    return make_layers([line], "", [])[0]


def choose_names(layers: tuple[Layer, ...]) -> list[str]:
    """Returns some layers' names, of activation functions if there are any."""
    activations = [layer.name for layer in layers if is_activation(layer)]
    return spread_layers(activations or [layer.name for layer in layers])


def plot_histograms(rows: dict[str, tuple[Layer, ...]], names: list[str]) -> Figure:
    """Draws a row of axes for each label: the values' and the gradients' densities, on log scale.

    Args:
      rows: {label: layers of a run at a step, or measured}.
      names: The layers that are drawn.
    """
    figure = Figure((9.2, 2.6 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False)
    for (label, layers), line in zip(rows.items(), grid, strict=True):
        chosen = [layer for layer in layers if layer.name in names]
        for axes, column in zip(line, ("values", "gradients"), strict=True):
            draw_histograms(axes, {layer.name: getattr(layer, column) for layer in chosen})
            axes.set_title(f"{label}: {column}", fontsize=9)
    return figure
