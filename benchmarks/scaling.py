"""Counts what a training step sends between devices, from the compiled program.

    python -m benchmarks.scaling

The step of each model is compiled for 1, 2, 4 and 8 virtual CPU devices, by jit over a mesh and by
pmap. The collectives' bytes are those of their operands on one device; a network may move more.
They do not depend on the batch, and on the images only where a model has dense layers, so small
images suffice. `--models=resnet50,vgg_d` takes minutes and 6.5 GB.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks.result import check_names, run_benchmark, write_result

FLAGS = flags.FLAGS
DEVICES = (1, 2, 4, 8)
BATCH = 16
MODELS = {
    "resnet20": (32, 32, 3),
    "resnet50": (32, 32, 3),
    "vgg_d": (32, 32, 3),
    "lenet5_modern": (28, 28, 1),
}
CLASSES = {"resnet50": 1000}


def main() -> None:
    """Compiles every step, and prints the table and a line of JSON."""
    check_names("models", FLAGS.models, MODELS)
    os.environ["JAX_PLATFORMS"] = "cpu"  # Before JAX starts.
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    )
    from cnn_jax.training import environment

    rows = [
        measure_step(model, parallel, count)
        for model in FLAGS.models
        for parallel in ("jit", "pmap")
        for count in DEVICES
    ]
    print(format_table(rows))
    print()
    for finding in (findings := summarize_steps(rows)):
        print(finding)
    write_result(
        {"benchmark": "scaling", "batch": BATCH, "steps": rows, "findings": findings}
        | environment.describe_environment()
    )


def measure_step(model: str, parallel: str, devices: int) -> dict[str, Any]:
    """Compiles a step and counts its collectives.

    Args:
      model: A key of MODELS.
      parallel: "jit" or "pmap".
      devices: Number of virtual devices.

    Returns:
      A row of the result. For the largest number of devices it also holds
      `later_compilations`, the number of programs that steps 2 to 4 compile.
    """
    import jax
    import numpy as np

    from benchmarks.peers import ours
    from cnn_jax import mesh as meshes
    from cnn_jax import models
    from cnn_jax.config import choose
    from cnn_jax.cost import hlo
    from cnn_jax.optim import make_optimizer
    from cnn_jax.training.state import init_state
    from cnn_jax.training.train_step import StepParts, compile_train, train_step

    mesh = meshes.make_batch_mesh(jax.devices()[:devices])
    axis = meshes.BATCH if parallel == "pmap" else None
    classes = CLASSES.get(model, 10)
    created = models.create(model, classes, axis=axis)
    tx = make_optimizer(choose("sgd"), choose("constant", base=1e-5), total_steps=1)
    image = jax.ShapeDtypeStruct((1, *MODELS[model]), "float32")

    def make_state() -> Any:
        return init_state(created, tx, jax.random.key(0), image)

    state = jax.eval_shape(make_state)
    images = np.random.default_rng(0).random((BATCH, *MODELS[model]), np.float32)
    batch = {
        "image": images,
        "label": np.arange(BATCH, dtype=np.int32) % classes,
        "valid": np.ones(BATCH, bool),
    }
    parts = StepParts(created, tx, ours.PREPARED_LOADER, jax.random.key(0), axis)
    train = compile_train(functools.partial(train_step, parts), parallel, mesh)

    def count_bytes(tree: Any) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    row = {"model": model, "parallel": parallel, "devices": devices}
    row |= {"params_bytes": count_bytes(state.params), "stats_bytes": count_bytes(state.stats)}

    # With pmap, `train` is a plain function around the compiled one.
    text = (
        (train if parallel == "jit" else jax.jit(train)).lower(state, {}, batch).compile().as_text()
    )
    kinds = hlo.count_collectives(text)
    row |= {"collectives": {kind: total._asdict() for kind, total in kinds.items()}}
    if devices == max(DEVICES):
        state = jax.device_put(make_state(), meshes.make_replicated_sharding(mesh))
        row |= {"later_compilations": count_later_compilations(train, state, batch)}
    return row


def count_later_compilations(train: Callable, state: Any, batch: Any) -> int:
    """Takes four steps; returns how many programs steps 2 to 4 compile. It should be 0."""
    import jax

    compiled = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    for step in range(4):
        state = train(state, {}, batch)
        if step == 0:
            jax.monitoring.register_event_duration_secs_listener(listen)
    jax.block_until_ready(state.step)
    jax.monitoring.clear_event_listeners()
    return len(compiled)


def summarize_steps(rows: list[dict[str, Any]]) -> list[str]:
    """Compares the rows of each model and kind of parallelism.

    Returns:
      A sentence for each: which collectives depend on the number of devices, and how many
      programs are compiled after the first step.
    """
    lines = []
    for model, parallel in dict.fromkeys((row["model"], row["parallel"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["parallel"]) == (model, parallel)]
        several = {row["devices"]: row["collectives"] for row in mine if row["devices"] > 1}
        differences = []
        for kind in dict.fromkeys(kind for kinds in several.values() for kind in kinds):
            for what in ("count", "bytes"):
                values = [kinds.get(kind, {}).get(what, 0) for kinds in several.values()]
                if len(set(values)) > 1:
                    listed = ", ".join(f"{value:,}" for value in values)
                    differences.append(f"{kind}'s {what} {listed}")
        on = f"on {', '.join(map(str, several))} devices"
        depends = f"differ {on}: {'; '.join(differences)}" if differences else f"are the same {on}"
        later = sum(row.get("later_compilations", 0) for row in mine)
        lines.append(
            f"{model} {parallel}: collectives {depends}; programs compiled after the first step:"
            f" {later}"
        )
    return lines


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns a line per compiled step."""
    lines = [
        f"{'model':14} {'kind':4} {'devices':>7} {'collectives':>11} {'MB moved':>9}"
        f" {'/ params':>9}  kinds"
    ]
    for row in rows:
        kinds = row["collectives"]
        moved = sum(entry["bytes"] for entry in kinds.values())
        count = sum(entry["count"] for entry in kinds.values())
        listed = ", ".join(
            f"{entry['count']} {kind} {entry['bytes']:,} bytes" for kind, entry in kinds.items()
        )
        lines.append(
            f"{row['model']:14} {row['parallel']:4} {row['devices']:7} {count:11}"
            f" {moved / 1e6:9.3f} {moved / row['params_bytes']:9.3f}  {listed}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_list(
        "models", ["resnet20", "lenet5_modern"], f"The models to compile: {', '.join(MODELS)}."
    )
    run_benchmark(main)
