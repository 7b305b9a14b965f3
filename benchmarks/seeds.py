"""What it saves to train several seeds in one program.

Seconds a step of k seeds together, and one after another.

    python -m benchmarks.seeds --nets=lenet5_modern --counts=1,2,4,8
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import result
from benchmarks.peers import ours
from cnn_jax import mesh as meshes
from cnn_jax import models
from cnn_jax.config import choose
from cnn_jax.cpu import settings
from cnn_jax.optim import make_optimizer
from cnn_jax.training import metrics_log, multi_seed
from cnn_jax.training.state import init_state
from cnn_jax.training.train_step import StepParts, compile_train, train_step

# Images a step of one seed.
NETS = {"perceptron": 64, "mlp": 64, "lenet5_modern": 64, "resnet20": 32}
FORMS = {"unrolled": multi_seed.unrolled, "vmap": multi_seed.vmapped}
WAYS = ("in turn", *FORMS)
HEAD = ("net", "batch", "seeds", "way", "ms a step", "images/s", "in turn/way", "compile s")
SLOW = (
    2  # a form that takes so many times as long as the seeds in turn is not tried with more of them
)
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Times each net with each number of seeds, and prints the table and a line of JSON."""
    counts = [int(count) for count in FLAGS.counts if count.isdigit() and int(count) > 0]
    if len(argv) > 1 or not set(FLAGS.nets) <= NETS.keys() or len(counts) < len(FLAGS.counts):
        sys.exit(f"seeds.py: choose --nets of {', '.join(NETS)}, and --counts such as 1,2,4,8")
    # As build_program does for all but the smallest batches.
    settings.keep_memory(settings.MIN_BATCH_VALUES)
    print(line(HEAD))
    rows: list[dict[str, Any]] = []
    with jax.default_matmul_precision("float32"):
        for net in FLAGS.nets:
            ways = list(WAYS)
            for count in sorted(counts):
                rows += (found := measured(net, count, ways))
                for row in found:
                    print(line(cells(row)), flush=True)
                ways = [row["way"] for row in found if row["ratio"] > 1 / SLOW]
    given = {"seconds": FLAGS.seconds, "blocks": FLAGS.blocks}
    result.tell({"benchmark": "seeds", **given, "rows": rows, **metrics_log.describe_environment()})


def measured(net: str, count: int, ways: list[str]) -> list[dict[str, Any]]:
    """What a step of `count` seeds costs each way, the first of which is the measure.

    Their blocks take turns.
    """
    runs = {way: prepared(net, count, way) for way in ways}
    firsts = {way: run(1) for way, run in runs.items()}
    losses = {way: found for way, (_, found) in firsts.items()}
    for way in ways[1:]:
        if not np.allclose(losses[way], losses[ways[0]], rtol=1e-4):
            sys.exit(
                f"seeds.py: {net}: losses {way} are {losses[way]}, {ways[0]} {losses[ways[0]]}"
            )
    steps = {way: max(1, round(FLAGS.seconds / run(1)[0])) for way, run in runs.items()}
    blocks = {way: [] for way in ways}
    for _ in range(FLAGS.blocks):
        for way, run in runs.items():
            blocks[way].append(run(steps[way])[0] / steps[way])
    medians = {way: statistics.median(blocks[way]) for way in ways}
    return [
        {
            "net": net,
            "batch": NETS[net],
            "seeds": count,
            "way": way,
            "step_ms": 1000 * medians[way],
            "images_per_s": count * NETS[net] / medians[way],
            "ratio": medians[ways[0]] / medians[way],
            "first_step_s": firsts[way][0],
        }
        for way in ways
    ]


def prepared(net: str, count: int, way: str) -> Callable[[int], tuple[float, list[float]]]:
    """run(steps) -> (seconds, each seed's sum of losses), on one device where the batches lie."""
    image, classes = models.paper_input(net)
    model = models.create(net, classes)
    tx = make_optimizer(choose("sgd"), choose("constant", base=0.01), total_steps=1)
    mesh, keys = (
        meshes.batch_mesh(jax.devices()[:1]),
        [jax.random.key(seed) for seed in range(count)],
    )

    def make(key: jax.Array) -> Callable:
        return functools.partial(train_step, StepParts(model, tx, ours.FEED, key))

    shape = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    states = jax.device_put(
        [init_state(model, tx, key, shape) for key in keys], meshes.replicated(mesh)
    )
    items = jax.device_put(
        tuple(batch(seed, NETS[net], image, classes) for seed in range(count)), meshes.sharded(mesh)
    )
    if way in FORMS:
        form = FORMS[way](make, keys)
        train, state, split = compile_train(form.step, "jit", mesh), form.join(states), form.split

        def advance(state: Any) -> Any:
            return train(state, {}, items)

    else:  # one program serves all: in runs of their own each has its key in it
        train, state, split = compile_train(make(keys[0]), "jit", mesh), states, list

        def advance(states: Any) -> Any:
            return [train(state, {}, item) for state, item in zip(states, items, strict=True)]

    def run(steps: int) -> tuple[float, list[float]]:
        nonlocal state
        began = time.perf_counter()
        for _ in range(steps):
            state = advance(state)
        jax.block_until_ready(state)
        return time.perf_counter() - began, [float(each.sums["loss"]) for each in split(state)]

    return run


def batch(seed: int, size: int, image: tuple[int, int, int], classes: int) -> dict[str, np.ndarray]:
    """Noise and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size, dtype=np.int32)
    return {
        "image": rng.standard_normal((size, *image), np.float32),
        "label": labels,
        "valid": np.ones(size, bool),
    }


def cells(row: dict[str, Any]) -> tuple[Any, ...]:
    """A row as the table has it.

    The ratio is of medians: above 1, the way is faster than the seeds in turn.
    """
    numbers = (f"{row['step_ms']:.2f}", f"{row['images_per_s']:.0f}", f"{row['ratio']:.2f}")
    return (
        row["net"],
        row["batch"],
        row["seeds"],
        row["way"],
        *numbers,
        f"{row['first_step_s']:.1f}",
    )


def line(values: tuple[Any, ...]) -> str:
    """One line of the table, in columns."""
    return "".join(
        f"{value!s:15}" if i in (0, 3) else f"{value!s:>12} " for i, value in enumerate(values)
    )


if __name__ == "__main__":
    flags.DEFINE_list(
        "nets", ["mlp", "lenet5_modern", "resnet20"], f"What is trained: {', '.join(NETS)}."
    )
    flags.DEFINE_list("counts", ["1", "2", "4", "8"], "Numbers of seeds.")
    flags.DEFINE_float(
        "seconds", 0.3, "How long a timed block is to be (at least one step).", lower_bound=0
    )
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each way.", lower_bound=1)
    app.run(main)
