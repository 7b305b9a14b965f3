"""The configuration of a run, as frozen values.

An `Experiment` contains everything that a run's results depend on. The model, the optimizer, the
learning-rate schedule, the data set and the evaluation protocols are `Choice`s: a name from a
dictionary and the arguments of the function or class with that name. Derived values, such as steps
per epoch and scaled rates, are computed elsewhere. `find_differences` lists the fields in which two
experiments differ; `cnn_jax.training.components.find_changes`, which knows the defaults of options,
decides whether a run continues under another configuration.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cnn_jax.errors import UserError
from cnn_jax.values import (
    MAX_INT32,
    Bound,
    Count,
    Fraction,
    Natural,
    NonNegative,
    format_value,
    to_plain,
)

Value = bool | int | float | str | tuple | None


@dataclass(frozen=True)
class Choice:
    """A name from a dictionary and its arguments: `choose("resnet50", shortcut="B")`.

    Missing arguments have the defaults of the named function or class.
    """

    name: str
    items: tuple[tuple[str, Value], ...] = ()

    @property
    def args(self) -> dict[str, Value]:
        """The arguments by their names."""
        return dict(self.items)

    def __str__(self) -> str:
        """Returns 'name(argument=value, ...)'."""
        inner = ", ".join(f"{key}={format_value(value)}" for key, value in self.items)
        return f"{self.name}({inner})" if inner else self.name


def choose(name: str, /, **args: Value) -> Choice:
    """Returns a choice. Arguments that are None are dropped; lists and arrays become tuples.

    Example:
      >>> choose("step", base=0.1, boundaries=(32_000, 48_000)).args["base"]
      0.1
    """
    given = {k: to_plain(v) for k, v in args.items() if v is not None}
    return Choice(name, tuple(sorted(given.items())))


def change(choice: Choice, **args: Value) -> Choice:
    """Returns the choice with other values of some arguments; None removes an argument."""
    return choose(choice.name, **choice.args | args)


def check_choice(path: str, value: Any) -> None:
    """Raises UserError if the value of a field is not a Choice; the message shows a correct one."""
    if not isinstance(value, Choice):
        name = value if isinstance(value, str) else "NAME"
        raise UserError(f"{path}={value!r}: write it as choose({name!r}, option=value, ...)")


@dataclass(frozen=True)
class Data:
    """The data set, its split, and the preprocessing and augmentation of images."""

    dataset: Annotated[
        Choice, "Data set: digits, mnist, cifar10, folder (with path) or a TFDS set"
    ] = choose("digits")
    dir: Annotated[str, "Folder of prepared TFDS data sets; empty: TFDS's default"] = ""
    validation_images: Annotated[
        int,
        Bound(0, MAX_INT32),
        "Number of training images to hold out; they are evaluated instead of the test images",
    ] = 0
    batch_size: Annotated[int, Bound(1, 2**20), "Images per step over all devices"] = 128
    eval_batch_size: Annotated[int, Bound(1, 2**20), "Images per evaluation step"] = 500
    subtract_mean: Annotated[
        Literal["pixel", "channel", "none"],
        "Subtract the mean image, the mean of each channel, or nothing",
    ] = "pixel"
    train_resize: Annotated[
        tuple[Annotated[int, Bound(1, 2**14)], ...],
        "Shorter side of resized full-size training images, in pixels: one value, or the smallest"
        " and the largest of a random one",
    ] = ()
    image_size: Annotated[
        int, Bound(0, 2**14), "Side of the square crop of full-size images, in pixels; 0: no crop"
    ] = 0
    eval_resize: Annotated[
        int,
        Bound(0, 2**14),
        "Shorter side of resized test images, in pixels; 0: the mean of train_resize",
    ] = 0
    train_crop: Annotated[
        Literal["random", "inception"],
        "Training crop of full-size images: at a random position, or GoogLeNet's of random area",
    ] = "random"
    pad_and_crop: Annotated[
        int,
        Bound(0, 1024),
        "Pixels of padding on each side before a random crop of the original size; 0: none",
    ] = 4
    flip: Annotated[bool, "Flip training images horizontally with probability 1/2"] = True
    vertical_flip: Annotated[bool, "Flip training images vertically with probability 1/2"] = False
    shift: Annotated[int, Bound(0, 1024), "Largest random shift in each direction, in pixels"] = 0
    rotate: Annotated[
        float, Bound(0, 180), "Largest random rotation in each direction, in degrees"
    ] = 0.0
    affine: Annotated[
        tuple[Annotated[float, Bound(0, 64)], ...],
        "LeNet-5's random affine maps: the largest shift in pixels, scaling, squeezing and shear",
    ] = ()
    color_pca: Annotated[bool, "AlexNet's color noise along the principal components"] = False
    color_jitter: Annotated[
        tuple[Annotated[float, Bound(0, 1000)], ...],
        "Largest random change of brightness, contrast, saturation and hue",
    ] = ()
    gaussian_noise: Annotated[
        float, Bound(0, 1000), "Standard deviation of Gaussian noise on pixels from 0 to 1; 0: none"
    ] = 0.0
    mixup: Annotated[float, Bound(0, 1000), "Alpha of mixup's Beta distribution; 0: none"] = 0.0
    long_tail: Annotated[
        float,
        Bound(1, 1e6),
        "Imbalance: number of training images of the first class divided by that of the last",
    ] = 1.0
    shuffle_pixels: Annotated[
        bool, "Apply one fixed permutation to the pixels of all images, which destroys locality"
    ] = False
    balance_classes: Annotated[
        bool, "Sample all classes with equal frequency (label shuffling)"
    ] = False
    workers: Annotated[
        int, Bound(0, 1024), "Number of processes that decode full-size images; 0: use threads"
    ] = 0
    on_bad_image: Annotated[
        Literal["stop", "skip"],
        "If an image cannot be decoded: stop with an error, or use the next image",
    ] = "stop"

    def __post_init__(self) -> None:
        """Raises UserError if the data set is no choice."""
        check_choice("data.dataset", self.dataset)

    @property
    def name(self) -> str:
        """The data set's name as --data takes it: digits, or folder:PATH."""
        path = self.dataset.args.get("path")
        return self.dataset.name if path is None else f"{self.dataset.name}:{path}"


