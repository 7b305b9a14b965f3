"""Composes an experiment into the parts that training, evaluation and plans share.

`find_changes` says whether two configurations count as the same run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from cnn_jax import data, mesh, models, registry
from cnn_jax.config import Choice, Data, Experiment, change, find_differences
from cnn_jax.data import datasets
from cnn_jax.data.preprocess import check_augmentation
from cnn_jax.data.sampler import balance_epoch
from cnn_jax.errors import UserError
from cnn_jax.evaluation.protocols import check_protocols
from cnn_jax.files import expand_path
from cnn_jax.models import Model
from cnn_jax.optim import OPTIMIZERS, SCHEDULES, count_evaluations, make_optimizer
from cnn_jax.overrides import Kind, Kinds, convert_fields

# {field of an experiment that is a choice: what the choice may name}, for `cnn_jax.overrides`.
KINDS: Kinds = {
    "data.dataset": Kind(None, datasets.get_option_types),
    "model": Kind(models.MODELS, models.get_option_types),
    "optimizer": Kind(OPTIMIZERS, lambda name: registry.get_option_types(OPTIMIZERS[name])),
    "schedule": Kind(SCHEDULES, lambda name: registry.get_option_types(SCHEDULES[name])),
}


class Components(NamedTuple):
    """The parts of a run.

    Attributes:
      dataset: The data set.
      model: The model as pure functions.
      optimizer: The optax transformation, which includes the schedule.
      axis: The pmapped axis over which a batch is split; None under jit.
    """

    dataset: data.Dataset
    model: Model
    optimizer: optax.GradientTransformationExtraArgs
    axis: str | None


def complete(experiment: Experiment) -> Experiment:
    """Returns the experiment with every argument of its optimizer and schedule, defaults included.

    A run stores all arguments, so that it does not change when a default changes.

    Args:
      experiment: The run.

    Raises:
      UserError: If a field has an invalid value.
    """
    experiment = convert_fields(experiment)
    return dataclasses.replace(
        experiment,
        data=_expand_paths(experiment.data),
        optimizer=registry.complete("optimizer", experiment.optimizer, OPTIMIZERS),
        schedule=registry.complete("schedule", experiment.schedule, SCHEDULES),
    )


def find_changes(old: Experiment, new: Experiment, ignore: tuple[str, ...] = ()) -> list[str]:
    """Returns the fields in which two experiments differ; [] if they count as the same run.

    An option of the model or the data set that only one of the experiments sets is no difference if
    its value is the default.

    Args:
      old: The first experiment, from `complete`.
      new: The second experiment, from `complete`.
      ignore: Fields that are not compared.

    Returns:
      Texts such as 'train.steps: 64000 -> 300', from `cnn_jax.config.find_differences`.
    """
    of_model = _find_equal_options("model", old.model, new.model, models.get_defaults)
    of_data = _find_equal_options(
        "data.dataset", old.data.dataset, new.data.dataset, datasets.get_defaults
    )
    return find_differences(old, new, (*ignore, *of_model, *of_data))


def _find_equal_options(
    field: str, old: Choice, new: Choice, get_defaults: Callable[[str], dict[str, Any]]
) -> list[str]:
    """Returns the options that only one of two choices of the same name sets, to the default."""
    apart = old.args.keys() ^ new.args.keys()
    if old.name != new.name or not apart:
        return []
    both, defaults = old.args | new.args, get_defaults(old.name)
    return [
        f"{field}.{option}"
        for option in apart
        if option in defaults and both[option] == defaults[option]
    ]


def _expand_paths(config: Data) -> Data:
    """Returns the data settings with ~ in paths replaced by the home folder; URLs do not change."""
    path = config.dataset.args.get("path")
    if isinstance(path, str) and path:
        whole = str(expand_path("data.dataset.path", path))
        config = dataclasses.replace(config, dataset=change(config.dataset, path=whole))
    if config.dir and "://" not in config.dir:
        config = dataclasses.replace(config, dir=str(expand_path("data.dir", config.dir)))
    return config


def make_model(experiment: Experiment, num_classes: int | None, axis: str | None = None) -> Model:
    """Returns the experiment's model.

    Args:
      experiment: The run, which names the model and its options.
      num_classes: Number of logits; None: the paper's number.
      axis: The pmapped axis over which a batch is split; None under jit.

    Raises:
      UserError: If there is no such model, or an option has an invalid value.
    """
    choice = experiment.model
    if choice.name in models.MODELS:
        types = models.get_option_types(choice.name)
        registry.check_options("model", choice, types)
    options: dict[str, Any] = choice.args
    return models.create(choice.name, num_classes, axis=axis, **options)


def make_components(
    experiment: Experiment,
    dataset: data.Dataset | None = None,
    devices: int | None = None,
    seeds: int = 1,
) -> Components:
    """Loads the data set of a run, and makes its model and optimizer. Compiles nothing.

    Args:
      experiment: The run.
      dataset: The data set, if it is loaded already; None: the experiment's is loaded.
      devices: Number of devices that share a batch; None: all devices.
      seeds: Number of seeds that train in one program.

    Raises:
      UserError: If the configuration has a mistake, or the data are not prepared.
    """
    check(experiment, devices or jax.device_count(), seeds)
    dataset = dataset or data.load_dataset(experiment.data)
    axis = mesh.BATCH if experiment.train.parallel == "pmap" else None
    model = make_model(experiment, dataset.num_classes, axis)
    optimizer = make_optimizer(
        experiment.optimizer,
        experiment.schedule,
        experiment.train.steps,
        count_steps_per_epoch(experiment.data, dataset),
    )
    if patience := experiment.train.stop_after:
        optimizer = optax.chain(optimizer, count_evaluations(patience))
    return Components(dataset, model, optimizer, axis)


def count_steps_per_epoch(config: Data, dataset: data.Dataset) -> float:
    """Returns the number of steps per epoch, which need not be a whole number.

    Args:
      config: The data settings of the run.
      dataset: The data set of the run.
    """
    images = dataset.train.count
    if config.balance_classes:
        images = len(balance_epoch(0, 0, dataset.train.labels))
    return images / config.batch_size


def advise(experiment: Experiment) -> list[str]:
    """Returns lines of advice about a valid configuration that may not be what the user wants."""
    base = complete(experiment).schedule.args.get("base")
    name, optimizer = experiment.model.name, experiment.optimizer.name
    normalized = experiment.model.args.get("norm") == "bn"
    if name not in models.MODELS or optimizer != "sgd" or normalized:
        return []
    most = models.find_spec(name).max_rate
    if not isinstance(base, float | int) or base <= most:
        return []
    return [
        f"note: {name} was seen to train at learning rates of at most {most:g}, and not at larger"
        f" ones; this run has schedule.base={base:g}"
    ]


def check(experiment: Experiment, devices: int = 1, seeds: int = 1) -> None:
    """Checks the fields of an experiment, alone and against each other.

    Args:
      experiment: The run.
      devices: Number of devices that share a batch.
      seeds: Number of seeds that train in one program.

    Raises:
      UserError: If a field has an invalid value, or two fields contradict each other.
    """
    complete(experiment)
    check_protocols(experiment)
    train = experiment.train
    # The arguments may contradict each other. The length of an epoch is not known yet and does not
    # matter.
    make_optimizer(experiment.optimizer, experiment.schedule, train.steps, steps_per_epoch=1.0)
    if train.stop_after and not experiment.data.validation_images:
        raise UserError(
            f"train.stop_after={train.stop_after}: stops by the error of validation images, because"
            " the test set must not decide it: set data.validation_images too"
        )
    if train.steps_per_call > 1 and (why := explain_single_steps(experiment)):
        raise UserError(f"train.steps_per_call={train.steps_per_call}: {why}")
    if train.check_numerics and (seeds > 1 or train.parallel != "jit"):
        raise UserError(
            "train.check_numerics=true: checks one seed at a time, with train.parallel=jit"
        )
    if seeds > 1 and train.parallel != "jit":
        raise UserError(
            f"train.parallel={train.parallel}: seeds are trained together only with"
            " train.parallel=jit"
        )
    if train.start_from == experiment.name and train.start_from:
        raise UserError(f"train.start_from={train.start_from}: a run cannot start from itself")
    if train.start_layers and not train.start_from:
        raise UserError("train.start_layers: names layers of the run train.start_from: set it too")
    batch, group = experiment.data.batch_size, experiment.model.args.get("bn_group")
    if isinstance(group, int) and group > 0 and batch % group:
        divisors = [n for n in range(1, min(group, batch) + 1) if batch % n == 0]
        raise UserError(
            f"model.bn_group={group} does not divide data.batch_size={batch}: set it to"
            f" {divisors[-1]}, or to 0 for statistics of the whole batch"
        )
    mesh.check_divides(batch, devices, "data.batch_size")
    _check_images(experiment.data)
    if experiment.model.name in models.MODELS:
        registry.check_options(
            "model", experiment.model, models.get_option_types(experiment.model.name)
        )


def is_plain_jit(experiment: Experiment) -> bool:
    """Returns whether a run is compiled by jit without train.check_numerics.

    Only then can one program contain several steps or several seeds.
    """
    return experiment.train.parallel == "jit" and not experiment.train.check_numerics


def explain_single_steps(experiment: Experiment) -> str:
    """Returns why a run can make only one step per call, or "" if it can make several."""
    if not is_plain_jit(experiment):
        return "takes train.parallel=jit, without train.check_numerics"
    if data.is_streamed(experiment.data):
        return "for data sets in memory; these images are decoded for each batch"
    return ""


def _check_images(config: Data) -> None:
    """Raises UserError if the sizes or the augmentation do not fit the images of the data set."""
    datasets.check_dataset(config)
    if config.dataset.name not in datasets.DATASET_INFO:
        return  # Where they are of full size, they are cut to image_size: `data` checks it.
    datasets.check_held_out(config, datasets.DATASET_INFO[config.dataset.name].train_images)
    shape, _ = datasets.find_image_shape(config)
    check_augmentation(config, shape)
    side = min(shape[:2])
    for name in ("pad_and_crop", "shift"):
        if (pixels := getattr(config, name)) > side:
            raise UserError(
                f"data.{name}={pixels}: must not be more than the side of an image, {side}"
            )
