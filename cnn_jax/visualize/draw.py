"""Figures of maps and images, drawn by matplotlib."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

CELL = 1.35  # Inches of an image's side.
SEQUENTIAL, DIVERGING, CATEGORIES = "inferno", "RdBu_r", "tab20"


class MapRow(NamedTuple):
    """A row of maps, on one color scale.

    Attributes:
      label: On its left.
      maps: [B, h, w].
      signed: Whether zero is the middle of the scale.
      classes: Names of classes, each with a color, of which values are the numbers; empty: values
        are quantities.
    """

    label: str
    maps: np.ndarray
    signed: bool = False
    classes: tuple[str, ...] = ()


def draw_maps(
    pixels: np.ndarray, titles: Sequence[str], rows: Sequence[MapRow], overlay: bool = True
) -> Figure:
    """Draws a column for each image: the image, and below it one map for each row.

    A row has one color scale, which is drawn on its right. Maps lie over the image in gray.

    Args:
      pixels: [B, H, W, C] uint8.
      titles: Titles of the images.
      rows: The maps.
      overlay: Whether the image can be seen through its maps.
    """
    count = len(pixels)
    figure = Figure((CELL * count + 2.2, CELL * (len(rows) + 1) + 0.5), layout="constrained")
    # The color scales have a column of their own, so that images stand above their maps.
    cells = figure.add_gridspec(len(rows) + 1, count + 1, width_ratios=[1.0] * count + [0.08])
    grid = [
        [figure.add_subplot(cells[line, column]) for column in range(count)]
        for line in range(len(rows) + 1)
    ]
    for axes, image, title in zip(grid[0], pixels, titles, strict=True):
        show_image(axes, image)
        axes.set_title(title, fontsize=7, fontweight="normal")
    for number, (line, row) in enumerate(zip(grid[1:], rows, strict=True), 1):
        low, high = find_scale(row)
        shown = None
        for axes, image, one in zip(line, pixels, row.maps, strict=True):
            height, width = image.shape[:2]
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            if overlay:
                gray = image.mean(-1)
                axes.imshow(gray, cmap="gray", vmin=0, vmax=255, extent=extent)
            shown = axes.imshow(
                one,
                cmap=_choose_colors(row),
                vmin=low,
                vmax=high,
                extent=extent,
                alpha=0.75 if overlay else 1.0,
                interpolation="nearest",
            )
            clear(axes)
        line[0].set_ylabel(row.label, fontsize=8)
        if shown is not None:
            scale = figure.add_subplot(cells[number, count])
            bar = figure.colorbar(shown, cax=scale)
            if row.classes:
                bar.set_ticks(list(range(len(row.classes))), labels=list(row.classes))
            scale.tick_params(labelsize=6)
    return figure


def draw_tiles(
    images: Sequence[np.ndarray | None] | np.ndarray,
    columns: int,
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> Figure:
    """Draws images in rows.

    Args:
      images: [H, W, C] uint8 each, or [H, W] float from 0 to 1; None leaves a place empty.
      columns: In a row.
      titles: Above each image; empty: none.
      labels: On the left of each row; empty: none.
    """
    rows = -(-len(images) // columns)
    extra = 0.2 if titles else 0.0
    size = (CELL * columns * 0.8 + (0.8 if labels else 0.1), (CELL * 0.8 + extra) * rows + 0.1)
    figure = Figure(size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        image = images[number] if number < len(images) else None
        if image is None:
            axes.set_visible(False)
            continue
        show_image(axes, image)
        if titles:
            axes.set_title(titles[number], fontsize=7, fontweight="normal")
    for axes, label in zip(grid[:, 0], labels, strict=False):
        axes.set_ylabel(label, fontsize=8)
    return figure


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draws an image, uint8 [H, W, C], or float [H, W] or [H, W, C] from 0 to 1."""
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    largest = 255 if image.dtype == np.uint8 else 1
    axes.imshow(image, cmap="gray", vmin=0, vmax=largest, interpolation="nearest")
    clear(axes)


def clear(axes: Axes) -> None:
    """Takes ticks and grid away."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _choose_colors(row: MapRow) -> str | Colormap:
    if row.classes:
        return colormaps[CATEGORIES].resampled(len(row.classes))
    return DIVERGING if row.signed else SEQUENTIAL


def find_scale(row: MapRow) -> tuple[float, float]:
    """Returns the ends of a row's color scale: the 99.5th percentile of all its maps."""
    if row.classes:
        return -0.5, len(row.classes) - 0.5
    sizes = np.abs(row.maps[np.isfinite(row.maps)])
    high = float(np.percentile(sizes, 99.5)) if sizes.size else 1.0
    high = high or float(sizes.max(initial=0.0)) or 1.0
    return (-high, high) if row.signed else (0.0, high)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels from 0 to 255 as uint8; what lies outside is cut off."""
    return np.clip(np.round(np.asarray(pixels)), 0, 255).astype(np.uint8)


def stretch(images: np.ndarray) -> np.ndarray:
    """Returns signed images [N, h, w, C] with zero as middle gray, each with its own contrast.

    Args:
      images: Filters, or projections.

    Returns:
      [N, h, w, 1 or 3] uint8; images of other than one or three channels as their means.
    """
    if images.shape[-1] not in (1, 3):
        images = images.mean(-1, keepdims=True)
    most = np.abs(images).max((1, 2, 3), keepdims=True)
    return to_bytes(127.5 + 127.5 * images / np.where(most == 0, 1, most))
