"""Maps of which pixels matter: beside each its control with random weights, and its curves."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax import visualize
from cnn_jax.models import Model
from cnn_jax.report.elements import Part, Table
from cnn_jax.report.parts import DASH
from cnn_jax.visualize import plot
from cnn_jax.visualize.controls import INDEPENDENT, Curves, correlate_ranks, measure_curves
from cnn_jax.visualize.draw import MapRow, draw_maps
from cnn_jax.visualize.page.context import Context, make_figure, name_images

CHANCE = "pixels in random order"


class MapMethod(NamedTuple):
    """A method that computes maps of the pixels that matter.

    Attributes:
      title: Title of the map on the page.
      explanation: What the map shows, in a sentence, with the source.
      signed: Whether the map has positive and negative values.
      compute: (context, params, stats) -> maps [B, H, W].
    """

    title: str
    explanation: str
    signed: bool
    compute: Callable[[Context, Any, Any], Any]


def _take(context: Context, params: Any, stats: Any) -> tuple[Model, Any, Any, Any, Any]:
    return context.model, params, stats, context.x, context.labels


def _saliency(context: Context, params: Any, stats: Any) -> Any:
    return visualize.compute_saliency(*_take(context, params, stats), score=context.score)


def _smooth(context: Context, params: Any, stats: Any) -> Any:
    taken = _take(context, params, stats)
    return visualize.compute_smooth_grad(*taken, context.key, score=context.score).sum(-1)


def _integrated(context: Context, params: Any, stats: Any) -> Any:
    taken = _take(context, params, stats)
    return visualize.integrate_gradients(*taken, score=context.score).attributions.sum(-1)


def _guided(context: Context, params: Any, stats: Any) -> Any:
    taken = _take(context, params, stats)
    return visualize.compute_guided_backprop(*taken, score=context.score).sum(-1)


def _grad_cam(context: Context, params: Any, stats: Any) -> Any:
    taken = _take(context, params, stats)
    return visualize.compute_grad_cam(*taken, context.last, context.score).maps


def _guided_grad_cam(context: Context, params: Any, stats: Any) -> Any:
    taken = _take(context, params, stats)
    return visualize.compute_guided_grad_cam(*taken, context.last, context.score).sum(-1)


METHODS = {
    "saliency": MapMethod(
        "Saliency",
        "The largest absolute gradient of the score among a pixel's channels (Simonyan et al."
        " 2013).",
        False,
        _saliency,
    ),
    "smoothgrad": MapMethod(
        "SmoothGrad",
        "The mean gradient of 25 copies of the image with 15% of noise, summed over channels"
        " (Smilkov et al. 2017).",
        True,
        _smooth,
    ),
    "integrated": MapMethod(
        "Integrated gradients",
        "The score's difference from an image of zeros, shared out to pixels. Where training"
        " subtracts the mean, zeros are the mean color (Sundararajan et al. 2017).",
        True,
        _integrated,
    ),
    "guided": MapMethod(
        "Guided backpropagation",
        "The gradient with the guided rule in each ReLU, summed over channels (Springenberg et al."
        " 2014).",
        True,
        _guided,
    ),
    "gradcam": MapMethod(
        "Grad-CAM",
        "A layer's maps, weighted by the mean gradient of the score (Selvaraju et al. 2017).",
        False,
        _grad_cam,
    ),
    "guided_gradcam": MapMethod(
        "Guided Grad-CAM",
        "Grad-CAM times guided backpropagation, summed over channels (Selvaraju et al. 2017).",
        True,
        _guided_grad_cam,
    ),
}


class MeasuredMaps(NamedTuple):
    """A method's maps and their measurements.

    Attributes:
      trained: [B, H, W].
      random: The same with random weights.
      correlation: Rank correlation of the two, [B].
      curves: Deletion and insertion; None: the model has no classes.
    """

    trained: np.ndarray
    random: np.ndarray
    correlation: np.ndarray
    curves: Curves | None


def measure_maps(context: Context, name: str) -> MeasuredMaps:
    """Computes the maps of a method, those of its control, and their curves.

    Raises:
      UserError: If the model has no such maps.
    """
    trained, random = (
        np.asarray(METHODS[name].compute(context, *weights))
        for weights in (context.trained, context.control)
    )
    return MeasuredMaps(
        trained, random, correlate_ranks(trained, random), measure_order(context, trained)
    )


def measure_order(context: Context, maps: np.ndarray) -> Curves | None:
    """Measures deletion and insertion in the order of maps [B, H, W]."""
    if context.probabilities is None:
        return None
    return measure_curves(*context.given, context.x, context.labels, maps)


def draw_part(context: Context, name: str, measured: MeasuredMaps) -> Part:
    """Returns the figure of a method: the maps of the trained model above those of its control."""
    method = METHODS[name]
    layer = f" Layer {context.last}." if "gradcam" in name else ""
    rows = [
        MapRow("trained", measured.trained, method.signed),
        MapRow("random\nweights", measured.random, method.signed),
    ]
    caption = (
        f"{method.explanation}{layer} Above with the trained weights, below with random ones; each"
        " row has its own color scale, printed on its right. Rank correlation of the two:"
        f" {format_correlation(measured.correlation)}."
    )
    return make_figure(
        method.title,
        caption,
        f"{name}.png",
        lambda: draw_maps(context.images.pixels, name_images(context), rows),
    )


def format_correlation(values: np.ndarray) -> str:
    """Returns 'mean [minimum; maximum]' over images."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "none: the maps have one value everywhere"
    words = f"{known.mean():.2f} [{known.min():.2f}; {known.max():.2f}]".replace("-", "−")
    return words if known.size == values.size else f"{words}, {known.size} of {values.size} images"


