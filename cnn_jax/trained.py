"""Trained models: of a finished run, with public weights, or untrained for comparison.

`load` takes what --visualize and --retrieve take. The result has everything that is needed to
visualize a model or to compute its codes: its parameters, and how its images are prepared.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, file_names, models, pretrained
from cnn_jax.config import Choice, Data, Experiment, choose
from cnn_jax.config_file import read_run
from cnn_jax.data import crops
from cnn_jax.data.decode import Interpolation
from cnn_jax.data.preprocess import normalize
from cnn_jax.errors import UserError
from cnn_jax.files import expand_path
from cnn_jax.models import Model
from cnn_jax.overrides import override
from cnn_jax.training import run_folders, saved_parameters
from cnn_jax.training.components import KINDS, make_model
from cnn_jax.training.program import split_seed_keys

UNTRAINED = "untrained"  # MODEL:untrained has the parameters that training starts from.


class TrainedModel(NamedTuple):
    """A model with its parameters, and how its images are prepared.

    Attributes:
      name: For titles and messages, without the path of the weights.
      weights: The run's folder, the file or the address of the weights, or UNTRAINED.
      choice: The model's name and options.
      model: The model as pure functions.
      params: Its parameters.
      stats: Batch norm's running averages.
      image_shape: (H, W, C) of what the model takes: the center crop of a scaled image.
      resize: The shorter side to which an image file is scaled before, in pixels.
      prepare: Pixels [B, H, W, C] from 0 to 255 -> what the model takes, float32.
      restore: The inverse of `prepare`: what the model takes -> pixels from 0 to 255, float32.
      data: How images are decoded; of a run, also its data set.
      interpolation: By which images are scaled.
      num_classes: Classes of the data; 0 for an untrained model that has none.
      class_names: Their names; empty if they have only numbers.
      folder: The run's folder; None for public weights and untrained models.
      step: Step of the run's checkpoint; None as for `folder`.
      precision: Precision of matrix products, for `jax.default_matmul_precision`.
    """

    name: str
    weights: str
    choice: Choice
    model: Model
    params: Any
    stats: Any
    image_shape: tuple[int, int, int]
    resize: int
    prepare: Callable[[Any], jax.Array]
    restore: Callable[[jax.Array], jax.Array]
    data: Data
    interpolation: Interpolation = "bilinear"
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    folder: Path | None = None
    step: int | None = None
    precision: str = "highest"


def load(
    target: str | Path, what: str = "target", settings: Sequence[str] = (), data_dir: str = ""
) -> TrainedModel:
    """Loads a trained model.

    Args:
      target: A run's folder or a folder with one run, whose newest checkpoint is loaded; or
        MODEL:WEIGHTS with a file or an address; or MODEL:untrained.
      what: Name of the target in messages.
      settings: field=value, as --set takes them: data.on_bad_image, and of an untrained model its
        options. A run and public weights have their own.
      data_dir: Where prepared TFDS folders lie, if not where they lay in training.

    Raises:
      UserError: If there is no such model, it cannot be read, or it does not take a setting.

    Example:
      >>> loaded = load("lenet5_modern:untrained")
      >>> loaded.name, loaded.image_shape
      ('lenet5_modern, untrained', (28, 28, 1))
      >>> images = loaded.prepare(jnp.full((2, 28, 28, 1), 255, jnp.uint8))
      >>> loaded.model.apply(loaded.params, loaded.stats, images)[0].shape
      (2, 10)
    """
    target = os.fspath(target)
    if ":" in target and not os.path.exists(os.path.expanduser(target)):
        name, _, weights = target.partition(":")
        if weights == UNTRAINED:
            check_settings(settings, ("data.on_bad_image", "model."), "an untrained model")
        else:
            check_settings(settings, ("data.on_bad_image",), "public weights")
            weights = weights if "://" in weights else str(expand_path(what, weights))
        return load_weights(override(Experiment(model=choose(name)), settings, KINDS), weights)
    check_settings(settings, ("data.on_bad_image",), "a run")
    loaded = load_run(find_run(expand_path(what, target), what), data_dir)
    return loaded._replace(data=override(Experiment(data=loaded.data), settings, KINDS).data)


def check_settings(settings: Sequence[str], taken: Sequence[str], owner: str) -> None:
    """Checks that settings are among those that are read.

    Args:
      settings: field=value, as --set takes them.
      taken: The fields that may be set; one that ends with a dot stands for all below it.
      owner: Whose settings they are, such as 'a run'.

    Raises:
      UserError: If one is not.
    """
    for setting in settings:
        field = setting.partition("=")[0].strip()
        if not any(field == name or (name[-1] == "." and field.startswith(name)) for name in taken):
            names = " and ".join(f"{name}*" if name[-1] == "." else name for name in taken)
            raise UserError(f"--set {setting}: of {owner} only {names} can be set here")


def find_run(place: Path, what: str = "target") -> Path:
    """Returns the folder of the only run in a folder.

    Raises:
      UserError: If there is none, or there are several.
    """
    found = sorted(path.parent for path in place.glob(f"**/{file_names.CONFIG}"))
    if not found:
        raise UserError(f"{what}={place}: no run found; give a run's folder, or MODEL:WEIGHTS")
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(place)) for folder in found[:4])
        raise UserError(f"{what}={place}: {len(found)} runs found; give one, such as {names}")
    return found[0]


def load_run(folder: str | Path, data_dir: str = "") -> TrainedModel:
    """Loads the newest checkpoint of a run.

    Args:
      folder: <workdir>/<run>/seed<k>.
      data_dir: Where prepared TFDS folders lie, if not where they lay in training.

    Raises:
      UserError: If the folder is not a run folder, if its checkpoint cannot be read, or if its data
        set, whose mean is subtracted from images, is not there or has changed.
    """
    folder = Path(folder)
    experiment = read_run(folder, data_dir)
    params, stats, step = saved_parameters.load_parameters(folder)
    dataset = data.load_dataset(experiment.data)
    run_folders.check_data(data.describe_dataset(dataset), folder, finished=True)
    made = _describe_run(experiment, dataset)
    _check_parameters(str(folder), made.model, params, made.image_shape)
    return made._replace(
        name=f"{experiment.name}, seed {experiment.seed}, step {step:,}",
        weights=str(folder),
        params=params,
        stats=stats,
        folder=folder,
        step=step,
    )


def initialize_run(experiment: Experiment, dataset: data.Dataset | None = None) -> TrainedModel:
    """Returns a run's model with the parameters that training starts from.

    Args:
      experiment: The run.
      dataset: Used in place of the experiment's own.

    Raises:
      UserError: If the data are not there.
    """
    made = _describe_run(experiment, dataset or data.load_dataset(experiment.data))
    ((key, *_), _) = split_seed_keys([experiment.seed])
    params, stats = made.model.init(key, _describe_images(made.image_shape))
    return made._replace(params=params, stats=stats)


def load_weights(experiment: Experiment, weights: str) -> TrainedModel:
    """Loads public weights, or initializes the model.

    Args:
      experiment: Names the model, and says how images are decoded. Its options and its seed are
        those of an untrained model; a file of weights has its own options.
      weights: A file or an address, or UNTRAINED.

    Raises:
      UserError: If there is no such model, or if the weights cannot be read or are another model's.
    """
    name = experiment.model.name
    if weights == UNTRAINED:
        return _initialize(experiment)
    loaded = pretrained.load(name, weights)
    preprocessing = loaded.preprocessing
    return TrainedModel(
        name=f"{name} with {os.path.basename(weights)}",
        weights=weights,
        choice=choose(name, **loaded.options),
        model=models.create(name, loaded.num_classes, **loaded.options),
        params=loaded.params,
        stats=loaded.stats,
        image_shape=(preprocessing.crop, preprocessing.crop, len(preprocessing.mean)),
        resize=max(preprocessing.resize, preprocessing.crop),
        prepare=preprocessing.normalize,
        restore=preprocessing.undo,
        data=experiment.data,
        interpolation=preprocessing.interpolation,
        num_classes=loaded.num_classes,
    )


def _initialize(experiment: Experiment) -> TrainedModel:
    """Returns a model with the paper's input size and classes, untrained."""
    name = experiment.model.name
    shape, _ = models.get_paper_input(name)
    model = make_model(experiment, None)
    images = _describe_images(shape)
    params, stats = model.init(jax.random.key(experiment.seed), images)
    outputs = jax.eval_shape(lambda x: model.apply(params, stats, x)[0], images)
    mean = np.zeros((1, 1, 1, 1), np.float32)
    return TrainedModel(
        name=f"{name}, untrained",
        weights=f"initial weights of seed {experiment.seed}",
        choice=experiment.model,
        model=model,
        params=params,
        stats=stats,
        image_shape=shape,
        resize=round(min(shape[:2]) * 8 / 7),  # The usual share: 256 for a crop of 224.
        prepare=functools.partial(_subtract, mean),
        restore=functools.partial(_add, mean),
        data=experiment.data,
        num_classes=outputs.shape[-1] if len(outputs.shape) == 2 else 0,
    )


