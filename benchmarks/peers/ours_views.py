"""The project's own evaluation of test-time views, as `cnn_jax.evaluation` runs it."""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from benchmarks.peers import (
    CROP,
    SCALE,
    WORKLOADS,
    Peer,
    Spec,
    make_photographs,
    nest,
    read_jax_peak_memory,
)
from cnn_jax import data, models
from cnn_jax import mesh as meshes
from cnn_jax.config import Data, choose
from cnn_jax.cpu import memory, settings
from cnn_jax.data import eval_views, preprocess
from cnn_jax.evaluation.metrics import measure_scores
from cnn_jax.evaluation.protocols import make_protocol
from cnn_jax.evaluation.scoring import cut_views, make_scorer, score_images

MEAN = np.full((1, 1, 1, 3), 127, np.float32)


def make_peer(spec: Spec, weights: Mapping[str, np.ndarray]) -> Peer:
    """Returns an evaluation of all photographs by the protocol of `spec`, as one step."""
    settings.configure()  # As the command line does, and the next line as an evaluation does.
    memory.keep_memory(spec.batch * CROP**2 * 3)
    model = models.create(WORKLOADS[spec.model].model, spec.classes, dtype=spec.precision)
    prepare = functools.partial(preprocess.preprocess_sized, MEAN)
    params, stats = nest(weights, "params"), nest(weights, "stats")
    mesh = meshes.make_batch_mesh(jax.devices()[:1])  # PyTorch uses one device too.
    many = settings.MIN_ONEDNN_PIXELS  # Compiled as for many images.
    scorer = make_scorer(model, params, stats, prepare, CROP, mesh, count=many)
    arrays = data.Arrays(make_photographs(weights["images"]), weights["labels"])
    images = data.ArrayDataset("photographs", arrays)
    (views,) = make_protocol(choose(spec.protocol), CROP, SCALE).views
    loss = 0.0

    def step() -> None:
        nonlocal loss
        if views.dense:
            batches = eval_views.iterate_resized(Data(), images, SCALE, spec.batch)
        else:
            cut = functools.partial(cut_views, views, CROP)
            batches = eval_views.iterate_views(Data(), images, SCALE, cut, spec.batch)
        loss = measure_scores(score_images(scorer, views, batches)).loss

    return Peer(step, lambda: loss, read_jax_peak_memory)
