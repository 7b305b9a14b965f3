"""Scores of test images: a model's outputs for each view, averaged over views and scales.

For each scale, images come from the host in batches with {label, index: int32 [B]; valid: bool [B]}
and either the views that `cut_views` cuts out of each image, or, for dense views, {image: uint8
[B, H, W, C], each image in the upper left corner; size: int32 [B, 2], its own height and width}.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_jax import mesh as meshes
from cnn_jax.cpu import memory, settings
from cnn_jax.errors import UserError
from cnn_jax.evaluation.dense_views import compute_logits, compute_valid_sizes, mask_valid
from cnn_jax.evaluation.protocols import Offsets, Views
from cnn_jax.models import Model
from cnn_jax.values import convert

Average = Literal["softmax", "logits"]
AVERAGES: tuple[Average, ...] = ("softmax", "logits")
Batch = Mapping[str, np.ndarray]


class Scores(NamedTuple):
    """A model's scores of test images, in the order of their index.

    Attributes:
      index: [N] int, which image of the test set.
      labels: [N] int.
      scores: [N, classes] float64: logarithms of averaged probabilities, or averaged logits.
    """

    # It hides tuple.index, which nobody calls.
    index: np.ndarray  # type: ignore[assignment]
    labels: np.ndarray
    scores: np.ndarray


class Scorer(NamedTuple):
    """A trained model on a mesh of devices, and the programs that score its views.

    Each program is compiled once for each size of arrays.

    Attributes:
      model: The model.
      params: Its parameters.
      stats: Batch norm's running averages.
      crop: Side of a crop in pixels.
      average: What is averaged over views: softmax or logits.
      mirror: Whether mirror images are scored too.
      score_crops: (params, stats, crops [B, crop, crop, C], mirrored) -> scores [B, classes].
      score_squares: (params, stats, squares [B, side, side, C], mirrored) -> scores.
      score_dense: (params, stats, images, sizes [B, 2], mirrored, valid_sizes) -> scores.
    """

    model: Model
    params: Any
    stats: Any
    crop: int
    average: Average
    mirror: bool
    score_crops: Callable[..., jax.Array]
    score_squares: Callable[..., jax.Array]
    score_dense: Callable[..., jax.Array]


def make_scorer(
    model: Model,
    params: Any,
    stats: Any,
    prepare: Callable[[jax.Array, jax.Array], jax.Array],
    crop: int,
    mesh: Mesh,
    average: Average = "softmax",
    mirror: bool = True,
    count: int = 0,
) -> Scorer:
    """Returns a scorer of views.

    Args:
      model: The model.
      params: Its parameters.
      stats: Batch norm's running averages.
      prepare: (images uint8 [B, H, W, C], sizes [B, 2] of the images in them) -> what the model
        takes. Views are mirrored after it, as in training, where the mean is subtracted before an
        image is mirrored.
      crop: Side of a crop in pixels.
      mesh: The devices that share a batch.
      average: What is averaged over views: softmax or logits.
      mirror: Whether the views' mirror images are scored too, as all papers do; False where a
        mirrored image is another thing, such as a digit.
      count: How many images will be scored, if known. For many, a CPU takes faster convolutions
        that are compiled anew in each process.

    Raises:
      UserError: If `average` is none of AVERAGES.
    """
    convert("average", average, Average)

    def squash(logits: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits) if average == "softmax" else logits

    whole, split = meshes.make_replicated_sharding(mesh), meshes.make_batch_sharding(mesh)

    def score_crops(params: Any, stats: Any, images: jax.Array, mirrored: jax.Array) -> jax.Array:
        size = jnp.broadcast_to(jnp.array(images.shape[1:3], jnp.int32), (len(images), 2))
        images = prepare(images, size)
        images = jnp.where(mirrored, images[:, :, ::-1], images)
        outputs, _ = model.apply(params, stats, images, train=False)
        return squash(outputs)

    def score_squares(
        params: Any, stats: Any, squares: jax.Array, mirrored: jax.Array
    ) -> jax.Array:
        shape = (len(squares), crop, crop, squares.shape[-1])
        small = jax.image.resize(squares.astype(jnp.float32), shape, "linear")
        small = jnp.round(small).clip(0, 255).astype(jnp.uint8)
        return score_crops(params, stats, small, mirrored)

    def score_dense(
        params: Any,
        stats: Any,
        images: jax.Array,
        size: jax.Array,
        mirrored: jax.Array,
        valid_sizes: jax.Array,
    ) -> jax.Array:
        images = prepare(images, size)
        column = jnp.arange(images.shape[2])[None]
        # Mirrored about the center of the image itself, not of the larger array.
        # The positions beyond the image are masked afterwards.
        mirror_column = (size[:, 1, None] - 1 - column) % images.shape[2]
        column = jnp.where(mirrored, mirror_column, column)
        images = jnp.take_along_axis(images, column[:, None, :, None], axis=2)
        logits = compute_logits(model.module, params, stats, images, valid_sizes)
        own = mask_valid(valid_sizes[-1], logits.shape[1:3])[..., None].astype(logits.dtype)
        return squash((logits * own).sum((1, 2)) / own.sum((1, 2)))

    by_layer = NamedSharding(mesh, PartitionSpec(None, meshes.BATCH))
    options = None
    if mesh.devices.flat[0].platform == "cpu":
        options = settings.choose_onednn_for_views(count * crop**2)
    jit = functools.partial(jax.jit, out_shardings=whole, compiler_options=options)
    shardings = (whole, whole, split, whole)
    params, stats = jax.device_put((params, stats), whole)
    return Scorer(
        model=model,
        params=params,
        stats=stats,
        crop=crop,
        average=average,
        mirror=mirror,
        score_crops=memory.trim_before_calls(jit(score_crops, in_shardings=shardings)),
        score_squares=memory.trim_before_calls(jit(score_squares, in_shardings=shardings)),
        score_dense=memory.trim_before_calls(
            jit(score_dense, in_shardings=(whole, whole, split, split, whole, by_layer))
        ),
    )


def cut_views(views: Views, crop: int, image: np.ndarray) -> dict[str, np.ndarray]:
    """Cuts the views of one kind out of a scaled image, on the host.

    Args:
      views: A kind that is not dense.
      crop: Side of a crop in pixels.
      image: uint8 [H, W, C], its shorter side the scale.

    Returns:
      {crops: uint8 [V, crop, crop, C], squares: uint8 [V, scale, scale, C]}, those that there are.
    """

    def cut(offsets: Offsets, side: int) -> np.ndarray:
        return np.stack([image[y : y + side, x : x + side] for y, x in offsets])

    size = image.shape[:2]
    found = {}
    if views.crop_offsets:
        crops = cut(views.crop_offsets(size, crop), crop)
        moved = np.zeros_like(crops)
        moved[:, :, views.shift :] = crops[:, :, : max(0, crop - views.shift)]
        found["crops"] = moved
    if views.square_offsets:
        found["squares"] = cut(views.square_offsets(size), min(size))
    return found


def score_images(scorer: Scorer, views: Views, batches: Iterable[Batch]) -> Scores:
    """Scores each valid image, averaged over its views at one scale.

    A score is the logarithm of a probability averaged over views, or with average="logits" an
    averaged logit. Probabilities themselves would lose digits for confident models.

    Args:
      scorer: The model.
      views: The kind of views.
      batches: Batches of a size divisible by the number of devices, as the module's description
        has them. Each image occurs once.

    Returns:
      The scores of the valid images, in the order of their index.

    Raises:
      UserError: If there are no images.
    """
    index, labels, scores = [], [], []
    for batch in batches:
        each = [np.asarray(score, np.float64) for score in _score_views(scorer, views, batch)]
        valid = batch["valid"]
        index.append(batch["index"][valid])
        labels.append(batch["label"][valid])
        scores.append(average_scores(each, scorer.average)[valid])
    if not index:
        raise UserError("there are no images to score")
    order = np.argsort(np.concatenate(index), kind="stable")
    result = Scores(*(np.concatenate(parts)[order] for parts in (index, labels, scores)))
    assert (np.diff(result.index) > 0).all(), "an image came twice"
    return result


def _score_views(scorer: Scorer, views: Views, batch: Batch) -> Iterator[jax.Array]:
    """Yields the scores [B, classes] of each view, which a device may still be computing."""
    trained = (scorer.params, scorer.stats)
    # As jax arrays: NumPy's may not be split over the devices of one of several processes.
    crops, squares = (
        [jnp.asarray(view) for view in batch[name].swapaxes(0, 1)] if name in batch else []
        for name in ("crops", "squares")
    )
    dense = _prepare_dense(scorer, batch) if views.dense else None
    for flip in (False, True) if scorer.mirror and views.mirror else (False,):
        for view in crops:
            yield scorer.score_crops(*trained, view, flip)
        for view in squares:
            yield scorer.score_squares(*trained, view, flip)
        if dense:
            images, sizes, valid_sizes = dense
            yield scorer.score_dense(*trained, images, sizes, flip, valid_sizes)


def _prepare_dense(scorer: Scorer, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the images of a batch, their sizes, and how large they are at each layer."""
    # Rows that only fill up a batch have size 1x1.
    sizes = np.maximum(batch["size"], scorer.crop).astype(np.int32)
    module, channels = scorer.model.module, batch["image"].shape[-1]
    valid_sizes = compute_valid_sizes(
        module, scorer.params, scorer.stats, sizes, channels, scorer.crop
    )
    return jnp.asarray(batch["image"]), jnp.asarray(sizes), jnp.asarray(valid_sizes)


def average_scores(scores: Sequence[np.ndarray], average: Average) -> np.ndarray:
    """Returns the mean of several scores of the same images, each [..., classes].

    Args:
      scores: Logarithms of probabilities, or logits.
      average: softmax: the probabilities are averaged; logits: the scores themselves.

    Raises:
      UserError: If `average` is neither.
    """
    if convert("average", average, Average) == "logits":
        return np.mean(scores, axis=0)
    with np.errstate(invalid="ignore"):  # NaN stays NaN, which `measure_scores` reports.
        return np.logaddexp.reduce(scores, axis=0) - np.log(len(scores))


def fuse_scores(each: Sequence[Scores], average: Average = "softmax") -> Scores:
    """Averages scores of the same images: of several scales, kinds of views, or models.

    Args:
      each: The scores to average.
      average: As in `average_scores`.

    Raises:
      UserError: If they are of different images or classes.
    """
    first = each[0]
    if any(not np.array_equal(other.index, first.index) for other in each):
        raise UserError("scores of different images cannot be averaged: score the same data set")
    if any(other.scores.shape != first.scores.shape for other in each):
        raise UserError("scores of different classes cannot be averaged")
    return first._replace(scores=average_scores([one.scores for one in each], average))
