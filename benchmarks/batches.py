"""Images a second a core of batches from memory, shuffled by a seed and restorable: our feed and Grain's ways.

    python -m benchmarks.batches

One process on one core; CIFAR-10's sizes, no augmentation. Ours ends in a JAX array, where a step takes it from;
Grain's batches are left as NumPy arrays. Before anything is timed, each way must go on after a restore at a step as it
would have without it.
"""

import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from absl import app, flags

from benchmarks.result import aligned, spread, tell

BATCH, SEED = 128, 0
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Checks and times each way, and prints the table and a line of JSON."""
    if argv[1:]:
        sys.exit(f"batches.py: {argv[1]}: wants flags only")
    if hasattr(os, "sched_setaffinity"):  # Linux; before JAX starts, which makes a thread a core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks.epoch import noise
    from cnn_jax.training import metrics_log

    source = noise(FLAGS.images)
    ways, left_out = {"ours": ours(source)}, {}
    if importlib.util.find_spec("grain") is None:
        left_out["grain"] = "is not installed: pip install -r requirements.txt"
        print(f"grain {left_out['grain']}")
    else:
        ways |= {
            "grain, an element an index": elements(source),
            "grain, a batch an index": whole_batches(source),
        }
    for name, way in ways.items():
        check(name, way)
    blocks: dict[str, list[float]] = {name: [] for name in ways}
    going = {name: way.batches(0) for name, way in ways.items()}
    for block in range(FLAGS.blocks + 1):
        for name, batches in going.items():
            speed = timed(batches, FLAGS.seconds)
            if block:  # the first warms up
                blocks[name].append(speed)
    rows = {name: {"images_per_s": spread(speeds), "restore_ms": restore_ms(ways[name])}
            for name, speeds in blocks.items()}  # fmt: skip
    print(f"batches of {BATCH} of {FLAGS.images:,} images 32x32x3 in memory, on one core\n")
    print(table(rows))
    settings = {
        "images": FLAGS.images,
        "batch": BATCH,
        "seconds": FLAGS.seconds,
        "blocks": FLAGS.blocks,
    }
    tell(
        {"benchmark": "batches", **settings, "ways": rows, "left_out": left_out}
        | metrics_log.describe_environment()
    )


class Way(NamedTuple):
    """A way to batches: (image [B, 32, 32, 3] uint8, label [B]) without end."""

    batches: Callable[[int], Iterator[tuple[Any, Any]]]  # from a step on, by going there
    restored: Callable[
        [int], Iterator[tuple[Any, Any]]
    ]  # the same as a run that was cut off comes to it
    saved: Callable[[int], Callable[[], Any]]  # the restoring alone, which is timed


def ours(source: Any) -> Way:
    """The feed that a run trains on: rows drawn on the host, gathered by a compiled function."""
    import jax

    from cnn_jax import data
    from cnn_jax.config import Data

    loader = data.make_loader(Data(batch_size=BATCH), source, SEED)
    arrays, fetch = jax.device_put(loader.arrays), jax.jit(loader.fetch)

    def batches(items: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        for item in items:
            batch = jax.block_until_ready(fetch(arrays, item))
            yield batch["image"], batch["label"]

    going = lambda step: batches(itertools.islice(loader.batches(0), step, None))
    return Way(
        going,
        lambda step: batches(loader.batches(step)),
        lambda step: lambda: next(loader.batches(step)),
    )


def elements(source: Any) -> Way:
    """Grain as its guide has it: an index is an image, and images are then batched."""
    import grain

    class Rows:
        def __len__(self) -> int:
            return len(source.train.labels)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return source.train.images[index], source.train.labels[index]

    return grain_way(
        lambda: grain.MapDataset.source(Rows()).seed(SEED).shuffle().repeat().batch(BATCH)
    )


def whole_batches(source: Any) -> Way:
    """Grain with a batch an index, gathered at once; an epoch ends with its last whole batch."""
    import functools

    import grain
    import numpy as np

    count = len(source.train.labels)
    order = functools.lru_cache(maxsize=2)(
        lambda epoch: np.random.default_rng((SEED, epoch)).permutation(count)
    )
    a_epoch = count // BATCH

    class Batches:
        def __len__(self) -> int:
            return a_epoch * 10_000

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            epoch, within = divmod(int(index), a_epoch)
            rows = order(epoch)[within * BATCH : (within + 1) * BATCH]
            return source.train.images[rows], source.train.labels[rows]

    return grain_way(lambda: grain.MapDataset.source(Batches()))


def grain_way(dataset: Callable[[], Any]) -> Way:
    """A Grain pipeline read by the thread that asks for batches, as there is one core; restored by its state."""
    import grain

    reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    start = lambda: iter(dataset().to_iter_dataset(reading))

    def at(step: int) -> tuple[Any, Any]:
        there = start()
        for _ in range(step):
            next(there)
        return there, there.get_state()

    def restored(step: int) -> Iterator[tuple[Any, Any]]:
        _, state = at(step)
        again = start()
        again.set_state(state)
        return again

    def saved(step: int) -> Callable[[], Any]:
        there, state = at(step)
        return lambda: (there.set_state(state), next(there))

    return Way(lambda step: at(step)[0], restored, saved)


def check(name: str, way: Way, steps: tuple[int, ...] = (1, 5, 60)) -> None:
    """Ends the benchmark if batches after a restore are not those that came without it."""
    import numpy as np

    for step in steps:
        pairs = itertools.islice(zip(way.batches(step), way.restored(step), strict=False), 3)
        if not all(
            np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
        ):
            sys.exit(f"batches.py: {name}: restored at step {step}, other batches follow")


def timed(batches: Iterator[tuple[Any, Any]], seconds: float) -> float:
    """Images a second over so many seconds."""
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < seconds or not count:
        next(batches)
        count += BATCH
    return count / (now - began)


def restore_ms(way: Way) -> float:
    """Milliseconds from being told a step to what it draws, median."""
    restore, took = way.saved(60), []
    for _ in range(5):
        began = time.perf_counter()
        restore()
        took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took)


def table(rows: dict[str, Any]) -> str:
    """A line a way; the ratio is of medians: above 1, ours is faster."""
    lines = [("way", "images/s a core", "(min - max)", "ours/way", "restoring, ms")]
    for name, row in rows.items():
        speed = row["images_per_s"]
        ratio = rows["ours"]["images_per_s"]["median"] / speed["median"]
        spans = f"({speed['min']:,.0f} - {speed['max']:,.0f})"
        lines.append(
            (name, f"{speed['median']:,.0f}", spans, f"{ratio:.2f}", f"{row['restore_ms']:.2f}")
        )
    return aligned(lines)


if __name__ == "__main__":
    flags.DEFINE_integer("images", 50_000, "Of the data set.", lower_bound=BATCH)
    flags.DEFINE_float("seconds", 1, "How long a timed block is to be.", lower_bound=0)
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each way.", lower_bound=1)
    app.run(main)
