"""Images/s of shuffled batches from memory, on one core: our loader and two Grain pipelines.

    python -m benchmarks.batches

The images have CIFAR-10's size and are not augmented. Our batches are JAX arrays, ready for a step;
Grain's are left as NumPy arrays. Before anything is timed, each loader is restored at several steps
and must continue with the batches that it gives without a restore.
"""

import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from absl import flags

from benchmarks.result import compute_range, format_columns, run_benchmark, write_result

BATCH, SEED = 128, 0
FLAGS = flags.FLAGS


def main() -> None:
    """Checks and times each loader, and prints the table and a line of JSON."""
    if hasattr(os, "sched_setaffinity"):  # On Linux. JAX starts a thread per core.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks.noise import make_noise_dataset
    from cnn_jax.training import environment

    source = make_noise_dataset((32, 32, 3), 10, FLAGS.images, 1)
    loaders, left_out = {"ours": make_our_loader(source)}, {}
    if importlib.util.find_spec("grain") is None:
        left_out["grain"] = "is not installed: pip install -r requirements.txt"
        print(f"grain {left_out['grain']}")
    else:
        loaders |= {
            "grain by image": make_grain_by_image(source),
            "grain by batch": make_grain_by_batch(source),
        }
    for name, loader in loaders.items():
        check_restore(name, loader)
    blocks: dict[str, list[float]] = {name: [] for name in loaders}
    iterators = {name: loader.iterate(0) for name, loader in loaders.items()}
    for block in range(FLAGS.blocks + 1):
        for name, batches in iterators.items():
            speed = measure_speed(batches, FLAGS.seconds)
            if block:  # The first block warms up.
                blocks[name].append(speed)
    rows = {
        name: {"images_per_s": compute_range(speeds), "restore_ms": measure_restore(loaders[name])}
        for name, speeds in blocks.items()
    }
    print(f"batches of {BATCH} of {FLAGS.images:,} images 32x32x3 in memory, on one core\n")
    print(format_table(rows))
    settings = {
        "images": FLAGS.images,
        "batch": BATCH,
        "seconds": FLAGS.seconds,
        "blocks": FLAGS.blocks,
    }
    write_result(
        {"benchmark": "batches", **settings, "ways": rows, "left_out": left_out}
        | environment.describe_environment()
    )


class Loader(NamedTuple):
    """An endless iterator of batches (image [B, 32, 32, 3] uint8, label [B]), and its restoring."""

    # iterate(step) reads and discards the batches before `step`.
    iterate: Callable[[int], Iterator[tuple[Any, Any]]]
    # restore(step) continues at `step` as an interrupted run does.
    restore: Callable[[int], Iterator[tuple[Any, Any]]]
    # prepare_restore(step) returns a function that restores and reads one batch, to be timed.
    prepare_restore: Callable[[int], Callable[[], Any]]


def make_our_loader(source: Any) -> Loader:
    """Returns a run's loader: the host draws rows, a compiled function gathers them."""
    import jax

    from cnn_jax import data
    from cnn_jax.config import Data

    loader = data.make_loader(Data(batch_size=BATCH), source, SEED)
    arrays, fetch = jax.device_put(loader.arrays), jax.jit(loader.fetch)

    def batches(items: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        for item in items:
            batch = jax.block_until_ready(fetch(arrays, item))
            yield batch["image"], batch["label"]

    def iterate(step: int) -> Iterator[tuple[Any, Any]]:
        return batches(itertools.islice(loader.batches(0), step, None))

    return Loader(
        iterate,
        lambda step: batches(loader.batches(step)),
        lambda step: lambda: next(loader.batches(step)),
    )


def make_grain_by_image(source: Any) -> Loader:
    """Returns Grain as its guide uses it: an index is one image, and `batch` collects them."""
    import grain

    class Rows:
        def __len__(self) -> int:
            return len(source.train.labels)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return source.train.images[index], source.train.labels[index]

    return make_grain_loader(
        lambda: grain.MapDataset.source(Rows()).seed(SEED).shuffle().repeat().batch(BATCH)
    )


def make_grain_by_batch(source: Any) -> Loader:
    """Returns Grain with one index per batch, gathered at once; it drops an epoch's remainder."""
    import functools

    import grain
    import numpy as np

    count = len(source.train.labels)
    order = functools.lru_cache(maxsize=2)(
        lambda epoch: np.random.default_rng((SEED, epoch)).permutation(count)
    )
    batches_per_epoch = count // BATCH

    class Batches:
        def __len__(self) -> int:
            return batches_per_epoch * 10_000

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            epoch, within = divmod(int(index), batches_per_epoch)
            rows = order(epoch)[within * BATCH : (within + 1) * BATCH]
            return source.train.images[rows], source.train.labels[rows]

    return make_grain_loader(lambda: grain.MapDataset.source(Batches()))


def make_grain_loader(dataset: Callable[[], Any]) -> Loader:
    """Returns a Grain pipeline that is restored from its state.

    The thread that asks for batches also reads them: on one core that is the fastest.
    """
    import grain

    reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)

    def start() -> Any:
        return iter(dataset().to_iter_dataset(reading))

    def advance(step: int) -> tuple[Any, Any]:
        iterator = start()
        for _ in range(step):
            next(iterator)
        return iterator, iterator.get_state()

    def restore(step: int) -> Iterator[tuple[Any, Any]]:
        _, state = advance(step)
        iterator = start()
        iterator.set_state(state)
        return iterator

    def prepare_restore(step: int) -> Callable[[], Any]:
        iterator, state = advance(step)
        return lambda: (iterator.set_state(state), next(iterator))

    return Loader(lambda step: advance(step)[0], restore, prepare_restore)


def check_restore(name: str, loader: Loader, steps: tuple[int, ...] = (1, 5, 60)) -> None:
    """Ends the benchmark if a restored loader continues with other batches."""
    import numpy as np

    for step in steps:
        pairs = itertools.islice(zip(loader.iterate(step), loader.restore(step), strict=False), 3)
        if not all(
            np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
        ):
            sys.exit(
                f"batches.py: {name}: restored at step {step}, it continues with other batches"
            )


def measure_speed(batches: Iterator[tuple[Any, Any]], seconds: float) -> float:
    """Reads batches for some seconds, at least one; returns images/s."""
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds or not count:
        next(batches)
        count += BATCH
    return count / (now - start)


def measure_restore(loader: Loader) -> float:
    """Returns the median milliseconds of restoring at step 60 and reading one batch."""
    restore, took = loader.prepare_restore(60), []
    for _ in range(5):
        start = time.perf_counter()
        restore()
        took.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took)


def format_table(rows: dict[str, Any]) -> str:
    """Returns a line per loader. The ratio is of medians: above 1, ours is faster."""
    lines = [("loader", "images/s", "(min - max)", "ours/loader", "restore, ms")]
    for name, row in rows.items():
        speed = row["images_per_s"]
        ratio = rows["ours"]["images_per_s"]["median"] / speed["median"]
        spans = f"({speed['min']:,.0f} - {speed['max']:,.0f})"
        lines.append(
            (name, f"{speed['median']:,.0f}", spans, f"{ratio:.2f}", f"{row['restore_ms']:.2f}")
        )
    return format_columns(lines)


if __name__ == "__main__":
    flags.DEFINE_integer("images", 50_000, "Images in the data set.", lower_bound=BATCH)
    flags.DEFINE_float("seconds", 1, "Length of a timed block.", lower_bound=0)
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each loader.", lower_bound=1)
    run_benchmark(main)
