"""What is looked into: a finished run, or a model with public weights, and how it takes images."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, models, pretrained
from cnn_jax.config import Data
from cnn_jax.config_file import read_config
from cnn_jax.data import crops
from cnn_jax.data.preprocess import normalize
from cnn_jax.errors import UserError
from cnn_jax.files import expand_path
from cnn_jax.models import Model
from cnn_jax.training import checkpoint
from cnn_jax.training.components import make_model


class Subject(NamedTuple):
    """A trained model, and how it takes images.

    Attributes:
      name: For titles.
      model: The model.
      params: Its parameters.
      stats: Its statistics.
      image_shape: (H, W, C) of its images.
      num_classes: Its classes.
      class_names: Their names; empty: numbers.
      shorter_side: To which an image file is scaled before the middle is cut out, in pixels.
      prepare: From pixels [B, H, W, C] uint8 to what the model takes, float32.
      restore: The other way: from what the model takes to pixels from 0 to 255, float32.
      folder: The run's; None: public weights.
      data: The run's data; None: public weights.
      step: Of the checkpoint; None: public weights.
      precision: Of matrix products: `jax.default_matmul_precision`.
    """

    name: str
    model: Model
    params: Any
    stats: Any
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    shorter_side: int
    prepare: Callable[[np.ndarray], jax.Array]
    restore: Callable[[jax.Array], jax.Array]
    folder: Path | None = None
    data: Data | None = None
    step: int | None = None
    precision: str = "highest"


def load_subject(target: str) -> Subject:
    """Loads a run by its folder, or public weights by MODEL:WEIGHTS.

    Raises:
      UserError: If there is neither, or they cannot be read.
    """
    if ":" in target and not os.path.exists(os.path.expanduser(target)):
        name, _, weights = target.partition(":")
        if "://" not in weights:
            weights = str(expand_path("visualize", weights))
        return load_weights(name, weights)
    return load_run(find_run(expand_path("visualize", target)))


def find_run(place: Path) -> Path:
    """Returns the folder of the one run that lies in a folder.

    Raises:
      UserError: If there is none, or there are several.
    """
    found = sorted(path.parent for path in place.glob("**/config.json"))
    if not found:
        raise UserError(
            f"visualize={place}: no run lies there; give a run's folder, or MODEL:WEIGHTS"
        )
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(place)) for folder in found[:4])
        raise UserError(
            f"visualize={place}: {len(found)} runs lie there; give one, such as {names}"
        )
    return found[0]


def load_run(folder: Path) -> Subject:
    """Loads the newest checkpoint of a run.

    Raises:
      UserError: If it cannot be read, or the run's data, of which the mean is taken, are missing.
    """
    experiment = read_config(folder / "config.json")
    params, stats, step = checkpoint.load_parameters(folder)
    source = data.load_dataset(experiment.data)
    loader = data.make_loader(experiment.data, source)
    mean, shape = jnp.asarray(loader.arrays["mean"]), loader.image_shape
    model = make_model(experiment, source.num_classes)
    _check_parameters(str(folder), model, params, shape)
    full = experiment.data.image_size
    return Subject(
        name=f"{experiment.name}, seed {experiment.seed}, step {step:,}",
        model=model,
        params=params,
        stats=stats,
        image_shape=shape,
        num_classes=source.num_classes,
        class_names=source.class_names,
        shorter_side=crops.eval_side(experiment.data) if full else min(shape[:2]),
        prepare=lambda pixels: normalize(jnp.asarray(pixels), mean, 255),
        restore=lambda x: 255 * x + mean,
        folder=folder,
        data=experiment.data,
        step=step,
        precision=experiment.train.precision,
    )


def load_weights(name: str, weights: str) -> Subject:
    """Loads public weights.

    Raises:
      UserError: If they cannot be had, or are not the model's.
    """
    loaded = pretrained.load(name, weights)
    recipe = loaded.preprocessing
    return Subject(
        name=f"{name} with {os.path.basename(weights)}",
        model=models.create(name, loaded.num_classes, **loaded.options),
        params=loaded.params,
        stats=loaded.stats,
        image_shape=(recipe.crop, recipe.crop, len(recipe.mean)),
        num_classes=loaded.num_classes,
        class_names=(),
        shorter_side=max(recipe.resize, recipe.crop),
        prepare=lambda pixels: recipe.normalize(jnp.asarray(pixels)),
        restore=recipe.undo,
    )


def _check_parameters(
    what: str, model: Model, params: Any, image_shape: tuple[int, int, int]
) -> None:
    """Raises UserError if parameters are not of the model's shapes."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    wanted, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    given, expected = (
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (params, wanted))
    )
    wrong = [name for name in sorted(given | expected) if given.get(name) != expected.get(name)]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{what}: its checkpoint is of another model: {name} is {given.get(name)}, and in"
            f" {model.module.name} it is {expected.get(name)}"
        )
