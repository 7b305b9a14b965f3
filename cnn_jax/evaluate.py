"""Tests a finished run, or loaded weights, by protocols of `views.py`; what they find is JSON beside the run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax import checkpoint, data, mesh, models, views
from cnn_jax.config import Data, UserError, from_json
from cnn_jax.files import write_whole


def of_run(folder: Path, protocols: Iterable[str], average: str = "softmax") -> dict[str, dict[str, Any]]:
    """Tests the run in <workdir>/<run>/seed<k>; writes and returns {protocol: measures} as tests/<protocol>.json.

    What is there already, of the same checkpoint and average, is not done again. Raises UserError for a run without
    checkpoints, a protocol that is none, or data that is not prepared.
    """
    try:
        experiment = from_json((folder / "config.json").read_text())
    except OSError:
        raise UserError(f"{folder} holds no config.json, so it is no run's folder") from None
    step, found, left = checkpoint.newest(folder), {}, []
    for protocol in protocols:
        path = folder / "tests" / f"{protocol}.json"
        there = json.loads(path.read_text()) if path.exists() else {}
        if there.get("step") == step and there.get("average") == average:
            found[protocol] = there
        else:
            left.append(protocol)
    if not left:
        return found
    params, stats, step = checkpoint.trained(folder)
    source = data.splits(experiment.data)
    options = vars(experiment.model) | {}
    model = models.create(options.pop("name"), source.num_classes, **options)
    with jax.default_matmul_precision(experiment.train.precision):
        for protocol, measures in tested(model, params, stats, experiment.data, source, left, average):
            found[protocol] = {"protocol": protocol, "average": average, "step": step, **measures}
            (folder / "tests").mkdir(exist_ok=True)
            write_whole(folder / "tests" / f"{protocol}.json", json.dumps(found[protocol]) + "\n")
    return found
