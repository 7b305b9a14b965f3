"""The configuration of a run, as frozen values.

An `Experiment` holds everything that a run's numbers depend on. The model, the optimizer, the
learning-rate schedule, the data set and the evaluation protocols are `Choice`s: a name from a
dictionary and the arguments of the function or class with that name. Derived values, such as steps
per epoch and scaled rates, are computed elsewhere.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cnn_jax.errors import UserError
from cnn_jax.values import MAX_INT32, Bound, Count, Fraction, Natural, NonNegative, show

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
        inner = ", ".join(f"{key}={show(value)}" for key, value in self.items)
        return f"{self.name}({inner})" if inner else self.name


def choose(name: str, /, **args: Value) -> Choice:
    """Returns a choice. Arguments that are None are dropped, and lists become tuples.

    Example:
      >>> choose("step", base=0.1, boundaries=(32_000, 48_000)).args["base"]
      0.1
    """
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in args.items() if v is not None}
    return Choice(name, tuple(sorted(given.items())))


def change(choice: Choice, **args: Value) -> Choice:
    """Returns the choice with other values of some arguments; None removes an argument."""
    return choose(choice.name, **choice.args | args)


@dataclass(frozen=True)
class Data:
    """The data set, how it is split, and how an image is prepared."""

    dataset: Annotated[
        Choice, "Data set: digits, mnist, cifar10, folder (with path) or a TFDS set"
    ] = choose("digits")
    dir: Annotated[str, "Where prepared TFDS folders lie; empty: TFDS's own rule"] = ""
    validation_images: Annotated[
        int, Bound(0, MAX_INT32), "Training images that are held out and evaluated instead"
    ] = 0
    batch_size: Annotated[int, Bound(1, 2**20), "Images per step over all devices"] = 128
    eval_batch_size: Annotated[int, Bound(1, 2**20), "Images per evaluation step"] = 500
    subtract_mean: Annotated[
        Literal["pixel", "channel", "none"],
        "Subtract the mean image, the mean of each channel, or nothing",
    ] = "pixel"
    train_resize: Annotated[
        tuple[Annotated[int, Bound(1, 2**14)], ...],
        "Shorter side to which full-size training images are scaled: one, or the least and largest",
    ] = ()
    image_size: Annotated[
        int, Bound(0, 2**14), "Side of the square that is cut out of a full-size image; 0: no cut"
    ] = 0
    eval_resize: Annotated[
        int, Bound(0, 2**14), "Shorter side of test images; 0: the middle of train_resize"
    ] = 0
    train_crop: Annotated[
        Literal["random", "inception"],
        "Training crop of full-size images: at a random place, or GoogLeNet's of random area",
    ] = "random"
    pad_and_crop: Annotated[
        int, Bound(0, 1024), "Pixels of padding before a random crop back to size; 0: none"
    ] = 4
    flip: Annotated[bool, "Mirror half of the training images"] = True
    vertical_flip: Annotated[bool, "Turn half of the training images upside down"] = False
    shift: Annotated[int, Bound(0, 1024), "Largest shift in pixels, each way"] = 0
    rotate: Annotated[float, Bound(0, 180), "Largest rotation in degrees, each way"] = 0.0
    affine: Annotated[
        tuple[Annotated[float, Bound(0, 64)], ...],
        "LeNet-5's random affine maps: the largest shift in pixels, scaling, squeezing and shear",
    ] = ()
    color_pca: Annotated[bool, "AlexNet's color noise along the principal components"] = False
    color_jitter: Annotated[
        tuple[Annotated[float, Bound(0, 1000)], ...],
        "Largest change of brightness, contrast, saturation and hue",
    ] = ()
    gaussian_noise: Annotated[
        float, Bound(0, 1000), "Standard deviation of noise on pixels, which are 0 to 1"
    ] = 0.0
    mixup: Annotated[float, Bound(0, 1000), "Alpha of mixup's Beta distribution; 0: none"] = 0.0
    long_tail: Annotated[
        float,
        Bound(1, 1e6),
        "Times by which the first class has more training images than the last",
    ] = 1.0
    shuffle_pixels: Annotated[
        bool, "Reorder the pixels of all images by one fixed permutation, so that none is local"
    ] = False
    balance_classes: Annotated[bool, "Draw all classes equally often (label shuffling)"] = False
    workers: Annotated[
        int, Bound(0, 1024), "Processes that decode full-size images; 0: threads"
    ] = 0
    on_bad_image: Annotated[
        Literal["stop", "skip"], "At an image that cannot be decoded: stop, or use the next one"
    ] = "stop"

    @property
    def name(self) -> str:
        """The data set's name as --data takes it: digits, or folder:PATH."""
        path = self.dataset.args.get("path")
        return self.dataset.name if path is None else f"{self.dataset.name}:{path}"


def dataset(name: str) -> Choice:
    """Returns the data set that --data names: folder:PATH, or a name.

    Example:
      >>> dataset("folder:/data/cats").name
      'folder'
      >>> dataset("digits").args
      {}
    """
    kind, colon, path = name.partition(":")
    return choose(kind, path=path) if colon else choose(name)


