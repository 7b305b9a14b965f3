"""Feeds of images that do not fit on the device: decoded and cut by Grain's threads or processes, a batch an index.

A batch is a pure function of its number: neither the number of workers nor where a run was cut off changes it.
"""

import atexit
import collections
import functools
import gc
import itertools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import parent_process, resource_tracker, util  # noqa: F401  util's exit comes after `_end`
from typing import Any

import cv2
import numpy as np

from cnn_jax.config import Data
from cnn_jax.data import crops, decode
from cnn_jax.data.image_sets import Listing
from cnn_jax.data.sampler import balanced, order
from cnn_jax.errors import UserError

MEASURED = 1024  # images, at most, of which the mean and the colours' covariance are taken
BUCKET = 64  # whole images are padded to multiples of so many pixels
SHARED = 2**16  # bytes of an array that comes from a worker in shared memory; a smaller one is sent
ENDLESS = 2**40
AHEAD = 2  # batches that wait in each worker
DEATHS = 3


def check(data: Data) -> None:
    """Raises UserError for fields of full-size images that do not go together."""
    sides, crop = data.train_resize, data.image_size
    if not crop:
        raise UserError(
            f"data set {data.name}: data.image_size, the side of the square that is cut out, is to be given"
        )
    if not 1 <= len(sides) <= 2 or sides[0] > sides[-1]:
        raise UserError(f"data.train_resize={list(sides)}: wants one side S, or the least and the largest")
    if sides[0] < crop:
        raise UserError(f"data.image_size={crop} is larger than data.train_resize={sides[0]}, out of which it is cut")
    if (q := test_side(data)) < crop:
        raise UserError(f"data.eval_resize={q} is smaller than data.image_size={crop}, which is cut out of it")


def test_side(data: Data) -> int:
    """Q: the shorter side of test images."""
    return data.eval_resize or (data.train_resize[0] + data.train_resize[-1]) // 2


