"""The project's own step, compiled as a run compiles it, on a batch in the device's memory."""

import functools
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    WORKLOADS,
    Peer,
    Spec,
    nest,
    read_jax_peak_memory,
)
from cnn_jax import mesh as meshes
from cnn_jax import models
from cnn_jax.config import choose
from cnn_jax.cpu import memory, settings
from cnn_jax.optim import make_optimizer
from cnn_jax.training.state import State, make_zero_sums
from cnn_jax.training.train_step import StepParts, compile_train, train_step

# A loader whose batches need no fetching and no preprocessing.
PREPARED_LOADER = types.SimpleNamespace(
    fetch=lambda arrays, item: item, preprocess=lambda arrays, images, key=None, rows=None: images
)


def make_peer(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """Returns our step, without dropout: no two frameworks draw the same masks."""
    values = weights["images"].size
    settings.configure()  # As train.run does, like the next line.
    memory.keep_memory(values)
    workload = WORKLOADS[spec.model]
    options = {"dropout": 0.0, **workload.options}
    model = models.create(workload.model, spec.classes, dtype=spec.precision, **options)
    optimizer = choose("sgd", momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    tx = make_optimizer(
        optimizer, choose("constant", base=LEARNING_RATE), settings.MIN_ONEDNN_STEPS
    )
    mesh = meshes.make_batch_mesh(jax.devices()[:1])  # The peers use one device too.
    params, stats = nest(weights, "params"), nest(weights, "stats")
    state = State(jnp.int32(0), params, stats, tx.init(params), make_zero_sums(), jnp.int32(-1))
    state = jax.device_put(state, meshes.make_replicated_sharding(mesh))
    batch = {
        "image": weights["images"],
        "label": weights["labels"],
        "valid": np.ones(spec.batch, bool),
    }
    batch = jax.device_put(batch, meshes.make_batch_sharding(mesh))
    compiler_options = (
        settings.choose_onednn_for_run(settings.MIN_ONEDNN_STEPS, values)
        if spec.platform == "cpu"
        else None
    )
    trimmer = memory.Trimmer()  # As a run has.
    parts = StepParts(model, tx, PREPARED_LOADER, jax.random.key(0))
    train = compile_train(functools.partial(train_step, parts), "jit", mesh, compiler_options)

    def step() -> None:
        nonlocal state
        trimmer.prepare_call(state)
        state = train(state, {}, batch)

    def loss() -> float:
        nonlocal state
        mean = float(state.sums["loss"]) / int(state.sums["steps"])
        state = state.replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
        return mean

    def read_program() -> str:
        return train.lower(state, {}, batch).compile().as_text()

    return Peer(step, loss, read_jax_peak_memory, read_program)
