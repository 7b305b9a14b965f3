"""How good a ranking of a gallery is: precision at k, mean average precision, MAP@R.

An image of the gallery is relevant if its class is the query's. A query that is itself in the
gallery never counts. Queries without relevant images have no average precision: they are left out
of all means, counted and named.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval.search import Distance, search_chunks

DEFINITIONS: dict[str, str] = {
    "P@1": "share of queries whose nearest image is of their class",
    "P@10": "mean share of the ten nearest images that are of the query's class",
    "mAP": "mean over queries of the average precision: the mean, over all images of the query's"
    " class in the gallery, of the precision at each one's rank; the whole gallery is ranked, and"
    " equally near images share the last of their ranks, as in scikit-learn",
    "MAP@R": "the same sum over the first R ranks alone, divided by R, the number of images of the"
    " query's class (Musgrave, Belongie, Lim 2020, arXiv:2003.08505, Sec. 3.2)",
}


class QueryMeasures(NamedTuple):
    """Measures of each query, [Q] each; NaN where no image of the gallery is relevant.

    Attributes:
      precision_at_1: 0 or 1.
      precision_at_10: Share of the ten nearest; of a smaller gallery still out of ten.
      average_precision: Over the whole gallery.
      map_at_r: Over the first R ranks.
      relevant: R, the number of relevant images.
    """

    precision_at_1: np.ndarray
    precision_at_10: np.ndarray
    average_precision: np.ndarray
    map_at_r: np.ndarray
    relevant: np.ndarray


@dataclass(frozen=True)
class Retrieval:
    """Means over the queries that have relevant images.

    Attributes:
      precision_at_1: 0 to 1.
      precision_at_10: 0 to 1.
      mean_average_precision: 0 to 1.
      map_at_r: 0 to 1.
      by_class: The mean average precision of each class's queries; None: it has none.
      queries: How many have relevant images.
      without_relevant: The queries that have none, by their rows.
    """

    precision_at_1: float
    precision_at_10: float
    mean_average_precision: float
    map_at_r: float
    by_class: tuple[float | None, ...]
    queries: int
    without_relevant: tuple[int, ...]


def measure_queries(
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    distance: Distance = "cosine",
    own_rows: np.ndarray | None = None,
) -> QueryMeasures:
    """Ranks the whole gallery for each query, and measures the ranking.

    Args:
      gallery: [N, D] codes.
      gallery_labels: [N] int.
      queries: [Q, D] codes.
      query_labels: [Q] int.
      distance: cosine or euclidean.
      own_rows: [Q], the query's own row in the gallery; -1: it is not there. None: no query is.

    Returns:
      The measures of each query.

    Raises:
      UserError: If codes and labels do not fit together.
      NotFiniteError: If a code is not finite.
    """
    pairs = (("gallery", gallery, gallery_labels), ("queries", queries, query_labels))
    for name, codes, labels in pairs:
        if len(codes) != len(labels):
            raise UserError(f"{name}: {len(codes)} codes and {len(labels)} labels")
    own = np.full(len(queries), -1) if own_rows is None else own_rows
    members = {int(label): np.flatnonzero(gallery_labels == label) for label in set(query_labels)}
    k = max(1, min(10, len(gallery) - bool((own >= 0).any())))
    found = np.full((len(QueryMeasures._fields), len(queries)), np.nan)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for rows, neighbors, scores in search_chunks(
            gallery, queries, k, distance, own, with_scores=True
        ):
            assert scores is not None
            places = np.arange(rows.start, rows.stop)
            right = gallery_labels[neighbors.index] == query_labels[rows, None]
            found[0, rows], found[1, rows] = right[:, 0], right.sum(1) / 10
            jobs = [
                pool.submit(_rank, part, query_labels[here], members)
                for part, here in zip(
                    np.array_split(scores, workers), np.array_split(places, workers), strict=True
                )
            ]
            found[2:, rows] = np.concatenate([job.result() for job in jobs], axis=1)
    found[:4, found[4] == 0] = np.nan
    return QueryMeasures(*found)


def _rank(scores: np.ndarray, labels: np.ndarray, members: Mapping[int, np.ndarray]) -> np.ndarray:
    """Returns average precision, MAP@R and R of each row of scores [q, N], as [3, q].

    The rank of an image is the number of images that are at least as near. Images of equal score
    then need no order, and sorting the scores alone is faster than sorting them with their places.
    """
    found = np.zeros((3, len(scores)))
    for row, (score, label) in enumerate(zip(scores, labels, strict=True)):
        own = np.sort(score[members[int(label)]])
        own = own[np.isfinite(own)]  # Not the query itself.
        if not len(own):
            continue
        rank = len(score) - np.searchsorted(np.sort(score), own, "left")
        precision = (len(own) - np.searchsorted(own, own, "left")) / rank
        found[:, row] = (
            precision.mean(),
            precision[rank <= len(own)].sum() / len(own),
            len(own),
        )
    return found


def summarize(measures: QueryMeasures, labels: np.ndarray, num_classes: int) -> Retrieval:
    """Returns the means over queries.

    Args:
      measures: Measures of each query.
      labels: [Q] int, the queries'.
      num_classes: How many classes there are.

    Raises:
      UserError: If no query has a relevant image.

    Example:
      >>> codes, classes = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
      >>> queries = np.array([[2, 1, 0, 0], [0, 1, 2, 0]], np.float32)
      >>> found = measure_queries(codes, classes, queries, np.array([0, 1]))
      >>> round(summarize(found, np.array([0, 1]), 2).mean_average_precision, 3)
      0.875
    """
    has = measures.relevant > 0
    if not has.any():
        raise UserError("no query has an image of its class in the gallery: nothing to measure")

    def mean(x: np.ndarray) -> float:
        return float(x[has].mean())

    def mean_of(label: int) -> float | None:
        own = measures.average_precision[has & (labels == label)]
        return float(own.mean()) if len(own) else None

    return Retrieval(
        precision_at_1=mean(measures.precision_at_1),
        precision_at_10=mean(measures.precision_at_10),
        mean_average_precision=mean(measures.average_precision),
        map_at_r=mean(measures.map_at_r),
        by_class=tuple(mean_of(label) for label in range(num_classes)),
        queries=int(has.sum()),
        without_relevant=tuple(map(int, np.flatnonzero(~has))),
    )