class Batches:
    """Batches of a listing by number: {image [B, crop, crop, C] uint8, label, index [B] int32, valid, bad [B] bool}.

    seed None: each image once, in order, from its middle; the last batch is filled up with rows that are not valid, and
    an image that cannot be decoded is not valid either.
    Else place p of the endless training order is place p mod n of epoch p // n, whose crop is drawn from
    (seed, epoch, place). shard (i, n): the i-th of n equal parts of each batch. bad: the image cannot be decoded, and
    the next one stands in; with on_bad_image=stop that is a UserError instead.
    """

    def __init__(self, data: Data, listing: Listing, seed: int | None, shard: tuple[int, int] = (0, 1)) -> None:
        self.data, self.listing, self.seed, self.shard = data, listing, seed, shard
        self.batch = data.eval_batch_size if seed is None else data.batch_size
        self.labels = listing.labels if data.balance_classes and seed is not None else None
        self.images = len(listing) if self.labels is None else len(balanced(0, 0, self.labels))  # in one epoch

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        part, parts = self.shard
        rows = range(number * self.batch + part * self.batch // parts,
                     number * self.batch + (part + 1) * self.batch // parts)  # fmt: skip
        cut = [self._row(p) for p in rows]
        columns = [np.array(column) for column in zip(*cut, strict=True)]
        return dict(zip(("image", "label", "index", "valid", "bad"), columns, strict=True))

    def _row(self, p: int) -> tuple:
        data, n = self.data, self.images
        if self.seed is None:
            q, valid = test_side(data), p < n
            index, box = min(p, n - 1), lambda size: crops.centre(size, q, data.image_size)
        else:
            (epoch, place), valid = divmod(p, n), True
            index = int(_order(self, epoch)[place])
            # 1 + place: NumPy seeds alike with (seed, epoch), which orders the epoch, and (seed, epoch, 0).
            rng = np.random.default_rng((self.seed, epoch, 1 + place))
            if data.train_crop == "inception":
                box = functools.partial(crops.area_and_aspect, rng)
            else:
                sides = data.train_resize
                box = lambda size: crops.scale_jitter(rng, size, sides[0], sides[-1], data.image_size)
        image, label, index, bad = standing_in(data, self.listing, index, lambda x: cut(x, box, data.image_size))
        valid &= not (bad and self.seed is None)  # in a test no image counts for another
        return image, np.int32(label), np.int32(index), valid, bad


@functools.lru_cache(maxsize=4)
def _order(batches: Batches, epoch: int) -> np.ndarray:
    if batches.labels is not None:
        return balanced(batches.seed, epoch, batches.labels)
    return order(batches.seed, epoch, batches.images)


def standing_in(
    data: Data, listing: Listing, index: int, read: Callable[[Any], np.ndarray]
) -> tuple[np.ndarray, int, int, bool]:
    """(what `read` gives, label, index, False) of an image, or of the next that can be decoded, and then True.

    Raises UserError with the first one's name and reason unless data.on_bad_image is skip.
    """
    for tried in range(len(listing)):
        at = (index + tried) % len(listing)
        try:
            encoded, label = listing.element(at)
            return read(encoded), label, at, tried > 0
        except (decode.BadImage, OSError) as error:
            why = f"{listing.name(at)}: {(isinstance(error, OSError) and error.strerror) or error}"
            if data.on_bad_image != "skip":
                raise UserError(f"{why}; remove it, or go on without with --set data.on_bad_image=skip") from None
            _tell(why)
    raise UserError(f"none of the {len(listing)} images can be decoded, such as {listing.name(0)}")


@functools.cache
def _tell(why: str) -> None:
    """Names a bad image once (a process)."""
    print(f"left out: {why}", file=sys.stderr, flush=True)


def cut(encoded: Any, box: Callable[[crops.Size], crops.Box], side: int) -> np.ndarray:
    """The box of an image, found from its height and width, as uint8 [side, side, C]."""
    if isinstance(encoded, np.ndarray):
        return resampled(encoded, box(encoded.shape[:2]), (side, side))
    return decode.cut(encoded, box, (side, side))


def whole(encoded: Any, shorter_side: int) -> np.ndarray:
    """The image scaled to a shorter side, uint8 [h, w, C]."""
    if isinstance(encoded, np.ndarray):
        size = encoded.shape[:2]
        return resampled(encoded, crops.Box(0, 0, *size), crops.scaled(size, shorter_side))
    return decode.whole(encoded, shorter_side)


def resampled(image: np.ndarray, box: crops.Box, shape: tuple[int, int]) -> np.ndarray:
    """A box of uint8 [H, W, C] as uint8 [h, w, C], bilinear; where it shrinks, over as much as a pixel then covers."""
    down = _weights(image.shape[0], box.top, box.height, shape[0])
    across = _weights(image.shape[1], box.left, box.width, shape[1])
    return np.rint(np.einsum("hy,yxc,wx->hwc", down, image, across, optimize=True)).astype(np.uint8)


def _weights(size: int, start: float, length: float, to: int) -> np.ndarray:
    """[to, size]: how much of each pixel goes into each of `to` pixels that share start ... start + length."""
    scale = length / to
    centre = start + (np.arange(to)[:, None] + 0.5) * scale
    weights = np.maximum(1 - np.abs(np.arange(size)[None] + 0.5 - centre) / max(scale, 1), 0)
    return weights / weights.sum(1, keepdims=True)


def items(batches: Batches, start: int) -> Iterator[dict[str, np.ndarray]]:
    """Batch `start` and those after it, without end or until each test image has come; decoded ahead of their turn.

    data.workers processes decode, or, of 0, as many threads as there are cores. They end with the iterator.
    """
    last = ENDLESS if batches.seed is not None else -(-len(batches.listing) // batches.batch)
    return ahead_of(batches.__getitem__, range(start, last), batches.data.workers)


def ahead_of(function: Callable[[int], dict], numbers: range, workers: int) -> Iterator[dict]:
    """function(n), a dict, of each number in order, computed ahead by processes or, of 0, by a thread a core.

    Processes that are killed are replaced; raises UserError where that happens DEATHS times without an item between.
    """
    going = (_replaced if workers else _ahead_of)(function, numbers, workers)
    _going.add(going)
    return going


def _replaced(function: Callable[[int], dict], numbers: range, workers: int) -> Iterator[dict]:
    deaths = 0
    while True:
        going = _ahead_of(function, numbers, workers)
        try:
            for found in going:
                yield found
                numbers, deaths = numbers[1:], 0
            return
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):  # Grain's words
                raise
            if (deaths := deaths + 1) == DEATHS:
                raise UserError(
                    f"the processes that decode were killed {DEATHS} times: where memory is short, fewer may do:"
                    f" --set data.workers={workers // 2}"
                ) from None
            print("a process that decodes was killed: all are started anew", file=sys.stderr, flush=True)
            gc.collect()  # what is left of them, before it is collected in the middle of starting others
        finally:
            going.close()


_going: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _end() -> None:
    # What a program leaves open is closed while there are modules left to close it with.
    for going in list(_going):
        going.close()


def _ahead_of(function: Callable[[int], dict], numbers: range, workers: int) -> Iterator[dict]:
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain asks for flags of its own, which only absl's programs have parsed
        flags.FLAGS.mark_as_parsed()
    cv2.setNumThreads(0)  # one image is too little to share
    threads = 0 if workers else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + AHEAD if threads else 0)
    dataset = grain.MapDataset.range(numbers.start, ENDLESS).map(functools.partial(_until, numbers.stop, function))
    dataset = dataset.to_iter_dataset(reading)
    if workers:
        options = grain.experimental.DatasetOptions(min_shm_size=SHARED)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(workers, AHEAD), worker_init_fn=_begin)
    iterator = iter(dataset)
    # Workers inherit this: Ctrl-C, which reaches them too, is for this process alone, which ends them.
    resource_tracker.ensure_running()  # it would undo the blocking where it is started
    allowed = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        first = next(iterator)  # starts them
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
    try:
        for found in itertools.islice(itertools.chain([first], iterator), len(numbers)):
            # Out of shared memory, which JAX on CPU would hold on to for as long as its own array lives.
            yield {name: np.array(x) for name, x in found.items()} if workers else found
    finally:
        iterator.close()


