"""Draws images: queries with their neighbors, rows of images, and points in a plane."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_jax.report.figures import INK, PALETTE, spread_colors

RIGHT, WRONG = PALETTE[2], PALETTE[3]
CELL = 0.82  # size of an image in a gallery, in inches
MAX_LABEL = 14  # largest number of characters of a line below an image


class Neighbor(NamedTuple):
    """An image that is near a query.

    Attributes:
      image: Image [H, W, C] uint8.
      label: Text below the image.
      is_right: Whether it has the query's class; None: unknown.
    """

    image: np.ndarray
    label: str
    is_right: bool | None


class GalleryRow(NamedTuple):
    """A query and its neighbors.

    Attributes:
      image: Image of the query, [H, W, C] uint8.
      label: Text below the query.
      neighbors: Its neighbors, the nearest first.
    """

    image: np.ndarray
    label: str
    neighbors: Sequence[Neighbor]


def draw_gallery(rows: Sequence[GalleryRow], title: str = "") -> Figure:
    """Draws one query per row and its neighbors. Wrong ones are crossed, right ones framed.

    Args:
      rows: The queries with their neighbors.
      title: Title above the figure.
    """
    columns = 1 + max(len(row.neighbors) for row in rows)
    size = (CELL * (columns + 0.4), 1.28 * CELL * len(rows) + (0.4 if title else 0.05))
    figure = Figure(size, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    grid = figure.subplots(
        len(rows), columns, squeeze=False, width_ratios=[1.25] + [1] * (columns - 1)
    )
    for row, axes in zip(rows, grid, strict=True):
        _draw_cell(axes[0], row.image, row.label, INK, 2.0)
        for cell in axes[1:]:
            cell.set_axis_off()
        for cell, found in zip(axes[1:], row.neighbors, strict=False):
            color = INK if found.is_right is None else RIGHT if found.is_right else WRONG
            _draw_cell(
                cell, found.image, found.label, color, 0.6 if found.is_right is None else 2.2
            )
            if found.is_right is False:  # A line in addition to the color.
                height, width = found.image.shape[:2]
                cell.plot([-0.5, width - 0.5], [height - 0.5, -0.5], color=WRONG, lw=1.2)
    return figure


def _draw_cell(axes: Axes, image: np.ndarray, label: str, color: str, width: float) -> None:
    _show(axes, image)
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    shown = "\n".join(map(_shorten, label.split("\n")))
    axes.set_xlabel(shown, fontsize=6.5, labelpad=2)
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=width)


def _shorten(line: str) -> str:
    """Returns the beginning and the end of a long line; names of images often differ in the end."""
    if len(line) <= MAX_LABEL:
        return line
    kept = MAX_LABEL - 1
    return f"{line[: kept // 2]}…{line[-(kept - kept // 2) :]}"


def _show(axes: Axes, image: np.ndarray) -> None:
    gray = image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if gray else image,
        cmap="gray" if gray else None,
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )


def draw_image_rows(rows: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draws rows of images [N, H, W, C], 0 to 255, with the name of each row at its left.

    Args:
      rows: {name of the row: images [N, H, W, C], 0 to 255}.
      title: Title above the figure.
    """
    columns = max(len(images) for images in rows.values())
    size = (CELL * columns + 1.8, CELL * len(rows) + (0.4 if title else 0.05))
    figure = Figure(size, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (name, images), axes in zip(rows.items(), grid, strict=True):
        for cell, image in zip(axes, images, strict=True):
            _show(cell, image)
            cell.set(xticks=[], yticks=[])
            for spine in cell.spines.values():
                spine.set_visible(False)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def draw_points(
    panels: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str], title: str = ""
) -> Figure:
    """Draws points in panels; each class has a color, and its name at its median.

    Args:
      panels: {title of the panel: points [N, 2]}.
      labels: Class of each point, [N] int.
      names: Names of the classes.
      title: Title above the panels.
    """
    figure = Figure((3.6 * len(panels), 4.0), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    colors = spread_colors(len(names))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (panel, points) in zip(grid, panels.items(), strict=True):
        axes.grid(False)
        for label, color in enumerate(colors):
            own = points[labels == label]
            if not len(own):
                continue
            axes.scatter(own[:, 0], own[:, 1], s=4, color=color, linewidths=0)
            x, y = np.median(own, axis=0)
            box = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": color, "alpha": 0.85}
            axes.text(x, y, names[label], ha="center", va="center", fontsize=8, bbox=box)
        axes.set_title(panel, fontsize=9)
        axes.set(xticks=[], yticks=[])
    return figure
