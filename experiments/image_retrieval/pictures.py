"""The pictures of image_retrieval: denoised images, galleries, and codes in a plane."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnn_jax import trained
from cnn_jax.evaluation.retrieval.search import Neighbors, search
from cnn_jax.files import write_whole
from cnn_jax.report import figures
from cnn_jax.report.figures import galleries

from . import measure
from .measure import Collection

DENOISING, GALLERY, PLANE = "denoising.png", "gallery.png", "plane.png"
FILES = (DENOISING, GALLERY, PLANE)
DOTS_PER_INCH = 75
SHOWN, FAILURES = 10, 5
MAX_POINTS = 2_000


def draw_pictures(
    workdir: Path,
    seed: int,
    collection: Collection,
    models: Mapping[str, trained.TrainedModel],
    untrained: trained.TrainedModel,
) -> None:
    """Writes the study's PNG files."""
    drawn = {DENOISING: draw_denoising(seed, collection, models)}
    codes = {
        code: (gallery, queries)
        for code, gallery, queries, _ in measure.iterate_codes(seed, collection, models, untrained)
    }
    drawn[GALLERY] = draw_galleries(collection, *codes[measure.AUTOENCODER])
    drawn[PLANE] = draw_plane(seed, collection, {code: own[1] for code, own in codes.items()})
    for name, figure in drawn.items():
        stream = io.BytesIO()
        with figures.use_style():
            figure.savefig(stream, format="png", dpi=DOTS_PER_INCH)
        write_whole(workdir / name, stream.getvalue())


def find_examples(labels: np.ndarray) -> np.ndarray:
    """Returns the row of the first image of each class."""
    return np.array([int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)])


def draw_denoising(
    seed: int, collection: Collection, models: Mapping[str, trained.TrainedModel]
) -> Figure:
    """Draws the first test image of each class: noisy, restored in each way, and clean."""
    chosen = find_examples(collection.queries.labels)[:SHOWN]
    clean = collection.queries.images[chosen]
    noisy = collection.add_noise(seed, collection.queries.images)[chosen]
    restorers = measure.make_restorers(seed, collection, models)
    rows = {name: 255 * way.restore(noisy) for name, way in restorers.items()} | {"clean": clean}
    if clean.shape[-1] == 3:
        rows = {name: images.round().astype(np.uint8) for name, images in rows.items()}
    with figures.use_style():
        return galleries.draw_image_rows(rows)


def draw_galleries(collection: Collection, gallery: np.ndarray, queries: np.ndarray) -> Figure:
    """Draws the first test image of each class with its ten nearest, then the worst others."""
    labels = collection.queries.labels
    found = search(gallery, queries, min(10, len(gallery)))
    right = collection.gallery.labels[found.index] == labels[:, None]
    examples = find_examples(labels)[:SHOWN]
    worst = np.lexsort((np.arange(len(labels)), right.sum(1)))
    worst = [row for row in worst if row not in set(examples)][:FAILURES]
    rows = [_make_row(collection, found, right, int(row)) for row in (*examples, *worst)]
    with figures.use_style():
        return galleries.draw_gallery(rows)


def _make_row(
    collection: Collection, found: Neighbors, right: np.ndarray, row: int
) -> galleries.GalleryRow:
    neighbors = [
        galleries.Neighbor(
            collection.gallery.images[at], str(collection.gallery.labels[at]), bool(is_right)
        )
        for at, is_right in zip(found.index[row], right[row], strict=True)
    ]
    label = f"query: {collection.queries.labels[row]}"
    return galleries.GalleryRow(collection.queries.images[row], label, neighbors)


def draw_plane(seed: int, collection: Collection, codes: Mapping[str, np.ndarray]) -> Figure:
    """Draws the codes of test images in a plane, by t-SNE."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    from cnn_jax.evaluation.retrieval.codes import normalize_length

    labels = collection.queries.labels[:MAX_POINTS]
    panels = {}
    for code in (measure.PIXELS, measure.UNTRAINED, measure.AUTOENCODER, measure.CLASSIFIER):
        points = normalize_length(codes[code][:MAX_POINTS])
        perplexity = min(30.0, (len(points) - 1) / 3)
        embed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
        # Its threads wait for one another a thousand times, which is slow on a busy machine.
        with threadpool_limits(1):
            panels[code] = embed.fit_transform(points)
    names = [str(label) for label in range(collection.num_classes)]
    with figures.use_style():
        return galleries.draw_points(panels, labels, names)
