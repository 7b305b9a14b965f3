"""Inside the model: filters, feature maps, top images, the deconvnet, and their evolution."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import visualize
from cnn_jax.errors import UserError
from cnn_jax.report.elements import Part
from cnn_jax.training import checkpoint, saved_parameters
from cnn_jax.visualize import plot
from cnn_jax.visualize.draw import draw_tiles, stretch, to_bytes
from cnn_jax.visualize.images import Images, load_gallery
from cnn_jax.visualize.page.context import Context, make_figure, shorten

MAX_LAYERS, TOP = 5, 9
MAX_GALLERY, BATCH = 1024, 64


def spread_layers(layers: list[str], most: int = MAX_LAYERS) -> list[str]:
    """Returns at most `most` layers, spread evenly from the first to the last."""
    if len(layers) <= most:
        return layers
    return [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]


def draw_filters(context: Context) -> list[Part]:
    """Draws the kernels of the first convolution."""
    found = visualize.find_first_filters(*context.given, context.subject.image_shape)
    count = found.kernels.shape[-1]
    words = f" The first {plot.MAX_FILTERS} of {count}." if count > plot.MAX_FILTERS else ""
    caption = (
        f"The kernels of {found.layer}, {found.kernels.shape[0]}x{found.kernels.shape[1]} pixels;"
        f" middle gray is zero, and each has its own contrast.{words}"
    )
    return [make_figure("Filters", caption, "filters.png", lambda: plot.plot_filters(found))]


def draw_feature_maps(context: Context) -> list[Part]:
    """Draws the strongest maps of several layers, of the first image."""
    layers = spread_layers(context.spatial)
    features = context.model.features(*context.trained, context.x[:1])
    maps = {layer: np.asarray(features[layer], np.float32) for layer in layers}
    scales = [f"{name} 0 to {max(each.max(), 0):.3g}" for name, each in maps.items()]
    caption = (
        f"The {plot.MAX_CHANNELS} maps of each layer with the largest activation for the first"
        " image; black is zero or less, white the row's largest value:"
        f" {', '.join(scales)}."
    )
    return [
        make_figure(
            "Feature maps", caption, "feature_maps.png", lambda: plot.plot_feature_maps(maps)
        )
    ]


def draw_top_images(context: Context) -> list[Part]:
    """Draws the nine patches that excite channels of two layers most."""
    gallery = load_gallery(context.subject, context.source, MAX_GALLERY)
    parts: list[Part] = []
    spatial = context.spatial
    layers = [context.layer] if context.layer else spread_layers(spatial, 3)
    for number, layer in enumerate(dict.fromkeys(layers), start=1):
        top = visualize.find_top_images(*context.given, _iterate(context, gallery), layer, TOP)
        fields = visualize.find_receptive_fields(*context.given, context.subject.image_shape, layer)
        caption = (
            f"Channels of {layer}, a row each, and the patches that excite them most among"
            f" {len(gallery.pixels)} images ({gallery.source}): what the strongest unit's receptive"
            " field covers, strongest first. Each image appears once in a row."
        )
        parts.append(
            make_figure(
                f"Top {TOP} patches: {layer}",
                caption,
                f"top{number}.png",
                functools.partial(plot.plot_top_images, top, fields, gallery.pixels),
            )
        )
    return parts


def _iterate(context: Context, gallery: Images) -> Iterator[jax.Array]:
    """Yields the gallery in batches of one size, the last filled up with its last image."""
    count = len(gallery.pixels)
    size = min(BATCH, count)
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield context.subject.prepare(gallery.pixels[rows])[: count - start]


def draw_projections(context: Context) -> list[Part]:
    """Draws the strongest activation of several layers, projected back by the deconvnet."""
    layers = spread_layers(context.spatial, 4)
    titles = [shorten(name, 18) for name in context.images.names]
    projections = {layer: _project(context, context.trained, layer) for layer in layers}
    caption = (
        "The strongest activation of each layer, alone, projected back to pixels: unpooling with"
        " the switches of the image, ReLU, transposed filters (Zeiler, Fergus 2013, Sec. 2.1)."
        " Middle gray is zero, and each projection has its own contrast."
    )
    return [
        make_figure(
            "Deconvolutional network",
            caption,
            "deconvnet.png",
            lambda: plot.plot_projections(context.images.pixels, projections, titles),
        )
    ]


def _project(context: Context, weights: tuple[Any, Any], layer: str) -> np.ndarray:
    """Returns the projection of the strongest unit of a layer for each image, [B, H, W, C]."""
    maps = context.model.features(*weights, context.x)[layer]
    channels = visualize.find_strongest_channels(maps, 1)[:, 0]
    signals = visualize.keep_strongest(maps, channels)
    return np.asarray(visualize.deconvolve(context.model, *weights, context.x, layer, signals))


def draw_evolution(context: Context) -> list[Part]:
    """Draws how the strongest activations of the layers change over training (Figure 4)."""
    folder = context.subject.folder
    if folder is None:
        raise UserError("public weights have no checkpoints, from which features evolve")
    layers = spread_layers(context.spatial, 4)
    columns = [("random weights", context.control)]
    for step in checkpoint.list_steps(folder):
        params, stats, _ = saved_parameters.load_parameters(folder, step)
        columns.append((f"step {step:,}", (params, stats)))
    tiles, titles = [], []
    one = context._replace(x=context.x[:1])
    for layer in layers:
        for name, weights in columns:
            tiles.append(stretch(_project(one, weights, layer))[0])
            titles.append(name if layer == layers[0] else "")
    caption = (
        "The strongest activation of each layer for the first image, projected back to pixels,"
        " before training and at each checkpoint that the run has kept (Zeiler, Fergus 2013, Figure"
        " 4)."
    )
    return [
        make_figure(
            "Features during training",
            caption,
            "evolution.png",
            lambda: draw_tiles(tiles, len(columns), titles, layers),
        )
    ]


def to_pixels(context: Context, x: jax.Array) -> np.ndarray:
    """Converts the model's input to pixels from 0 to 255, uint8."""
    return to_bytes(np.asarray(context.subject.restore(jnp.asarray(x))))
