"""The nearest codes of a gallery: one matrix product and top-k for each chunk of queries.

Both distances are a product and a bias, q·g + b, of which the largest is the nearest. Cosine takes
codes of length 1 and b = 0. Euclidean takes b = -|g|²/2, since |q - g|² = |q|² - 2 (q·g - |g|²/2);
codes are moved by the gallery's mean first, which changes no distance and loses fewer digits.
"""

import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from cnn_jax import mesh as meshes
from cnn_jax.errors import NotFiniteError, UserError, suggest_names
from cnn_jax.evaluation.retrieval.codes import normalize_length

Distance = Literal["cosine", "euclidean"]
DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean")
MAX_SCORES = 2**26  # Scores of a chunk of queries with the whole gallery: 256 MiB.
MAX_QUERIES = 1_024  # Queries of a chunk.


class Neighbors(NamedTuple):
    """The nearest images of the gallery, the nearest first.

    Attributes:
      index: [Q, k] int32, their rows in the gallery. Of equally near ones the first row is first.
      distance: [Q, k] float32: Euclidean, or 1 minus the cosine.
    """

    # It hides tuple.index, which nobody calls.
    index: np.ndarray  # type: ignore[assignment]
    distance: np.ndarray


class Chunk(NamedTuple):
    """The results of a chunk of queries.

    Attributes:
      rows: Rows of the queries.
      neighbors: Neighbors of each of them.
      scores: [rows, N] float32, larger for nearer images; -inf: the query itself. None: not asked
        for.
    """

    rows: slice
    neighbors: Neighbors
    scores: np.ndarray | None


def search(
    gallery: np.ndarray,
    queries: np.ndarray,
    k: int,
    distance: Distance = "cosine",
    own_rows: np.ndarray | None = None,
    recall_target: float = 1.0,
) -> Neighbors:
    """Returns the k nearest codes of the gallery to each query.

    Args:
      gallery: [N, D] codes.
      queries: [Q, D] codes.
      k: How many.
      distance: cosine or euclidean.
      own_rows: [Q], the query's own row in the gallery, which is left out; -1: it is not there.
        None: no query is.
      recall_target: Below 1 the search is approximate: `jax.lax.approx_max_k`, which TPUs have in
        hardware, and which finds this share of the true neighbors on average. Elsewhere it is no
        faster.

    Raises:
      UserError: If the codes do not fit together, or the gallery has fewer than k others.
      NotFiniteError: If a code is not finite.

    Example:
      >>> gallery = np.array([[0, 1], [1, 0], [1, 1]], np.float32)
      >>> search(gallery, np.array([[2, 0.5]], np.float32), k=2).index.tolist()
      [[1, 2]]
    """
    chunks = list(search_chunks(gallery, queries, k, distance, own_rows, recall_target))
    parts = [chunk.neighbors for chunk in chunks]
    index, away = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Neighbors(index, away)


