"""What a training step sends between devices: collectives and their bytes, read from the compiled program.

    python -m benchmarks.scaling

On 1, 2, 4 and 8 virtual devices of the CPU, for each net, as jit over a mesh and as pmap. Bytes are those of the
collectives' operands on one device, whatever way a network moves them. They depend neither on the batch nor, beyond
the nets' dense layers, on the images: these are small ones. --nets=resnet50,vgg_d takes minutes and 6.5 GB.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags

from benchmarks.result import tell

FLAGS = flags.FLAGS
DEVICES = (1, 2, 4, 8)
BATCH = 16
NETS = {
    "resnet20": (32, 32, 3),
    "resnet50": (32, 32, 3),
    "vgg_d": (32, 32, 3),
    "lenet5_modern": (28, 28, 1),
}
CLASSES = {"resnet50": 1000}


def main(argv: list[str]) -> None:
    """Compiles every form of every net, and prints the table and a line of JSON."""
    if unknown := [net for net in FLAGS.nets if net not in NETS]:
        sys.exit(f"scaling.py: {unknown[0]}: choose --nets of {', '.join(NETS)}")
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX starts
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    )
    from cnn_jax.training import metrics_log

    rows = [
        of_step(net, form, count)
        for net in FLAGS.nets
        for form in ("jit", "pmap")
        for count in DEVICES
    ]
    print(table(rows))
    print()
    for words in (findings := findings_of(rows)):
        print(words)
    tell(
        {"benchmark": "scaling", "batch": BATCH, "steps": rows, "findings": findings}
        | metrics_log.describe_environment()
    )


def of_step(net: str, form: str, count: int) -> dict[str, Any]:
    """A step's collectives on so many devices, and on the most how many programs its later runs compile."""
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

    mesh = meshes.batch_mesh(jax.devices()[:count])
    axis = meshes.BATCH if form == "pmap" else None
    classes = CLASSES.get(net, 10)
    model = models.create(net, classes, axis=axis)
    tx = make_optimizer(choose("sgd"), choose("constant", base=1e-5), total_steps=1)
    image = jax.ShapeDtypeStruct((1, *NETS[net]), "float32")
    make = lambda: init_state(model, tx, jax.random.key(0), image)
    state = jax.eval_shape(make)
    images = np.random.default_rng(0).random((BATCH, *NETS[net]), np.float32)
    item = {
        "image": images,
        "label": np.arange(BATCH, dtype=np.int32) % classes,
        "valid": np.ones(BATCH, bool),
    }
    parts = StepParts(model, tx, ours.FEED, jax.random.key(0), axis)
    train = compile_train(functools.partial(train_step, parts), form, mesh)
    bytes_of = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    told = {"net": net, "form": form, "devices": count}
    told |= {"params_bytes": bytes_of(state.params), "stats_bytes": bytes_of(state.stats)}

    # pmap's form is a function around what is compiled.
    text = (train if form == "jit" else jax.jit(train)).lower(state, {}, item).compile().as_text()
    kinds = hlo.count_collectives(text)
    told |= {"collectives": {kind: found._asdict() for kind, found in kinds.items()}}
    if count == max(DEVICES):
        state = jax.device_put(make(), meshes.replicated(mesh))
        told |= {"later_compilations": later_compilations(train, state, item)}
    return told


def later_compilations(train: Callable, state: Any, item: Any) -> int:
    """How many programs a step's second to fourth run compile: none, if a program serves every step."""
    import jax

    compiled = []
    heard = lambda event, *_, **__: (
        compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    for run in range(4):
        state = train(state, {}, item)
        if run == 0:
            jax.monitoring.register_event_duration_secs_listener(heard)
    jax.block_until_ready(state.step)
    jax.monitoring.clear_event_listeners()
    return len(compiled)


def findings_of(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each net and form: what of the collectives depends on the number of devices, or on the step."""
    lines = []
    for net, form in dict.fromkeys((row["net"], row["form"]) for row in rows):
        mine = [row for row in rows if (row["net"], row["form"]) == (net, form)]
        several = {row["devices"]: row["collectives"] for row in mine if row["devices"] > 1}
        words = []
        for kind in dict.fromkeys(kind for found in several.values() for kind in found):
            for what in ("count", "bytes"):
                values = [found.get(kind, {}).get(what, 0) for found in several.values()]
                if len(set(values)) > 1:
                    words.append(f"{kind}'s {what} {', '.join(f'{value:,}' for value in values)}")
        on = f"on {', '.join(map(str, several))} devices"
        depends = f"differ {on}: {'; '.join(words)}" if words else f"are the same {on}"
        later = sum(row.get("later_compilations", 0) for row in mine)
        lines.append(
            f"{net} {form}: collectives {depends}; programs compiled after the first step: {later}"
        )
    return lines


def table(rows: list[dict[str, Any]]) -> str:
    """A line a compiled step."""
    lines = [
        f"{'net':14} {'form':4} {'devices':>7} {'collectives':>11} {'MB moved':>9} {'of params':>9}  kinds"
    ]
    for row in rows:
        kinds = row["collectives"]
        moved = sum(entry["bytes"] for entry in kinds.values())
        count = sum(entry["count"] for entry in kinds.values())
        words = ", ".join(
            f"{entry['count']} {kind} {entry['bytes']:,} bytes" for kind, entry in kinds.items()
        )
        lines.append(
            f"{row['net']:14} {row['form']:4} {row['devices']:7} {count:11} {moved / 1e6:9.3f}"
            f" {moved / row['params_bytes']:9.3f}  {words}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_list(
        "nets", ["resnet20", "lenet5_modern"], f"Whose steps are read: {', '.join(NETS)}."
    )
    app.run(main)
