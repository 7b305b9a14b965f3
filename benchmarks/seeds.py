"""Seconds of a step of several seeds: in one program, and one after another.

    python -m benchmarks.seeds --models=lenet5_modern --counts=1,2,4,8

Each seed has a batch of its own. One program holds either each seed's step ("unrolled") or one
vmapped step ("vmap"); "sequential" runs the ordinary program once per seed. All are compiled as a
long run compiles its step, start from the same weights and must give the same losses. Timed blocks
take turns.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.peers import ours
from benchmarks.result import check_names, run_benchmark, write_result
from cnn_jax import mesh as meshes
from cnn_jax import models
from cnn_jax.config import choose
from cnn_jax.cpu import memory, settings
from cnn_jax.errors import UserError
from cnn_jax.optim import make_optimizer
from cnn_jax.training import environment, multi_seed
from cnn_jax.training.multi_seed import Inputs
from cnn_jax.training.state import init_state
from cnn_jax.training.train_step import StepParts, compile_train, train_step

# {model: images per step of one seed}
MODELS = {"perceptron": 64, "mlp": 64, "lenet5_modern": 64, "resnet20": 32}
FORMS = {"unrolled": multi_seed.unroll, "vmap": multi_seed.vectorize}
WAYS = ("sequential", *FORMS)
HEAD = (
    *("model", "batch", "seeds", "way", "ms/step", "images/s"),
    *("sequential/way", "way/one seed", "compile s"),
)
# A way that takes this many times as long as sequential seeds is not tried with more seeds.
MAX_SLOWDOWN = 2
FLAGS = flags.FLAGS


def main() -> None:
    """Times each model with each number of seeds, and prints the table and a line of JSON."""
    check_names("models", FLAGS.models, MODELS)
    counts = [int(count) for count in FLAGS.counts if count.isdecimal() and int(count) > 0]
    if len(counts) < len(FLAGS.counts):
        raise UserError(f"--counts={','.join(FLAGS.counts)}: give numbers such as 1,2,4,8")
    # As a run does, the second for all but the smallest batches.
    settings.configure()
    memory.keep_memory(settings.MIN_BATCH_VALUES)
    print(format_line(HEAD))
    rows: list[dict[str, Any]] = []
    with jax.default_matmul_precision("float32"):
        for model in FLAGS.models:
            ways = list(WAYS)
            for count in sorted(counts):
                added = measure_ways(model, count, ways)
                for row in added:
                    print(format_line(format_cells(row)), flush=True)
                rows += added
                ways = [row["way"] for row in added if row["ratio"] > 1 / MAX_SLOWDOWN]
    settings_used = {"seconds": FLAGS.seconds, "blocks": FLAGS.blocks}
    write_result(
        {"benchmark": "seeds", **settings_used, "rows": rows} | environment.describe_environment()
    )


def measure_ways(model: str, count: int, ways: list[str]) -> list[dict[str, Any]]:
    """Times a step of `count` seeds each way, in blocks that take turns.

    Args:
      model: A key of MODELS.
      count: Number of seeds.
      ways: Which of WAYS to time. Ratios are to the first of them, and to a step of one seed.

    Returns:
      A row of the result for each way.
    """
    runs = {way: prepare_steps(model, count, way) for way in ways}
    if count > 1:
        runs["one"] = prepare_steps(model, 1, "sequential")
    firsts = {way: run(1) for way, run in runs.items()}
    losses = {way: values for way, (_, values) in firsts.items()}
    for way in ways[1:]:
        if not np.allclose(losses[way], losses[ways[0]], rtol=1e-4):
            sys.exit(
                f"seeds.py: {model}: losses {way} are {losses[way]}, {ways[0]} {losses[ways[0]]}"
            )
    steps = {way: max(1, round(FLAGS.seconds / run(1)[0])) for way, run in runs.items()}
    blocks = {way: [] for way in runs}
    for _ in range(FLAGS.blocks):
        for way, run in runs.items():
            blocks[way].append(run(steps[way])[0] / steps[way])
    medians = {way: statistics.median(seconds) for way, seconds in blocks.items()}
    one = medians.get("one", medians[ways[0]])
    return [
        {
            "model": model,
            "batch": MODELS[model],
            "seeds": count,
            "way": way,
            "step_ms": 1000 * medians[way],
            "images_per_s": count * MODELS[model] / medians[way],
            "ratio": medians[ways[0]] / medians[way],
            "to_one_seed": medians[way] / one,
            "first_step_s": firsts[way][0],
        }
        for way in ways
    ]


def prepare_steps(model: str, count: int, way: str) -> Callable[[int], tuple[float, list[float]]]:
    """Returns run(steps) -> (seconds, each seed's sum of losses), on one device with the batches.

    Args:
      model: A key of MODELS.
      count: Number of seeds.
      way: One of WAYS.
    """
    image, classes = models.get_paper_input(model)
    created = models.create(model, classes)
    tx = make_optimizer(choose("sgd"), choose("constant", base=0.01), total_steps=1)
    mesh = meshes.make_batch_mesh(jax.devices()[:1])
    keys = [jax.random.key(seed) for seed in range(count)]

    def step_one(key: jax.Array, state: Any, inputs: Inputs, batch: Any) -> Any:
        parts = StepParts(created, tx, ours.PREPARED_LOADER, jax.random.wrap_key_data(key))
        return train_step(parts, state, inputs.arrays, batch)

    shape = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    states = jax.device_put(
        [init_state(created, tx, key, shape) for key in keys], meshes.make_replicated_sharding(mesh)
    )
    batches = jax.device_put(
        tuple(draw_batch(seed, MODELS[model], image, classes) for seed in range(count)),
        meshes.make_batch_sharding(mesh),
    )
    options = None
    if jax.default_backend() == "cpu":
        values = batches[0]["image"].size
        options = settings.choose_onednn_for_run(settings.MIN_ONEDNN_STEPS, values)
    own_keys = tuple(map(jax.random.key_data, keys))
    if way in FORMS:
        form, inputs = FORMS[way](step_one), Inputs({}, own_keys)
        train = compile_train(form.step, "jit", mesh, options)
        state, split = form.join(states), form.split

        def advance(state: Any) -> Any:
            return train(state, inputs, batches)

    else:  # One program serves all seeds, as in a study.
        train = compile_train(multi_seed.make_single(step_one).step, "jit", mesh, options)
        state, split = states, list
        others = [(Inputs({}, (key,)), batch) for key, batch in zip(own_keys, batches, strict=True)]

        def advance(states: Any) -> Any:
            return [train(state, *other) for state, other in zip(states, others, strict=True)]

    def run(steps: int) -> tuple[float, list[float]]:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state = advance(state)
        jax.block_until_ready(state)
        return time.perf_counter() - start, [float(each.sums["loss"]) for each in split(state)]

    return run


def draw_batch(
    seed: int, size: int, image: tuple[int, int, int], classes: int
) -> dict[str, np.ndarray]:
    """Draws a batch of noise with labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size, dtype=np.int32)
    return {
        "image": rng.standard_normal((size, *image), np.float32),
        "label": labels,
        "valid": np.ones(size, bool),
    }


