"""Finds the neighbors of a user's images in a gallery, and which are of the query's class."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax import data as datasets
from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval import codes, images, measures
from cnn_jax.evaluation.retrieval.index import (
    Index,
    compress,
    open_gallery,
    open_index,
    shorten_name,
)
from cnn_jax.evaluation.retrieval.search import search
from cnn_jax.trained import TrainedModel

K = 10


@dataclass(frozen=True)
class QueryResults:
    """The results of queries: their neighbors in a gallery.

    Attributes:
      gallery: The gallery's images.
      queries: The queries' images.
      index: The gallery's codes.
      rows: [Q], the numbers of the queries' images, of which some may not be decodable.
      names: Names of the queries.
      neighbors: [Q, k], rows of the index, the nearest first.
      distances: [Q, k], 1 minus the cosine.
      is_right: [Q, k], whether a neighbor is of the query's class. None if the gallery has no
        classes or no other image of the query's class.
      means: Measures, averaged over the queries with relevant images; None: there are none.
    """

    gallery: datasets.ImageDataset
    queries: datasets.ImageDataset
    index: Index
    rows: np.ndarray
    names: tuple[str, ...]
    neighbors: np.ndarray
    distances: np.ndarray
    is_right: tuple[tuple[bool, ...] | None, ...]
    means: measures.Retrieval | None


def find_images(
    model: TrainedModel,
    gallery: str,
    query: str,
    index: Path,
    layer: str = "",
    code_size: int = 0,
    data_dir: str = "",
) -> QueryResults:
    """Finds the ten nearest images of a gallery to each query, by cosine.

    A class is the folder in which an image lies: a query's class is known if the gallery has a
    folder of that name.

    Args:
      model: The model whose codes are compared.
      gallery: A folder of images, or the name of a data set, whose training images are searched.
        The model's own data set has the options with which the model was trained.
      query: An image file, or a folder of them. One that is in the gallery does not find itself.
      index: The folder of the gallery's codes, which is read if it is there.
      layer: Name of the layer whose activations are the codes; empty: the one that suits the model.
      code_size: Numbers to which whitened PCA compresses the codes; 0: as many as there are.
      data_dir: Where prepared TFDS sets lie.

    Raises:
      UserError: If a path or layer does not exist, an image cannot be decoded, the index is of
        something else, or the model was trained on shuffled pixels.
    """
    if model.data.shuffle_pixels:
        raise UserError(
            f"{model.name}: data.shuffle_pixels=true: the model takes images whose pixels are"
            " shuffled, and those of files are not"
        )
    chosen = codes.find_layer(model, layer)
    searched = open_gallery("gallery", gallery, data_dir, model.data)
    asked = images.open_images("query", query)
    if len(searched) < 2:
        raise UserError(f"gallery={gallery}: holds one image, so there is nothing to search")
    found = open_index(index, model, chosen, searched, gallery, code_size)
    encoded = images.encode_dataset(model, chosen, asked)
    asked_codes, rows = compress(found, encoded.codes), encoded.rows
    own = _find_own_rows(searched, asked, found, rows)
    k = min(K, len(found.codes) - bool((own >= 0).any()))
    if not k:
        raise UserError(
            f"gallery={gallery}: its only image that can be decoded is the query"
            f" {found.names[0]} itself, so there is nothing to find: repair the others, which were"
            " left out"
        )
    nearest = search(found.codes, asked_codes, k, "cosine", own)
    classes, wanted = _find_classes(searched, asked, found, rows)
    is_right: list[tuple[bool, ...] | None] = []
    for query_class, at, places in zip(wanted, own, nearest.index, strict=True):
        relevant = (classes == query_class).sum() - (at >= 0) if query_class >= 0 else 0
        right = tuple(bool(value) for value in classes[places] == query_class)
        is_right.append(right if relevant > 0 else None)
    means = None
    if any(is_right):
        known = np.flatnonzero([right is not None for right in is_right])
        measured = measures.measure_queries(
            found.codes, classes, asked_codes[known], wanted[known], "cosine", own[known]
        )
        means = measures.summarize(measured, wanted[known], int(classes.max()) + 1)
    return QueryResults(
        gallery=searched,
        queries=asked,
        index=found,
        rows=rows,
        names=tuple(shorten_name(asked, int(row)) for row in rows),
        neighbors=nearest.index,
        distances=nearest.distance,
        is_right=tuple(is_right),
        means=means,
    )


def _find_own_rows(
    gallery: datasets.ImageDataset,
    queries: datasets.ImageDataset,
    index: Index,
    rows: np.ndarray,
) -> np.ndarray:
    """Returns the row of each query's file in the index, [Q]; -1: it is not in the gallery."""
    if not isinstance(gallery, datasets.FolderDataset):
        return np.full(len(rows), -1)
    places = {
        os.path.realpath(gallery.name(int(row))): place for place, row in enumerate(index.rows)
    }
    return np.array([places.get(os.path.realpath(queries.name(int(row))), -1) for row in rows])


def _find_classes(
    gallery: datasets.ImageDataset,
    queries: datasets.ImageDataset,
    index: Index,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes of the index's rows [N] and of the queries [Q]; -1: not known."""
    if not isinstance(gallery, datasets.FolderDataset):
        own = [os.path.basename(os.path.dirname(queries.name(int(row)))) for row in rows]
        known = {str(label): label for label in np.unique(index.labels)}
        return index.labels, np.array([known.get(name, -1) for name in own])
    names = [os.path.basename(os.path.dirname(gallery.name(int(row)))) for row in index.rows]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(number) < 2:  # A folder of images without classes.
        return np.full(len(names), -1), np.full(len(rows), -1)
    own = [os.path.basename(os.path.dirname(os.path.abspath(queries.name(int(r))))) for r in rows]
    return np.array([number[n] for n in names]), np.array([number.get(n, -1) for n in own])
