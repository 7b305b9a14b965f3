"""Evaluates a finished run, or public weights, by the protocols of `protocols.py`.

A run's results lie beside it, in evaluations/<protocol>.json.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from cnn_jax import data, distributed, mesh, models, pretrained
from cnn_jax.config import Choice, Data, Experiment, protocol_name
from cnn_jax.config_file import read_config
from cnn_jax.data import crops, preprocess, whole_images
from cnn_jax.errors import UserError
from cnn_jax.evaluation import protocols
from cnn_jax.files import write_whole
from cnn_jax.training import checkpoint
from cnn_jax.training.components import make_model

PIXELS_PER_BATCH = 2**22  # Of the images of a batch, about.
FOLDER = "evaluations"


def evaluate_run(folder: Path, asked: Iterable[Choice], average: str = "softmax") -> dict[str, dict[str, Any]]:
    """Evaluates the run in <workdir>/<run>/seed<k>.

    What was measured of the same checkpoint is not measured again.

    Args:
      folder: The run's folder.
      asked: Protocols; one without scales takes the run's own evaluation size.
      average: softmax or logits: what is averaged over views and scales.

    Returns:
      {protocol: its measures}, as evaluations/<protocol>.json holds them.

    Raises:
      NotFiniteError: If the model's scores are not finite.
      UserError: If the run has no checkpoint, a protocol is wrong, or the data are not prepared.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no config.json, so it is no run's folder")
    experiment = read_config(folder / "config.json")
    config, step = experiment.data, checkpoint.latest_step(folder)
    names = dict.fromkeys(protocol_name(choice) for choice in asked)
    known = {name: there for name in names if (there := _there(folder, name, step, average))}
    if left := [name for name in names if name not in known]:
        params, stats, step = checkpoint.load_parameters(folder)
        source = data.load_dataset(config)
        loader = data.make_loader(config, source)
        model = make_model(experiment, source.num_classes)
        crop = config.image_size or loader.image_shape[0]
        eval_size = crops.eval_side(config) if config.image_size else crop
        with jax.default_matmul_precision(experiment.train.precision):
            prepare = functools.partial(preprocess.preprocess_sized, loader.arrays["mean"])
            scorer = protocols.scorer(model, params, stats, prepare, crop, _mesh(), average, config.flip)
            for name, measures in _measure(scorer, config, source.test, left, eval_size):
                known[name] = {"step": step, "mirrored": config.flip, **measures}
                if distributed.is_primary():
                    _write(folder, name, known[name])
    return {name: known[name] for name in names}


def evaluate_weights(
    experiment: Experiment, weights: str, protocol: Choice, average: str = "softmax"
) -> dict[str, Any]:
    """Evaluates public weights on the test images of experiment.data.

    Args:
      experiment: Names the model and the data.
      weights: A file or an address.
      protocol: One without scales takes the publisher's own evaluation size.
      average: softmax or logits: what is averaged over views and scales.

    Returns:
      The protocol's measures.

    Raises:
      NotFiniteError: If the model's scores are not finite.
      UserError: If the weights cannot be had, or the images have other classes than theirs.
    """
    loaded = pretrained.load(experiment.model.name, weights)
    recipe = loaded.preprocessing
    model = models.create(experiment.model.name, loaded.num_classes, **loaded.options)
    side = max(recipe.resize, recipe.crop)
    config = dataclasses.replace(experiment.data, image_size=recipe.crop, train_resize=(side,))
    source = data.load_test_images(config, loaded.num_classes)
    if source.num_classes != loaded.num_classes:
        raise UserError(
            f"data set {config.name}: has {source.num_classes} classes, the weights"
            f" {loaded.num_classes}: give the data that they are for"
        )

    def prepare(images: jax.Array, size: jax.Array) -> jax.Array:
        return recipe.normalize(images)

    with jax.default_matmul_precision(experiment.train.precision):
        scorer = protocols.scorer(model, loaded.params, loaded.stats, prepare, recipe.crop, _mesh(), average)
        name = protocol_name(protocol)
        ((_, measures),) = _measure(scorer, config, source.test, [name], side)
    return measures


def describe(name: str, found: dict[str, Any]) -> str:
    """What was found, in one line."""
    errors = []
    for k in ("top1", "top5"):
        if found[f"{k}_error"] is not None:
            low, high = found[f"{k}_interval"]
            errors.append(f"top-{k[3:]} error {found[f'{k}_error']:.2%} [{low:.1%}; {high:.1%}]")
    return f"{name} {found['protocol']}: {', '.join(errors)}, loss {found['loss']:.3f} ({found['images']} images)"


def _mesh() -> jax.sharding.Mesh:
    return mesh.batch_mesh(jax.local_devices())  # of several processes each tests for itself, and the first one writes


def _measure(
    scorer: protocols.Scorer, config: Data, test: Any, texts: list[str], own: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(protocol, what it finds) of each; kinds of views and sides that several share are scored once."""
    images = data.ArrayDataset(f"{config.name} test", test) if isinstance(test, data.Arrays) else test
    parsed = {text: protocols.parse(text if "@" in text else f"{text}@{own}", scorer.crop) for text in texts}
    devices = jax.local_device_count()

    @functools.cache
    def scores(kind: str, side: int) -> dict[int, tuple]:
        batch = -(-max(1, min(config.eval_batch_size, PIXELS_PER_BATCH // side**2)) // devices) * devices
        return protocols.scores(scorer, kind, side, whole_images.iterate_resized(config, images, side, batch))

    for text, (kinds, sides) in parsed.items():
        found = protocols.fused([scores(kind, side) for kind in kinds for side in sides], scorer.average)
        left_out = {"left_out": len(images) - len(found)}
        name = f"{'+'.join(kinds)}@{','.join(map(str, sides))}"
        yield text, {"protocol": name, "average": scorer.average, **left_out, **protocols.measures(found)}


def _there(folder: Path, text: str, step: int, average: str) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / FOLDER / f"{text}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if (found.get("step"), found.get("average")) == (step, average) else None


def _write(folder: Path, text: str, found: dict[str, Any]) -> None:
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        write_whole(folder / FOLDER / f"{text}.json", json.dumps(found) + "\n")
    except OSError as e:
        raise UserError(f"cannot write to {folder / 'tests'} ({e.strerror}): make room for it") from None