def parse_dataset(name: str) -> Choice:
    """Returns the data set of a name as --data takes it: folder:PATH, or the name alone.

    Example:
      >>> parse_dataset("folder:/data/cats").name
      'folder'
      >>> parse_dataset("digits").args
      {}
    """
    kind, colon, path = name.partition(":")
    return choose(kind, path=path) if colon else choose(name)


@dataclass(frozen=True)
class Train:
    """The length of a run, and the intervals of logging, evaluating and saving."""

    steps: Annotated[Count, "Number of training steps"] = 64_000
    start_from: Annotated[
        str, "Name of a finished run of the study whose parameters initialize this run; empty: none"
    ] = ""
    start_layers: Annotated[
        tuple[str, ...], "Layers that are initialized from start_from; empty: all"
    ] = ()
    log_every: Annotated[Count, "Steps between log lines"] = 100
    eval_every: Annotated[Count, "Steps between evaluations; each also saves a checkpoint"] = 1_000
    save_every: Annotated[Count, "Steps between checkpoints"] = 1_000
    stop_after: Annotated[
        Natural,
        "Early stopping: number of evaluations without a lower error after which the run ends and"
        " keeps its best state; 0: no early stopping",
    ] = 0
    steps_per_call: Annotated[
        int,
        Bound(0, 1024),
        "Steps per call of the compiled program; several are faster for small models and data in"
        " memory on a GPU or TPU; 0: chosen there from the time of a step, and 1 on a CPU",
    ] = 0
    label_smoothing: Annotated[
        Fraction, "Probability that is taken from the label and spread over all classes"
    ] = 0.0
    parallel: Annotated[
        Literal["jit", "pmap"],
        "How devices share a step: jit over a mesh, or pmap, under which dropout and mixup draw"
        " other random numbers",
    ] = "jit"
    watchdog_minutes: Annotated[
        NonNegative, "Minutes without progress after which the run reports it; 0: never"
    ] = 10.0
    on_nan: Annotated[
        Literal["stop", "skip", "record"],
        "If the loss is not finite: stop with an error, skip and count the update, or end the run"
        " and record that it diverged",
    ] = "stop"
    check_numerics: Annotated[bool, "Report the first operation that gives NaN (slow)"] = False
    precision: Annotated[
        Literal["float32", "tensorfloat32", "bfloat16"], "Precision of matrix products"
    ] = "float32"


@dataclass(frozen=True)
class Log:
    """Additional logs of a run. They do not change its results."""

    layer_statistics: Annotated[
        tuple[Natural, ...],
        "Steps after which statistics of each layer's outputs and gradients are logged; 0: before"
        " the first step",
    ] = ()