def format_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the cells of a row of the table.

    The ratios are of medians. Above 1, the way is faster than sequential seeds, and takes longer
    than a single seed.
    """
    ratios = (f"{row['ratio']:.2f}", f"{row['to_one_seed']:.2f}")
    numbers = (f"{row['step_ms']:.2f}", f"{row['images_per_s']:.0f}", *ratios)
    return (
        row["model"],
        row["batch"],
        row["seeds"],
        row["way"],
        *numbers,
        f"{row['first_step_s']:.1f}",
    )


def format_line(values: tuple[Any, ...]) -> str:
    """Returns one line of the table, in columns."""
    return "".join(
        f"{value!s:15}" if i in (0, 3) else f"{value!s:>14} " for i, value in enumerate(values)
    )


if __name__ == "__main__":
    flags.DEFINE_list(
        "models",
        ["mlp", "lenet5_modern", "resnet20"],
        f"The models to train: {', '.join(MODELS)}.",
    )
    flags.DEFINE_list("counts", ["1", "2", "4", "8"], "Numbers of seeds.")
    flags.DEFINE_float(
        "seconds", 0.3, "Length of a timed block, which has at least one step.", lower_bound=0
    )
    flags.DEFINE_integer("blocks", 5, "Timed blocks of each way.", lower_bound=1)
    run_benchmark(main)
