"""Test protocols: which views of a test image are scored, and how their scores become one.

A protocol is VIEWS@Q[,Q...], such as dense@256,384,512: images scaled to each shorter side Q, scores averaged.
  single        the crop in the middle
  ten_crop      the four corners and the middle, and their mirror images (Krizhevsky et al. 2012, Sec. 4.1)
  grid          5x5 crops evenly spread, and their mirror images: 50 a scale (Simonyan, Zisserman 2014, Sec. 3.2)
  googlenet144  three squares, each as its corners, middle and scaled whole, mirrored too: 36 a scale, 144 over the four
                scales 256, 288, 320 and 352 (Szegedy et al. 2014, Sec. 7)
  dense         dense layers as convolutions over the whole image, the map of class scores averaged over its places
                before the softmax; the image and its mirror image averaged (Simonyan, Zisserman 2014, Sec. 3.2)
  dense+grid    both, averaged

Images come from the host once a scale, in batches of {image: uint8 [B, H, W, C], each image in the upper left; size:
int32 [B, 2], its own height and width; label, index: int32 [B]; valid: bool [B]}.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_jax import mesh as meshes
from cnn_jax.errors import NotFiniteError, UserError, nearest
from cnn_jax.evaluation.dense import compute_logits, compute_valid_sizes, mask_valid

Places = list[tuple[int, int]]
AVERAGES = ("softmax", "logits")
RESAMPLES = 2_000  # of the bootstrap


class Protocol(NamedTuple):
    """Kinds of views, all averaged, each at all sides Q."""

    views: tuple[str, ...]
    sides: tuple[int, ...]


def parse(text: str, crop: int) -> Protocol:
    """The protocol of a text; raises UserError for one that is none, or a side below the crop."""
    words, _, numbers = text.partition("@")
    views = tuple(words.split("+"))
    if unknown := [view for view in views if view not in (*PLACES, "dense")]:
        raise UserError(f"views {unknown[0]!r}: no such views; {nearest(unknown[0], (*PLACES, 'dense', 'dense+grid'))}")
    sides = tuple(int(n) if n.isdigit() else 0 for n in numbers.split(","))
    if wrong := [n for n, side in zip(numbers.split(","), sides, strict=True) if side < crop]:
        raise UserError(f"{text}: {wrong[0]!r} is no shorter side; write {words}@Q with Q of at least {crop}, the crop")
    return Protocol(views, sides)


def middle(size: tuple[int, int], crop: int) -> Places:
    """The place of the crop in the middle."""
    return [((size[0] - crop) // 2, (size[1] - crop) // 2)]


def corners(size: tuple[int, int], crop: int) -> Places:
    """The places of the four corners, and of the middle."""
    down, across = size[0] - crop, size[1] - crop
    return [(0, 0), (0, across), (down, 0), (down, across), *middle(size, crop)]


def grid(size: tuple[int, int], crop: int) -> Places:
    """5x5 places evenly spread from edge to edge."""
    down, across = ([round(i * (side - crop) / 4) for i in range(5)] for side in size)
    return [(y, x) for y in down for x in across]


def squares(size: tuple[int, int]) -> Places:
    """The places of the three squares as large as the shorter side: at either end and in the middle."""
    side = min(size)
    return [(0, 0), ((size[0] - side) // 2, (size[1] - side) // 2), (size[0] - side, size[1] - side)]


def in_squares(size: tuple[int, int], crop: int) -> Places:
    """The places of the corners and the middle of each square."""
    side = min(size)
    return [(y + v, x + u) for y, x in squares(size) for v, u in corners((side, side), crop)]


# Crops' places in an image, and whether its three squares scaled to the crop are views too. Each is mirrored but
# single's.
PLACES: dict[str, Callable[[tuple[int, int], int], Places]] = {
    "single": middle,
    "ten_crop": corners,
    "grid": grid,
    "googlenet144": in_squares,
}


class Scorer(NamedTuple):
    """A trained net on a mesh of devices, and its programs, each compiled once for a size of arrays (`scorer`)."""

    model: Any  # a cnn_jax.models.Model
    params: Any
    stats: Any
    crop: int
    average: str  # what is averaged over views: softmax | logits
    mirrors: tuple[bool, ...]  # whether views are scored as they are, mirrored, or both
    cropped: Callable  # (params, stats, images, corners [B, 2], mirrored) -> scores [B, classes]
    squared: Callable  # (params, stats, images, corners [B, 2], mirrored, side) -> scores
    dense: Callable  # (params, stats, images, sizes [B, 2], mirrored, reach) -> scores


def scorer(
    model: Any,
    params: Any,
    stats: Any,
    prepare: Callable[[jax.Array, jax.Array], jax.Array],
    crop: int,
    mesh: Mesh,
    average: str = "softmax",
    mirror: bool = True,
) -> Scorer:
    """What scores views.

    prepare: (uint8 [B, H, W, C], sizes [B, 2] of the images in it) -> what the model takes. Views are mirrored after
    it, as in training, where the mean is subtracted before an image is mirrored. crop: the side of a crop; mirror:
    whether the views' mirror images are scored too, as all papers do: off where a mirrored image is another thing,
    such as a digit.
    """

    def squash(logits: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits) if average == "softmax" else logits

    whole, split = meshes.replicated(mesh), meshes.sharded(mesh)

    def scored(params: Any, stats: Any, images: jax.Array, mirrored: jax.Array) -> jax.Array:
        size = jnp.broadcast_to(jnp.array(images.shape[1:3], jnp.int32), (len(images), 2))
        images = prepare(images, size)
        images = jnp.where(mirrored, images[:, :, ::-1], images)
        outputs, _ = model.apply(params, stats, images, train=False)
        return squash(outputs)

    def windows(images: jax.Array, corner: jax.Array, side: int) -> jax.Array:
        shape = (side, side, images.shape[-1])
        return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), shape))(images, corner)

    def cropped(params: Any, stats: Any, images: jax.Array, corner: jax.Array, mirrored: jax.Array) -> jax.Array:
        return scored(params, stats, windows(images, corner, crop), mirrored)

    def squared(
        params: Any, stats: Any, images: jax.Array, corner: jax.Array, mirrored: jax.Array, side: int
    ) -> jax.Array:
        square = windows(images, corner, side).astype(jnp.float32)
        small = jax.image.resize(square, (len(square), crop, crop, square.shape[-1]), "linear")
        return scored(params, stats, jnp.round(small).clip(0, 255).astype(jnp.uint8), mirrored)

    def dense(
        params: Any, stats: Any, images: jax.Array, size: jax.Array, mirrored: jax.Array, reach: jax.Array
    ) -> jax.Array:
        images = prepare(images, size)
        column = jnp.arange(images.shape[2])[None]
        # About the middle of the image itself, not of the array that it lies in; what comes to lie beyond is masked.
        column = jnp.where(mirrored, (size[:, 1, None] - 1 - column) % images.shape[2], column)
        images = jnp.take_along_axis(images, column[:, None, :, None], axis=2)
        logits = compute_logits(model.module, params, stats, images, reach)
        own = mask_valid(reach[-1], logits.shape[1:3])[..., None].astype(logits.dtype)
        return squash((logits * own).sum((1, 2)) / own.sum((1, 2)))

    by_layer = NamedSharding(mesh, PartitionSpec(None, meshes.BATCH))
    jit = functools.partial(jax.jit, out_shardings=whole)
    shardings = (whole, whole, split, split, whole)
    return Scorer(
        model,
        *jax.device_put((params, stats), whole),
        crop,
        average,
        (False, True) if mirror else (False,),
        jit(cropped, in_shardings=shardings),
        jit(squared, in_shardings=shardings, static_argnums=5),
        jit(dense, in_shardings=(*shardings, by_layer)),
    )


def scores(scorer: Scorer, views: str, side: int, batches: Iterable[dict[str, np.ndarray]]) -> dict[int, tuple]:
    """{index: (score [classes], label)} of each valid image, averaged over its views at one scale.

    A score is the logarithm of a softmax averaged over views, or with average="logits" averaged logits. Probabilities
    themselves would run out of digits where a model is sure of its answer. batches: of a size that divides over the
    devices.
    """
    found: dict[int, tuple] = {}
    for batch in batches:
        run = _dense(scorer, batch) if views == "dense" else _crops(scorer, views, side, batch)
        each = [np.asarray(score, np.float64) for score in run]
        rows = zip(batch["index"], batch["label"], batch["valid"], mean_score(each, scorer.average), strict=True)
        for index, label, valid, row in rows:
            if valid:
                assert int(index) not in found, f"image {index} came twice"
                found[int(index)] = row, int(label)
    return found


def _crops(scorer: Scorer, views: str, side: int, batch: dict[str, np.ndarray]) -> Iterator[jax.Array]:
    """The scores of each view, on their way."""
    sizes = _sizes(scorer, batch)
    # jax arrays: NumPy's may not be split over devices where one of several processes tests for itself.
    by_view = lambda places: list(
        map(jnp.asarray, np.array([places(tuple(size)) for size in sizes.tolist()], np.int32).swapaxes(0, 1))
    )
    images, net = jnp.asarray(batch["image"]), (scorer.params, scorer.stats)
    for mirrored in scorer.mirrors if views != "single" else (False,):
        for corner in by_view(lambda size: PLACES[views](size, scorer.crop)):
            yield scorer.cropped(*net, images, corner, mirrored)
        if views == "googlenet144":
            for corner in by_view(squares):
                yield scorer.squared(*net, images, corner, mirrored, side)


def _dense(scorer: Scorer, batch: dict[str, np.ndarray]) -> Iterator[jax.Array]:
    sizes, net = _sizes(scorer, batch), (scorer.params, scorer.stats)
    reach = compute_valid_sizes(scorer.model.module, *net, sizes, batch["image"].shape[-1], scorer.crop)
    images, sizes, reach = jax.tree.map(jnp.asarray, (batch["image"], sizes, reach))
    for mirrored in scorer.mirrors:
        yield scorer.dense(*net, images, sizes, mirrored, reach)


def _sizes(scorer: Scorer, batch: dict[str, np.ndarray]) -> np.ndarray:
    return np.maximum(batch["size"], scorer.crop).astype(np.int32)  # rows that only fill up a batch say 1x1


def mean_score(scores: Sequence[np.ndarray], average: str) -> np.ndarray:
    """The mean of scores of the same images [..., classes], as probabilities (softmax) or as they are (logits)."""
    if average == "logits":
        return np.mean(scores, axis=0)
    with np.errstate(invalid="ignore"):  # NaN stays NaN, which `measures` reports
        return np.logaddexp.reduce(scores, axis=0) - np.log(len(scores))


def fused(each: list[dict[int, tuple]], average: str = "softmax") -> dict[int, tuple]:
    """The mean of several scores of the same images: of scales, kinds of views, or models."""
    if any(found.keys() != each[0].keys() for found in each):
        raise UserError("scores of different images cannot be fused: test all on the same set")
    return {i: (mean_score([found[i][0] for found in each], average), each[0][i][1]) for i in sorted(each[0])}


def measures(found: dict[int, tuple], seed: int = 0) -> dict[str, Any]:
    """Measures the scores of `scores` or `fused` against the labels. Errors are 0 to 1, the loss nats.

    Classes of equal scores rank in their order, as argmax has them, so that top-1 and top-5 agree. Raises
    NotFiniteError where scores are not finite: no error can then be measured.

    top1_error, top5_error (None where there are at most 5 classes), loss, images; top1_interval, top5_interval: the 95%
    percentile interval of a bootstrap over images; confusion: images by [label][answer]; error_by_class (None: no image
    of it); wrong: an image a character in the order of their index, 1 where the answer is wrong.
    """
    score = np.stack([found[i][0] for i in sorted(found)]).astype(np.float64)
    labels = np.array([found[i][1] for i in sorted(found)])
    if bad := int((~np.isfinite(score)).any(1).sum()):
        raise NotFiniteError(
            f"the scores of {bad} of {len(score)} images are not finite, so that no error can be measured: the weights"
            " or batch norm's averages are damaged, or training diverged"
        )
    score -= np.logaddexp.reduce(score, axis=1, keepdims=True)
    own, classes = score[np.arange(len(labels)), labels], score.shape[1]
    earlier = np.arange(classes) < labels[:, None]
    rank = ((score > own[:, None]) | ((score == own[:, None]) & earlier)).sum(1)  # 0: the model's answer
    answers = score.argmax(1)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, answers), 1)
    wrong = answers != labels
    of_class = confusion.sum(1)
    by_class = [1 - confusion[k, k] / of_class[k] if of_class[k] else None for k in range(classes)]
    top5 = {"top5_error": None, "top5_interval": None}
    if classes > 5:
        top5 = {"top5_error": float((rank >= 5).mean()), "top5_interval": interval(rank >= 5, seed)}
    return {
        "images": len(labels),
        "top1_error": float(wrong.mean()),
        "top1_interval": interval(wrong, seed),
        **top5,
        "loss": float(-own.mean()),
        "confusion": confusion.tolist(),
        "error_by_class": by_class,
        "wrong": "".join("01"[w] for w in wrong.astype(int)),
    }


def interval(wrong: np.ndarray, seed: int = 0) -> list[float]:
    """The 95% percentile interval of a bootstrap of the mean of wrong [N] bool: resampled, it is binomial."""
    drawn = np.random.default_rng(seed).binomial(len(wrong), wrong.mean(), RESAMPLES) / len(wrong)
    return np.percentile(drawn, (2.5, 97.5)).tolist()
