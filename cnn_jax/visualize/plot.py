"""Draws what the methods return: a `plot` function for each kind of result.

Each returns a matplotlib Figure, which a notebook shows and `figure.savefig` writes. The page of
--visualize is drawn by the same functions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_jax.visualize.activations import Filters, TopImages
from cnn_jax.visualize.controls import Curves
from cnn_jax.visualize.draw import MapRow, draw_maps, draw_tiles, stretch, to_bytes
from cnn_jax.visualize.invariance import Invariance
from cnn_jax.visualize.occlusion import Occlusion
from cnn_jax.visualize.receptive_field import ReceptiveFields

MAX_FILTERS, MAX_CHANNELS, TOP_CHANNELS = 64, 8, 6
MAX_CLASSES = 11  # With names beside a row of maps; and the others.


def plot_maps(pixels: np.ndarray, maps: Mapping[str, Any], titles: Sequence[str] = ()) -> Figure:
    """Draws maps over their images, a row for each kind: of gradients, of Grad-CAM, of any.

    A row has one color scale, which is printed; it is a diverging one if a value is negative.

    Args:
      pixels: The images as the user knows them, [B, H, W, C] uint8.
      maps: {label of the row: [B, h, w], or [B, h, w, C], which is summed over channels}.
      titles: Titles of the images.
    """
    rows = []
    for label, values in maps.items():
        values = np.asarray(values, np.float32)
        values = values.sum(-1) if values.ndim == 4 else values
        rows.append(MapRow(label, values, signed=bool((values < 0).any())))
    return draw_maps(pixels, titles or [""] * len(pixels), rows)


def plot_filters(filters: Filters) -> Figure:
    """Draws the kernels of `find_first_filters`, at most MAX_FILTERS; middle gray is zero."""
    kernels = stretch(np.moveaxis(filters.kernels, -1, 0)[:MAX_FILTERS])
    return draw_tiles(kernels, min(16, len(kernels)))


def plot_feature_maps(features: Mapping[str, Any], image: int = 0) -> Figure:
    """Draws the strongest maps of layers; black is zero or less, white the layer's largest value.

    Args:
      features: {layer: [B, h, w, C]}, as `Model.features` returns them; other layers are left out.
      image: Its number in the batch.
    """
    tiles: list[np.ndarray | None] = []
    titles, labels = [], []
    for layer, values in features.items():
        if len(values.shape) != 4:
            continue
        maps = np.asarray(values[image], np.float32)
        strongest = find_strongest_maps(maps)
        most = max(float(maps[..., strongest].max()), 1e-12)
        labels.append(layer)
        for place in range(MAX_CHANNELS):
            known = place < len(strongest)
            tiles.append(np.maximum(maps[..., strongest[place]], 0) / most if known else None)
            titles.append(f"channel {strongest[place]}" if known else "")
    return draw_tiles(tiles, MAX_CHANNELS, titles, labels)


def find_strongest_maps(maps: np.ndarray) -> np.ndarray:
    """Returns the channels of maps [h, w, C] with the largest values, at most MAX_CHANNELS."""
    return np.argsort(-maps.max((0, 1)), kind="stable")[:MAX_CHANNELS]


def plot_top_images(
    top: TopImages, fields: ReceptiveFields, pixels: np.ndarray, channels: Sequence[int] = ()
) -> Figure:
    """Draws the patches that excite channels most, a row for each channel, strongest first.

    Args:
      top: The result of `find_top_images`.
      fields: The result of `find_receptive_fields`, of the same layer.
      pixels: The images that were searched, [N, H, W, C] uint8.
      channels: Which; empty: those whose strongest unit is the strongest, at most TOP_CHANNELS.
    """
    if not channels:
        channels = [int(c) for c in np.argsort(-top.values[:, 0], kind="stable")[:TOP_CHANNELS]]
    patches = []
    for channel in channels:
        for image, place in zip(top.images[channel], top.places[channel], strict=True):
            rows, columns = fields.find_box(*place)
            patches.append(pixels[image][rows, columns])
    return draw_tiles(patches, top.images.shape[1], labels=[f"channel {c}" for c in channels])


def plot_projections(
    pixels: np.ndarray, projections: Mapping[str, Any], titles: Sequence[str] = ()
) -> Figure:
    """Draws images, and below them what the deconvnet projects of each layer back to pixels.

    Args:
      pixels: [B, H, W, C] uint8.
      projections: {layer: [B, H, W, C]} of `deconvolve`; each has its own contrast.
      titles: Titles of the images.
    """
    tiles = list(pixels)
    for values in projections.values():
        tiles += list(stretch(np.asarray(values)))
    heads = [*titles, *[""] * (len(tiles) - len(titles))] if titles else ()
    return draw_tiles(tiles, len(pixels), heads, ["image", *projections])


def plot_images(rows: Mapping[str, Any], titles: Sequence[str] = ()) -> Figure:
    """Draws rows of images, such as photographs and what `dream` or `invert` made of them.

    Args:
      rows: {label: images [B, H, W, C], uint8, or float from 0 to 255, which is rounded}.
      titles: Above each image, row by row; empty: none.
    """
    tiles = [image for images in rows.values() for image in to_bytes(images)]
    columns = max(len(images) for images in rows.values())
    return draw_tiles(tiles, columns, titles, list(rows) if any(rows) else ())


def plot_occlusion(
    pixels: np.ndarray,
    occlusion: Occlusion,
    titles: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> Figure:
    """Draws what `occlude` measured: ZFNet's Figure 7 (b), (d) and (e).

    Args:
      pixels: [B, H, W, C] uint8.
      occlusion: The result of `occlude`.
      titles: Titles of the images.
      class_names: Names of the model's classes; empty: their numbers. Only classes that are
        somewhere the likeliest have a color, or of more than MAX_CLASSES the most frequent ones.
    """
    numbers, likeliest = renumber_classes(occlusion.likeliest, MAX_CLASSES)
    names = [class_names[number] if class_names else str(number) for number in numbers]
    if likeliest.max() == len(names):
        names.append("others")
    rows = [
        MapRow("activity of\nthe map", occlusion.activity),
        MapRow("probability", occlusion.probability),
        MapRow("likeliest\nclass", likeliest, classes=tuple(names)),
    ]
    return draw_maps(pixels, titles or [""] * len(pixels), rows, overlay=False)


def renumber_classes(maps: np.ndarray, most: int) -> tuple[list[int], np.ndarray]:
    """Numbers the classes that occur in maps anew, from 0, in their order.

    Args:
      maps: Classes, int.
      most: Of how many at most; the rarest others have one number together.

    Returns:
      (the classes that have a number of their own, the maps with the new numbers).

    Example:
      >>> renumber_classes(np.array([[7, 7, 300], [7, 300, 5]]), most=2)
      ([7, 300], array([[0, 0, 1],
             [0, 1, 2]]))
    """
    classes, counts = np.unique(maps, return_counts=True)
    kept = np.sort(classes[np.argsort(-counts, kind="stable")[:most]])
    place = np.searchsorted(kept, maps).clip(max=len(kept) - 1)
    return kept.tolist(), np.where(kept[place] == maps, place, len(kept))


def plot_invariance(changes: Sequence[Invariance], labels: Sequence[str] = ()) -> Figure:
    """Draws what `measure_invariance` measured, a line for each image: ZFNet's Figure 5.

    Args:
      changes: Shift, scale and rotation.
      labels: Labels of the images.
    """
    layers = list(changes[0].distances)
    count = len(changes[0].probability)
    labels = labels or [f"image {number}" for number in range(count)]
    figure = Figure((9, 7), layout="constrained")
    grid = figure.subplots(len(changes), len(layers) + 1, squeeze=False)
    for line, change in zip(grid, changes, strict=True):
        panels = [(f"distance, {layer}", change.distances[layer]) for layer in layers]
        panels.append(("probability", change.probability))
        for axes, (name, values) in zip(line, panels, strict=True):
            _draw_lines(axes, change.values, dict(zip(labels, values, strict=True)))
            axes.set_xlabel(change.name, fontsize=8)
            axes.set_ylabel(name, fontsize=8)
            axes.set_ylim(bottom=0)
    grid[0][-1].legend(frameon=False, fontsize=7)
    return figure


def plot_curves(curves: Mapping[str, Curves]) -> Figure:
    """Draws deletion and insertion, the mean over images; the legend has the areas.

    Args:
      curves: {map: of `measure_curves`}.
    """
    figure = Figure((9, 4.2), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("deletion", "insertion"), strict=True):
        lines = {}
        for name, each in curves.items():
            area = float(np.mean(getattr(each, f"{kind}_area")))
            lines[f"{name}: {area:.3f}"] = getattr(each, kind).mean(0)
        shares = 100 * next(iter(curves.values())).shares
        _draw_lines(axes, shares, lines)
        words = {"deletion": "deleted", "insertion": "inserted"}[kind]
        axes.set_xlabel(f"pixels {words} (%)", fontsize=8)
        axes.set_ylabel("probability of the class", fontsize=8)
        axes.set_ylim(0, 1)
        # Below the axes, where it covers no line.
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
        axes.legend(frameon=False, fontsize=7, title="area", title_fontsize=7, **place)
    return figure


def _draw_lines(axes: Axes, x: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    """Draws lines in the colors of the style; when they are used up, dashed in the same colors."""
    colors = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    for number, (label, y) in enumerate(lines.items()):
        style = "-" if number < len(colors) else "--"
        axes.plot(x, y, style, color=colors[number % len(colors)], lw=1.5, label=label)
    axes.tick_params(length=0, labelsize=7)
