"""Builds the page with the nearest images of a user's queries in a gallery."""

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn_jax.data.base import ImageDataset
from cnn_jax.data.decode import decode_resized
from cnn_jax.data.headers import BadImage
from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval.find import QueryResults
from cnn_jax.evaluation.retrieval.measures import DEFINITIONS
from cnn_jax.files import write_whole
from cnn_jax.report import figures
from cnn_jax.report.build import write_page
from cnn_jax.report.elements import Facts, Figure, Page, Part, Prose, Report, Table
from cnn_jax.report.figures import galleries
from cnn_jax.text import escape_unprintable

PAGE, NEIGHBORS = "retrieval", "neighbors.json"
SHOWN = 96  # side of an image on the page, in pixels
ROWS = 10  # number of queries in a picture
MAX_QUERIES = 50  # largest number of queries on a page
DOTS_PER_INCH = 90


def build_page(found: QueryResults, out: Path, facts: Sequence[tuple[str, str]]) -> Report:
    """Writes retrieval.html and .md with the nearest images, and neighbors.json with all of them.

    Args:
      found: The neighbors of each query.
      out: Folder to write to; it is created.
      facts: (name, value) pairs for the top of the page.

    Returns:
      The paths of the files that were written.

    Raises:
      UserError: If the folder cannot be written to.
    """
    shown = min(MAX_QUERIES, len(found.names))
    parts: list[Part] = [Facts(tuple(facts))]
    if found.means:
        parts.append(_make_table(found))
    for first in range(0, shown, ROWS):
        places = range(first, min(first + ROWS, shown))
        title = f"Queries {places.start + 1} to {places.stop} of {len(found.names):,}"
        draw = functools.partial(_draw, found, places)
        parts.append(Figure(title, _describe(found), f"neighbors{first // ROWS + 1}.png", draw))
    if shown < len(found.names):
        rest = f"The page shows {shown} of {len(found.names):,} queries; {NEIGHBORS} lists all."
        parts.append(Prose("More queries", (rest,)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / NEIGHBORS, _list_neighbors(found))
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror}): choose another folder"
        ) from None
    return write_page(Page("The nearest images", tuple(parts)), out, PAGE)


def _describe(found: QueryResults) -> str:
    words = (
        "Each row shows a query, then its nearest images, the nearest first. Below each image are"
        " its name and its distance: 1 minus the cosine of the codes."
    )
    if any(right is not None for right in found.is_right):
        words += " Images of another class (another folder's name) are crossed out."
    return words


def _make_table(found: QueryResults) -> Table:
    means = found.means
    assert means
    values = (
        means.precision_at_1,
        means.precision_at_10,
        means.mean_average_precision,
        means.map_at_r,
    )
    cells = tuple(f"{100 * value:.1f}" for value in values)
    without = sum(right is None for right in found.is_right)
    definitions = "; ".join(f"{name}: {text}" for name, text in DEFINITIONS.items())
    footnote = (
        f"In %. The class of an image is its folder. {without:,} queries without another image of"
        f" their class are left out. {definitions}."
    )
    heads = ("queries", *DEFINITIONS)
    return Table("Over all queries", heads, ((f"{means.queries:,}", *cells),), footnote)


def _draw(found: QueryResults, places: Sequence[int]) -> bytes:
    rows = []
    for place in places:
        right = found.is_right[place]
        neighbors = [
            galleries.Neighbor(
                _read(found.gallery, int(found.index.rows[at])),
                f"{_make_label(found.index.names[at])}\n{distance:.3g}",
                right[i] if right else None,
            )
            for i, (at, distance) in enumerate(
                zip(found.neighbors[place], found.distances[place], strict=True)
            )
        ]
        image = _read(found.queries, int(found.rows[place]))
        rows.append(galleries.GalleryRow(image, _make_label(found.names[place]), neighbors))
    stream = io.BytesIO()
    with figures.use_style():
        galleries.draw_gallery(rows).savefig(stream, format="png", dpi=DOTS_PER_INCH)
    return stream.getvalue()


def _make_label(name: str) -> str:
    return escape_unprintable(Path(name).stem if "." in Path(name).name else name)


def _read(images: ImageDataset, row: int) -> np.ndarray:
    """Returns the central square of an image, [SHOWN, SHOWN, C]."""
    try:
        image = decode_resized(images.read(row), SHOWN)
    except (OSError, BadImage):  # The file was removed or changed since it was encoded.
        return np.zeros((SHOWN, SHOWN, 1), np.uint8)
    top, left = ((side - SHOWN) // 2 for side in image.shape[:2])
    return image[top : top + SHOWN, left : left + SHOWN]


def _list_neighbors(found: QueryResults) -> str:
    rows = [
        {
            "query": name,
            "neighbors": [
                {"name": found.index.names[at], "distance": round(float(distance), 6)}
                for at, distance in zip(found.neighbors[i], found.distances[i], strict=True)
            ],
        }
        for i, name in enumerate(found.names)
    ]
    return json.dumps(rows, indent=1) + "\n"
