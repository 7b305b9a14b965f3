"""Models whose codes are searched: of a finished run, with public weights, or untrained."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, models, pretrained
from cnn_jax.config import Data, Experiment
from cnn_jax.config_file import read_config
from cnn_jax.data import crops, preprocess
from cnn_jax.errors import UserError
from cnn_jax.evaluation.retrieval.codes import Layer, choose_layer, make_encoder
from cnn_jax.models import Model
from cnn_jax.training import checkpoint
from cnn_jax.training.components import make_model
from cnn_jax.training.program import split_seed_keys

UNTRAINED = "untrained"  # Used in place of a file of weights.


class TrainedModel(NamedTuple):
    """A model with its parameters, and how its images are prepared.

    Attributes:
      name: What messages call it.
      model: The model.
      params: Its parameters.
      stats: Batch norm's running averages.
      prepare: Images [B, H, W, C] on the scale 0 to 255 -> what the model takes.
      image_shape: (H, W, C) of the images, which are cut out of the middle.
      resize: The shorter side to which images are scaled before, in pixels.
      data: How images are decoded.
    """

    name: str
    model: Model
    params: Any
    stats: Any
    prepare: Callable[[jax.Array], jax.Array]
    image_shape: tuple[int, int, int]
    resize: int
    data: Data


def load_run(folder: Path) -> TrainedModel:
    """Returns the model of a run's newest checkpoint.

    Args:
      folder: <workdir>/<run>/seed<k>.

    Raises:
      UserError: If the folder holds no run or no checkpoint, or its data are not there.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no config.json, so it is no run's folder")
    experiment = read_config(folder / "config.json")
    params, stats, step = checkpoint.load_parameters(folder)
    made = prepare_run(experiment)
    return made._replace(name=f"{folder} at step {step:,}", params=params, stats=stats)


def prepare_run(experiment: Experiment, dataset: data.Dataset | None = None) -> TrainedModel:
    """Returns a run's model with the parameters that training starts from.

    Args:
      experiment: The run.
      dataset: Used in place of the experiment's own.

    Raises:
      UserError: If the data are not there.
    """
    config = experiment.data
    dataset = dataset or data.load_dataset(config)
    loader = data.make_loader(config, dataset)
    model = make_model(experiment, dataset.num_classes)
    ((key, *_), _) = split_seed_keys([experiment.seed])
    params, stats = model.init(key, jax.ShapeDtypeStruct((1, *loader.image_shape), jnp.float32))
    return TrainedModel(
        name=f"{experiment.name} seed {experiment.seed}, untrained",
        model=model,
        params=params,
        stats=stats,
        prepare=functools.partial(_subtract, loader.arrays["mean"]),
        image_shape=loader.image_shape,
        resize=crops.eval_side(config) if config.image_size else min(loader.image_shape[:2]),
        data=config,
    )


def _subtract(mean: np.ndarray, images: jax.Array) -> jax.Array:
    return preprocess.normalize(images, mean, 255)


def load_weights(experiment: Experiment, weights: str) -> TrainedModel:
    """Returns a model with public weights, or with the parameters that training starts from.

    Args:
      experiment: Names the model and its options, and how images are decoded.
      weights: A file or an address, or UNTRAINED.

    Raises:
      UserError: If there is no such model, or the weights cannot be had.
    """
    name = experiment.model.name
    if weights == UNTRAINED:
        shape, _ = models.paper_input(name)
        model = make_model(experiment, None)
        key = jax.random.key(experiment.seed)
        params, stats = model.init(key, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
        return TrainedModel(
            name=f"{name}, untrained (seed {experiment.seed})",
            model=model,
            params=params,
            stats=stats,
            prepare=functools.partial(_subtract, np.zeros((1, 1, 1, 1), np.float32)),
            image_shape=shape,
            resize=round(min(shape[:2]) * 8 / 7),  # The usual share: 256 for a crop of 224.
            data=experiment.data,
        )
    loaded = pretrained.load(name, weights)
    recipe = loaded.preprocessing
    return TrainedModel(
        name=f"{name} with {weights}",
        model=models.create(name, loaded.num_classes, **loaded.options),
        params=loaded.params,
        stats=loaded.stats,
        prepare=recipe.normalize,
        image_shape=(recipe.crop, recipe.crop, len(recipe.mean)),
        resize=max(recipe.resize, recipe.crop),
        data=experiment.data,
    )


def find_layer(trained: TrainedModel, name: str = "") -> Layer:
    """Returns the layer of a name, or the one that suits the model; see `codes.choose_layer`."""
    return choose_layer(trained.model, trained.params, trained.stats, trained.image_shape, name)


def make_trained_encoder(trained: TrainedModel, layer: Layer) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what turns images [B, H, W, C], 0 to 255, into codes; see `codes.make_encoder`."""
    return make_encoder(trained.model, trained.params, trained.stats, layer, trained.prepare)


def compute_checksum(trained: TrainedModel) -> str:
    """Returns a checksum of a model's parameters and statistics, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    tree = {"params": trained.params, "stats": trained.stats}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