def search_chunks(
    gallery: np.ndarray,
    queries: np.ndarray,
    k: int,
    distance: Distance = "cosine",
    own_rows: np.ndarray | None = None,
    recall_target: float = 1.0,
    with_scores: bool = False,
) -> Iterator[Chunk]:
    """Yields the results of each chunk of queries. Memory does not grow with their number.

    Args:
      gallery: As in `search`.
      queries: As in `search`.
      k: As in `search`.
      distance: As in `search`.
      own_rows: As in `search`.
      recall_target: As in `search`.
      with_scores: Whether the scores of the whole gallery are returned too.
    """
    own = np.full(len(queries), -1, np.int32) if own_rows is None else own_rows.astype(np.int32)
    _check(gallery, queries, k, distance, own)
    gallery, queries, bias = _prepare(gallery, queries, distance)
    mesh = meshes.make_batch_mesh(jax.local_devices())
    rows = -(-len(gallery) // mesh.size) * mesh.size
    size = max(1, min(MAX_QUERIES, MAX_SCORES // rows, len(queries)))
    on_devices = meshes.put(
        (_pad(gallery, rows, 0.0), _pad(bias, rows, -np.inf)), meshes.make_batch_sharding(mesh)
    )
    program = _compile(mesh, k, recall_target, with_scores)
    lengths = np.square(queries).sum(1, dtype=np.float32)
    for start in range(0, len(queries), size):
        part = slice(start, min(start + size, len(queries)))
        count = part.stop - start
        found = program(*on_devices, _pad(queries[part], size, 0.0), _pad(own[part], size, -1))
        best, index, *scores = (np.asarray(x)[:count] for x in found)
        away = 1 - best
        if distance == "euclidean":
            away = np.sqrt(np.maximum(lengths[part, None] - 2 * best, 0))
        every = scores[0][:, : len(gallery)] if with_scores else None
        yield Chunk(part, Neighbors(index, away), every)


@functools.lru_cache(maxsize=8)
def _compile(mesh: Mesh, k: int, recall_target: float, with_scores: bool) -> jax.stages.Wrapped:
    """Returns program(gallery, bias, queries, own rows) -> best scores, rows[, all scores]."""
    axis, whole, split = meshes.BATCH, PartitionSpec(), PartitionSpec(meshes.BATCH)
    columns = PartitionSpec(None, meshes.BATCH)

    def search_part(
        gallery: jax.Array, bias: jax.Array, queries: jax.Array, own: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Searches a device's part of the gallery."""
        first = jax.lax.axis_index(axis) * len(gallery)
        products = jnp.matmul(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)
        scores = products + bias[None]
        # A place outside of this part is dropped.
        place = jnp.where(own < first, len(gallery), own - first)
        scores = scores.at[jnp.arange(len(queries)), place].set(-jnp.inf, mode="drop")
        size = min(k, len(gallery))
        if recall_target < 1:
            best, index = jax.lax.approx_max_k(scores, size, recall_target=recall_target)
        else:
            best, index = jax.lax.top_k(scores, size)
        return (best, index + first, scores) if with_scores else (best, index + first)

    def run(
        gallery: jax.Array, bias: jax.Array, queries: jax.Array, own: jax.Array
    ) -> tuple[jax.Array, ...]:
        found = jax.shard_map(
            search_part,
            mesh=mesh,
            in_specs=(split, split, whole, whole),
            out_specs=(columns,) * (3 if with_scores else 2),
        )(gallery, bias, queries, own)
        best, places = jax.lax.top_k(found[0], k)
        index = jnp.take_along_axis(found[1], places, axis=1)
        return best, index, *found[2:]

    return jax.jit(run)


def _check(
    gallery: np.ndarray, queries: np.ndarray, k: int, distance: str, own: np.ndarray
) -> None:
    if distance not in DISTANCES:
        raise UserError(
            f"distance={distance!r}: no such distance; {suggest_names(distance, DISTANCES)}"
        )
    if gallery.ndim != 2 or queries.ndim != 2 or gallery.shape[1] != queries.shape[1]:
        raise UserError(
            f"codes of shapes {gallery.shape} and {queries.shape} cannot be compared: both must be"
            " [images, numbers], with as many numbers"
        )
    if not len(queries):
        raise UserError("there are no queries")
    others = len(gallery) - bool((own >= 0).any())
    if not 1 <= k <= others:
        raise UserError(f"k={k}: the gallery has {others} images to find: choose 1 to {others}")
    for name, codes in (("gallery", gallery), ("queries", queries)):
        # The sum is finite only if each number is, and needs no array of its own.
        if not np.isfinite(codes.sum(dtype=np.float64)) and not np.isfinite(codes).all():
            bad = int(np.flatnonzero(~np.isfinite(codes).all(1))[0])
            raise NotFiniteError(f"the code of image {bad} of the {name} is not finite")


def _prepare(
    gallery: np.ndarray, queries: np.ndarray, distance: Distance
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns gallery, queries and bias, float32."""
    if distance == "cosine":
        return normalize_length(gallery), normalize_length(queries), np.zeros(len(gallery), "f4")
    mean = gallery.mean(0, dtype=np.float64)
    gallery, queries = (np.asarray(x - mean, np.float32) for x in (gallery, queries))
    return gallery, queries, -0.5 * np.square(gallery).sum(1)


def _pad(x: np.ndarray, rows: int, value: float) -> np.ndarray:
    if len(x) == rows:
        return x
    return np.concatenate([x, np.full((rows - len(x), *x.shape[1:]), value, x.dtype)])
