"""For studies: all maps of a run in one figure, and their measurements as numbers."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.files import write_whole
from cnn_jax.report import figures
from cnn_jax.report.elements import Figure
from cnn_jax.trained import load_run
from cnn_jax.visualize.draw import MapRow, draw_maps
from cnn_jax.visualize.images import Source, load_images
from cnn_jax.visualize.page.behavior import draw_invariance, draw_occlusion
from cnn_jax.visualize.page.context import Context, make_context, name_images
from cnn_jax.visualize.page.maps import CHANCE, METHODS, MeasuredMaps, measure_chance, measure_maps


class Gallery(NamedTuple):
    """A visualized run.

    Attributes:
      context: The run and its images.
      maps: Each kind of map that the model has, by its name.
    """

    context: Context
    maps: dict[str, MeasuredMaps]


def make_gallery(folder: Path, images: str = "", seed: int = 0) -> Gallery:
    """Computes every kind of map of a finished run, its control and its curves.

    Args:
      folder: The run's folder.
      images: As --images says them; empty: eight of the run's own test images.
      seed: Seed of all random numbers.

    Raises:
      UserError: If the run or the images cannot be read.
    """
    subject = load_run(folder)
    with jax.default_matmul_precision(subject.precision):
        source = Source(images)
        context = make_context(subject, load_images(subject, source), None, "logit", seed, source)
        found = {}
        for name in METHODS:
            try:
                found[name] = measure_maps(context, name)
            except UserError:  # The model has no such maps.
                continue
    return Gallery(context, found)


def describe_rows(gallery: Gallery) -> list[dict[str, Any]]:
    """Returns a row for each kind of map: {map, title, correlation, deletion, insertion}.

    The last three are lists, a number for each image; None where a map has one value everywhere.
    The last row is of pixels in random order.
    """
    context = gallery.context
    rows = []
    for name, found in gallery.maps.items():
        row = {"map": name, "title": METHODS[name].title, "correlation": _list(found.correlation)}
        rows.append(row | _describe_areas(found.curves))
    with jax.default_matmul_precision(context.subject.precision):
        chance = measure_chance(context)
    row = {"map": "chance", "title": CHANCE, "correlation": []}
    return [*rows, row | _describe_areas(chance)]


def _describe_areas(curves: Any) -> dict[str, list[float | None]]:
    if curves is None:
        return {"deletion": [], "insertion": []}
    return {"deletion": _list(curves.deletion_area), "insertion": _list(curves.insertion_area)}


def _list(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def draw_map_gallery(gallery: Gallery) -> bytes:
    """Returns the PNG of all maps: the images, and two rows for each kind of map."""
    rows = []
    for name, found in gallery.maps.items():
        method = METHODS[name]
        label = method.title.replace(" ", "\n", 1)
        rows.append(MapRow(label, found.trained, method.signed))
        rows.append(MapRow("random\nweights", found.random, method.signed))
    context = gallery.context
    figure = draw_maps(context.images.pixels, name_images(context), rows)
    return _write(figure)


def draw_behavior(gallery: Gallery) -> tuple[bytes, bytes]:
    """Returns the PNGs of occlusion and of invariance."""
    with jax.default_matmul_precision(gallery.context.subject.precision):
        parts = [*draw_occlusion(gallery.context), *draw_invariance(gallery.context)]
    occlusion, invariance = (part.png() for part in parts if isinstance(part, Figure))
    return occlusion, invariance


def write_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    """Writes PNG files into a study's folder.

    Raises:
      UserError: If they cannot be written.
    """
    try:
        for name, png in pictures.items():
            write_whole(folder / name, png)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror})") from None


def _write(figure: Any) -> bytes:
    return figures.write_png(lambda: figure)
