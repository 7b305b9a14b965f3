"""Tests a finished run, or public weights, by the protocols of `views.py`; a run's tests are JSON beside it."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import data, distributed, mesh, models, pretrained
from cnn_jax.config import Data, Experiment, from_json
from cnn_jax.data import image_sets, streaming
from cnn_jax.errors import UserError
from cnn_jax.evaluation import protocols
from cnn_jax.files import write_whole
from cnn_jax.training import checkpoint

PIXELS = 2**22  # of the images of a batch, about


def of_run(folder: Path, asked: Iterable[str], average: str = "softmax") -> dict[str, dict[str, Any]]:
    """Tests the run in <workdir>/<run>/seed<k>; returns {protocol: what was found}, as tests/<protocol>.json has it.

    A protocol without sides is of the run's own test side. What was found of the same checkpoint is not done again.
    Raises UserError for a run without checkpoints, a wrong protocol, or data that is not prepared.
    """
    try:
        experiment = from_json((folder / "config.json").read_text())
    except OSError:
        raise UserError(f"{folder} holds no config.json, so it is no run's folder") from None
    config, step = experiment.data, checkpoint.newest(folder)
    asked = dict.fromkeys(asked)
    found = {text: there for text in asked if (there := _there(folder, text, step, average))}
    if left := [text for text in asked if text not in found]:
        params, stats, step = checkpoint.trained(folder)
        source = data.splits(config)
        feed = data.batches(config, source)
        options = dataclasses.asdict(experiment.model)
        model = models.create(options.pop("name"), source.num_classes, **options)
        crop = config.crop or feed.shape[0]
        test_side = streaming.test_side(config) if config.crop else crop
        with jax.default_matmul_precision(experiment.train.precision):
            prepare = functools.partial(_prepared, feed)
            scorer = protocols.scorer(model, params, stats, prepare, crop, _mesh(), average, config.flip)
            for text, measures in _tested(scorer, config, source.test, left, test_side):
                found[text] = {"step": step, "mirrored": config.flip, **measures}
                if distributed.first():
                    _write(folder, text, found[text])
    return found


def of_weights(experiment: Experiment, weights: str, protocol: str, average: str = "softmax") -> dict[str, Any]:
    """Tests public weights, a file or address, as the net experiment.model on the test images of experiment.data.

    A protocol without sides is of the publisher's own test side. Raises UserError for weights that cannot be had, or
    images with other classes than theirs.
    """
    loaded = pretrained.load(experiment.model.name, weights)
    recipe = loaded.preprocessing
    model = models.create(experiment.model.name, loaded.num_classes, **loaded.options)
    sides = {"crop": recipe.crop, "shorter_side": (max(recipe.resize, recipe.crop),)}
    config = dataclasses.replace(experiment.data, **sides)
    source = data.splits(config)
    if source.num_classes != loaded.num_classes:
        raise UserError(
            f"--data={config.name}: has {source.num_classes} classes, the weights {loaded.num_classes}: give the data"
            " that they are for"
        )
    with jax.default_matmul_precision(experiment.train.precision):
        scorer = protocols.scorer(
            model,
            loaded.params,
            loaded.stats,
            lambda images, size: recipe.normalise(images),
            recipe.crop,
            _mesh(),
            average,
        )
        ((_, found),) = _tested(scorer, config, source.test, [protocol], sides["shorter_side"][0])
    return found


def line(name: str, found: dict[str, Any]) -> str:
    """What was found, in one line."""
    errors = []
    for k in ("top1", "top5"):
        if found[f"error_{k}"] is not None:
            low, high = found[f"interval_{k}"]
            errors.append(f"top-{k[3:]} error {found[f'error_{k}']:.2%} [{low:.1%}; {high:.1%}]")
    return f"{name} {found['protocol']}: {', '.join(errors)}, loss {found['loss']:.3f} ({found['images']} images)"


def _mesh() -> jax.sharding.Mesh:
    return mesh.batch_mesh(jax.local_devices())  # of several processes each tests for itself, and the first one writes


def _prepared(feed: data.Feed, images: jax.Array, size: jax.Array) -> jax.Array:
    """Images [B, H, W, C], of which image b is the upper left size[b], as training's evaluation prepares them.

    From images of training's size the mean image is subtracted; from others, where it does not fit, the mean of each
    of its channels.
    """
    mean = feed.arrays["mean"]
    height, width = mean.shape[1:3]
    if images.shape[1:3] != (height, width):
        channels = jnp.broadcast_to(mean.mean((1, 2), keepdims=True), (1, *images.shape[1:]))
        own = jnp.array([[height, width]])
        if images.shape[1] >= height and images.shape[2] >= width:
            same = (size == own).all(-1)[:, None, None, None]
            mean = jnp.where(same, channels.at[:, :height, :width].set(mean), channels)
        else:
            mean = channels
    return feed.prepare({"mean": mean}, images)


def _tested(
    scorer: protocols.Scorer, config: Data, test: Any, texts: list[str], own: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(protocol, what it finds) of each; kinds of views and sides that several share are scored once."""
    images = test if isinstance(test, image_sets.Listing) else image_sets.Arrays(f"{config.name} test", test)
    parsed = {text: protocols.parse(text if "@" in text else f"{text}@{own}", scorer.crop) for text in texts}
    devices = jax.local_device_count()

    @functools.cache
    def scores(kind: str, side: int) -> dict[int, tuple]:
        batch = -(-max(1, min(config.eval_batch_size, PIXELS // side**2)) // devices) * devices
        return protocols.scores(scorer, kind, side, streaming.whole_images(config, images, side, batch))

    for text, (kinds, sides) in parsed.items():
        found = protocols.fused([scores(kind, side) for kind in kinds for side in sides], scorer.average)
        left_out = {"left_out": len(images) - len(found)}
        name = f"{'+'.join(kinds)}@{','.join(map(str, sides))}"
        yield text, {"protocol": name, "average": scorer.average, **left_out, **protocols.measures(found)}


def _there(folder: Path, text: str, step: int, average: str) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "tests" / f"{text}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if (found.get("step"), found.get("average")) == (step, average) else None


def _write(folder: Path, text: str, found: dict[str, Any]) -> None:
    try:
        (folder / "tests").mkdir(exist_ok=True)
        write_whole(folder / "tests" / f"{text}.json", json.dumps(found) + "\n")
    except OSError as e:
        raise UserError(f"cannot write to {folder / 'tests'} ({e.strerror}): make room for it") from None