def say_dependence(values: np.ndarray) -> str:
    """Returns whether maps depend on the weights, by their correlation with the control's."""
    known = values[np.isfinite(values)]
    if not known.size:
        return DASH
    return "hardly" if known.mean() >= INDEPENDENT else "yes"


def measure_chance(context: Context) -> Curves | None:
    """Measures deletion and insertion of pixels in random order."""
    return measure_order(context, np.asarray(jax.random.uniform(context.key, context.x.shape[:3])))


def make_summary(context: Context, found: dict[str, MeasuredMaps]) -> list[Part]:
    """Returns the comparison of the maps: the table, and the curves if the model has classes."""
    chance = measure_chance(context)
    curves = {METHODS[name].title: each.curves for name, each in found.items()}
    drawn = {name: each for name, each in (curves | {CHANCE: chance}).items() if each is not None}
    table = make_table(found, chance)
    if not drawn:
        return [table]
    caption = (
        "The probability of the explained class while pixels are replaced by zeros (deletion), or"
        " appear on zeros (insertion), in the order of a map; the mean over images, and the area"
        " under each curve (Petsiuk et al. 2018)."
    )
    figure = make_figure(
        "Deletion and insertion", caption, "curves.png", lambda: plot.plot_curves(drawn)
    )
    return [table, figure]


def make_table(found: dict[str, MeasuredMaps], chance: Curves | None) -> Table:
    """Returns the table of rank correlations and areas.

    Args:
      found: Measurements of each map, by name.
      chance: Curves of pixels in random order; None: the model has no classes.
    """
    rows: list[Sequence[str]] = [
        (
            METHODS[name].title,
            format_correlation(each.correlation),
            say_dependence(each.correlation),
            *_format_areas(each.curves),
        )
        for name, each in found.items()
    ]
    if chance:
        rows.append((CHANCE, DASH, DASH, *_format_areas(chance)))
    footnote = (
        "Spearman's rank correlation between the absolute values of each image's map with trained"
        " and with random weights: the mean [minimum; maximum] over images. Images whose map is"
        f" constant are left out. At a mean of {INDEPENDENT} or more (our threshold) the map hardly"
        " depends on the weights: it shows the image, not what the model has learned (Adebayo et"
        " al. 2018). The areas lie under the"
        " probability of the explained class while pixels are replaced by zeros, or appear on"
        " zeros, in the order of the map (Petsiuk et al. 2018)."
    )
    columns = (
        "map",
        "rank correlation with random weights",
        "depends on the weights",
        "deletion area (less is better)",
        "insertion area (more is better)",
    )
    return Table("Do the maps depend on the weights?", columns, tuple(map(tuple, rows)), footnote)


def _format_areas(curves: Curves | None) -> tuple[str, str]:
    if curves is None:
        return DASH, DASH
    return f"{curves.deletion_area.mean():.3f}", f"{curves.insertion_area.mean():.3f}"