def _describe_run(experiment: Experiment, dataset: data.Dataset) -> TrainedModel:
    """Returns a run's model without parameters."""
    config = experiment.data
    loader = data.make_loader(config, dataset)
    mean, shape = np.asarray(loader.arrays["mean"]), loader.image_shape
    return TrainedModel(
        name=f"{experiment.name}, seed {experiment.seed}, untrained",
        weights=f"initial weights of seed {experiment.seed}",
        choice=experiment.model,
        model=make_model(experiment, dataset.num_classes),
        params=None,
        stats=None,
        image_shape=shape,
        resize=crops.choose_eval_side(config) if config.image_size else min(shape[:2]),
        prepare=functools.partial(_subtract, mean),
        restore=functools.partial(_add, mean),
        data=config,
        num_classes=dataset.num_classes,
        class_names=dataset.class_names,
        precision=experiment.train.precision,
    )


def _subtract(mean: np.ndarray, pixels: Any) -> jax.Array:
    return normalize(jnp.asarray(pixels), mean, 255)


def _add(mean: np.ndarray, x: jax.Array) -> jax.Array:
    return 255 * x + mean


def _describe_images(shape: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _check_parameters(
    what: str, model: Model, params: Any, image_shape: tuple[int, int, int]
) -> None:
    """Raises UserError if parameters are not of the model's shapes."""
    wanted, _ = jax.eval_shape(model.init, jax.random.key(0), _describe_images(image_shape))
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