@dataclass(frozen=True)
class Train:
    """The length of a run, and the intervals of logging, evaluating and saving."""

    steps: Annotated[Count, "Training steps"] = 64_000
    start_from: Annotated[str, "A run of the same study whose parameters this one starts from"] = ""
    start_layers: Annotated[tuple[str, ...], "Which of its layers; empty: all"] = ()
    log_every: Annotated[Count, "Steps between log lines"] = 100
    eval_every: Annotated[Count, "Steps between evaluations, each of which also saves"] = 1_000
    save_every: Annotated[Count, "Steps between checkpoints"] = 1_000
    stop_after: Annotated[
        Natural,
        "Evaluations without a lower error after which the run ends; it keeps its best state; 0:"
        " train to the end",
    ] = 0
    steps_per_call: Annotated[
        int,
        Bound(1, 1024),
        "Steps in one call of the compiled program, for small models in memory on a GPU or TPU",
    ] = 1
    label_smoothing: Annotated[Fraction, "Share of each label spread over all classes"] = 0.0
    parallel: Annotated[
        Literal["jit", "pmap"], "How a step is spread over the devices: jit over a mesh, or pmap"
    ] = "jit"
    watchdog_minutes: Annotated[
        NonNegative, "Report after so many minutes without progress; 0: never"
    ] = 10.0
    on_nan: Annotated[
        Literal["stop", "skip", "record"],
        "At a loss that is not finite: stop with an error, skip the update and count it, or end the"
        " run and record that it diverged",
    ] = "stop"
    check_numerics: Annotated[bool, "Name the first operation that gives NaN (slow)"] = False
    precision: Annotated[
        Literal["float32", "tensorfloat32", "bfloat16"], "Precision of matrix products"
    ] = "float32"


@dataclass(frozen=True)
class Log:
    """What a run writes beside its metrics; it changes none of its numbers."""

    layer_statistics: Annotated[
        tuple[Natural, ...],
        "Steps after which every layer's values and gradients are measured; 0: before the first",
    ] = ()


@dataclass(frozen=True)
class Experiment:
    """One run: everything that its numbers depend on.

    Attributes:
      study: The study it belongs to.
      name: Its name in the study, and its folder in the workdir.
      seed: Of all its random numbers.
      data: The data set and how images are prepared.
      model: A name of `cnn_jax.models.MODELS` and the model's options.
      optimizer: A name of `cnn_jax.optim.OPTIMIZERS` and its arguments.
      schedule: A name of `cnn_jax.optim.SCHEDULES` and its arguments.
      train: How long, and what happens when.
      log: What is written beside the metrics.
      protocols: How the finished run is evaluated, beside the single view during training.
      deviations: From the paper, in words, beside those that the values show.
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


# Fields that do not identify a run: it may be continued with other values of them.
RUNTIME_FIELDS = (
    "data.dir",
    "data.eval_batch_size",
    "data.workers",
    "train.parallel",
    "train.steps_per_call",
    "train.watchdog_minutes",
    "protocols",
    "deviations",
)


def protocol_name(choice: Choice) -> str:
    """Returns an evaluation protocol's short name, which names its results: dense@256,384.

    Scales stand alone, as they do on the command line; any other argument has its name:
    dense@256,stride=2.
    """
    words = []
    for key, value in sorted(choice.items, key=lambda item: item[0] != "scales"):
        if value != ():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(text if key == "scales" else f"{key}={text}")
    return f"{choice.name}@{','.join(words)}" if words else choice.name


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {'schedule': 'step', 'schedule.base': 0.1, ...} of a frozen value, in field order."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        item, path = getattr(value, f.name), f"{prefix}{f.name}"
        if isinstance(item, Choice):
            flat[path] = item.name
            flat |= {f"{path}.{key}": arg for key, arg in item.items}
        elif dataclasses.is_dataclass(item):
            flat |= flatten(item, path + ".")
        elif path == "protocols":
            flat[path] = tuple(map(protocol_name, item))
        else:
            flat[path] = item
    return flat


def find_differences(old: Experiment, new: Experiment, ignore: tuple[str, ...] = ()) -> list[str]:
    """Returns ['train.steps: 64000 -> 300', ...], the fields in which two experiments differ."""
    before, after = flatten(old), flatten(new)
    paths = dict.fromkeys([*before, *after])
    missing = object()
    return [
        f"{path}: {_shown(before, path)} -> {_shown(after, path)}"
        for path in paths
        if path not in ignore and before.get(path, missing) != after.get(path, missing)
    ]


def _shown(flat: Mapping[str, Any], path: str) -> str:
    return show(flat[path]) if path in flat else "default"


def check_names(experiment: Experiment) -> None:
    """Raises UserError if the run's name, or that of its start, is no valid folder name."""
    pairs = (("name", experiment.name), ("train.start_from", experiment.train.start_from))
    for path, name in pairs:
        if name in (".", "..") or set("/\\\0") & set(name):
            raise UserError(f"{path}={name!r}: names a folder in the workdir, so it has no slashes")
        if len(name.encode()) > 200:
            raise UserError(f"{path}={name[:20]}...: names a folder, so at most 200 bytes")


def iterate_fields(cls: type = Experiment, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, type, default) of every plain field and every choice, in order."""
    import typing

    hints = typing.get_type_hints(cls, include_extras=True)
    defaults = cls()
    for f in dataclasses.fields(cls):
        default = getattr(defaults, f.name)
        if dataclasses.is_dataclass(default) and not isinstance(default, Choice):
            yield from iterate_fields(type(default), f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", hints[f.name], default