def _until(stop: int, function: Callable[[int], dict], number: int) -> dict:
    # Grain's processes leave the last item in shared memory where they come to an end by themselves.
    return function(number) if number < stop else {}


def _begin(worker: int, workers: int) -> None:
    """What a worker process does first."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # the accelerator is the parent's
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()  # a parent that was killed has not ended its workers
    os._exit(1)


def ahead(items: Iterable[Any], sharding: Any, size: int = 2) -> Iterator[Any]:
    """The items as arrays on the devices, `size` of them ahead of the step that takes them.

    Each process gives its own rows of them; its devices hold what the sharding says.
    """
    import jax

    place = lambda item: jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), item)
    waiting: collections.deque = collections.deque()
    iterator = iter(items)
    try:
        for item in iterator:
            waiting.append(place(item))
            if len(waiting) > size:
                yield waiting.popleft()
        yield from waiting
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


@functools.lru_cache(maxsize=2)
def _middles(data: Data, listing: Listing) -> np.ndarray:
    chosen = np.arange(min(MEASURED, len(listing))) * len(listing) // min(MEASURED, len(listing))
    box = lambda size: crops.centre(size, test_side(data), data.image_size)
    one = lambda i: standing_in(data, listing, int(i), lambda x: cut(x, box, data.image_size))[0]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(one, chosen)))


def middles(data: Data, listing: Listing) -> np.ndarray:
    """The centre crops [n, crop, crop, C] uint8 of at most 1,024 images spread evenly: what a mean is measured on.

    Kept, as the runs of a study share them.
    """
    return _middles(_geometry(data), listing)


def _geometry(data: Data) -> Data:
    """Of the fields, those that tell how an image is cut in a test."""
    kept = ("dataset", "train_resize", "image_size", "eval_resize", "on_bad_image")
    return Data(**{name: getattr(data, name) for name in kept})


def whole_images(data: Data, listing: Listing, side: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Each image once, whole, scaled to the shorter side; a batch holds images of one size rounded up.

    Yields {image: uint8 [B, H, W, C], zeros below and right of each; size: int32 [B, 2], its own height and width;
    label, index: int32 [B]; valid: bool [B]; bad: bool [B]}; H and W are multiples of 64. The last batch of each size
    is filled up with rows that are not valid, of index -1, and so are those that cannot be decoded.
    """
    full: dict[tuple[int, int], list] = collections.defaultdict(list)
    read = functools.partial(_whole_row, data, listing, side)
    for row in ahead_of(read, range(len(listing)), data.workers):
        bucket = tuple(-(-n // BUCKET) * BUCKET for n in row["image"].shape[:2])
        full[bucket].append(row)
        if len(full[bucket]) == batch:
            yield _bucketed(bucket, full.pop(bucket), batch)
    for bucket, rows in full.items():
        yield _bucketed(bucket, rows, batch)


def _whole_row(data: Data, listing: Listing, side: int, index: int) -> dict[str, Any]:
    image, label, _, bad = standing_in(data, listing, index, lambda x: whole(x, side))
    return {"image": image, "label": label, "index": -1 if bad else index, "bad": bad}


def _bucketed(bucket: tuple[int, int], rows: list[dict[str, Any]], batch: int) -> dict[str, np.ndarray]:
    image = np.zeros((batch, *bucket, rows[0]["image"].shape[-1]), np.uint8)
    size = np.ones((batch, 2), np.int32)
    for to, at, row in zip(image, size, rows, strict=False):
        at[:] = row["image"].shape[:2]
        to[: at[0], : at[1]] = row["image"]
    empty = batch - len(rows)
    column = lambda name, dtype, filler: np.array([row[name] for row in rows] + [filler] * empty, dtype)
    return {
        "image": image,
        "size": size,
        "label": column("label", np.int32, 0),
        "index": (index := column("index", np.int32, -1)),
        "valid": index >= 0,
        "bad": column("bad", bool, False),
    }