@dataclass(frozen=True)
class Experiment:
    """The configuration of one run: everything that its results depend on.

    Attributes:
      study: Name of the study.
      name: Name of the run in the study, and of its folder in the workdir.
      seed: Seed of all random numbers.
      data: The data set, preprocessing and augmentation.
      model: A name of `cnn_jax.models.MODELS` and the model's options.
      optimizer: A name of `cnn_jax.optim.OPTIMIZERS` and its arguments.
      schedule: A name of `cnn_jax.optim.SCHEDULES` and its arguments.
      train: The length of the run, and the intervals of logging, evaluating and saving.
      log: Additional logs.
      protocols: Evaluation protocols of the finished run, in addition to the evaluation during
        training.
      deviations: Descriptions of deviations from the paper that other fields do not show.
    """

    study: str = ""
    name: str = ""
    seed: Natural = 0
    data: Data = field(default_factory=Data)
    model: Choice = choose("resnet20")
    optimizer: Choice = choose("sgd")
    schedule: Choice = choose("constant")
    train: Train = field(default_factory=Train)
    log: Log = field(default_factory=Log)
    protocols: tuple[Choice, ...] = ()
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UserError if a part is of another type, such as a name in place of a choice."""
        for path, kind in (("data", Data), ("train", Train), ("log", Log)):
            if not isinstance(value := getattr(self, path), kind):
                raise UserError(f"{path}={value!r}: must be a {kind.__name__}")
        for path in ("model", "optimizer", "schedule"):
            check_choice(path, getattr(self, path))
        if not isinstance(self.protocols, list | tuple):
            raise UserError(f"protocols={self.protocols!r}: must be a tuple of choices")
        for choice in self.protocols:
            check_choice("protocols", choice)
        object.__setattr__(self, "protocols", tuple(self.protocols))


# Fields that may change when a run is continued, because they do not change its results, apart from
# rounding; under pmap dropout and mixup draw other numbers (`train_step.split_keys`).
RUNTIME_FIELDS = (
    "data.dir",
    "data.dataset.path",  # A run's data.json says whether the images are the same.
    "data.eval_batch_size",
    "data.workers",
    "train.parallel",
    "train.steps_per_call",
    "train.watchdog_minutes",
    "protocols",
    "deviations",
)


def name_protocol(choice: Choice) -> str:
    """Returns the short name of an evaluation protocol, such as dense@256,384.

    As on the command line, scales have no name, and other arguments have one: shift@pixels=2.
    """
    words = []
    for key, value in sorted(choice.items, key=lambda item: item[0] != "scales"):
        if value != ():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(text if key == "scales" else f"{key}={text}")
    return f"{choice.name}@{','.join(words)}" if words else choice.name


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {'schedule': 'step', 'schedule.base': 0.1, ...} of a frozen value, in field order.

    Args:
      value: A frozen value, such as an `Experiment`.
      prefix: Text in front of each field's name.
    """
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        item, path = getattr(value, f.name), f"{prefix}{f.name}"
        if isinstance(item, Choice):
            flat[path] = item.name
            flat |= {f"{path}.{key}": arg for key, arg in item.items}
        elif dataclasses.is_dataclass(item):
            flat |= flatten(item, path + ".")
        elif path == "protocols":
            flat[path] = tuple(map(name_protocol, item))
        else:
            flat[path] = item
    return flat


def find_differences(old: Experiment, new: Experiment, ignore: tuple[str, ...] = ()) -> list[str]:
    """Returns ['train.steps: 64000 -> 300', ...], the fields in which two experiments differ.

    If a choice has another name, options that only the old one has are left out.

    Args:
      old: The first experiment.
      new: The second experiment.
      ignore: Fields that are not compared.
    """
    before, after = flatten(old), flatten(new)
    paths = dict.fromkeys([*before, *after])
    missing = object()

    def is_of_another_choice(path: str) -> bool:
        choice = path.rpartition(".")[0]
        return path not in after and before.get(choice) != after.get(choice)

    return [
        f"{path}: {_format_field(before, path)} -> {_format_field(after, path)}"
        for path in paths
        if path not in ignore
        and before.get(path, missing) != after.get(path, missing)
        and not is_of_another_choice(path)
    ]


def _format_field(flat: Mapping[str, Any], path: str) -> str:
    return (format_value(flat[path]) or "empty") if path in flat else "default"


def check_names(experiment: Experiment) -> None:
    """Raises UserError if the run's name, or train.start_from, cannot be a folder's name."""
    pairs = (("name", experiment.name), ("train.start_from", experiment.train.start_from))
    for path, name in pairs:
        if any(ord(letter) < 32 for letter in name.replace("\0", "")):
            raise UserError(f"{path}={name!r}: is a folder's name, so it must be a single line")
        if name in (".", "..") or set("/\\\0") & set(name):
            raise UserError(
                f"{path}={name!r}: is a folder's name, so it must not have slashes or null"
                " characters, or be . or .."
            )
        try:
            size = len(name.encode())
        except UnicodeEncodeError:  # Orbax saves into no such folder.
            raise UserError(
                f"{path}={name!r}: is a folder's name, so it must be UTF-8 text"
            ) from None
        if size > 200:
            raise UserError(f"{path}={name[:20]}...: is a folder's name, so at most 200 bytes")


def iterate_fields(cls: type = Experiment, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, type, default) of every plain field and every choice, in order.

    Args:
      cls: The class of the frozen value.
      prefix: Text in front of each path.
    """
    import typing

    hints = typing.get_type_hints(cls, include_extras=True)
    defaults = cls()
    for f in dataclasses.fields(cls):
        default = getattr(defaults, f.name)
        if dataclasses.is_dataclass(default) and not isinstance(default, Choice):
            yield from iterate_fields(type(default), f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", hints[f.name], default
