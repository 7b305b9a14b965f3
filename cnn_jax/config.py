"""What a run is, as frozen values: typed, overridden strictly, JSON in and out.

A study is a table of named experiments; nothing here is derived (steps per epoch, scaled rates and
the like are functions of the final values, elsewhere), and this file imports nothing of ours.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cnn_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Data:
    """The data set, how it is split, and how an image is prepared."""

    name: str = "digits"  # a name of cnn_jax.data.SOURCES, folder:PATH, or a prepared TFDS set
    dir: str = ""  # where prepared TFDS folders lie; empty: TFDS's own rule
    holdout: int = 0  # N training images are held out and evaluated instead of the test set
    batch_size: int = 128  # images a step over all devices
    eval_batch_size: int = 500
    mean: str = "pixel"  # what is subtracted: pixel (an image of means) | channel | none
    shorter_side: tuple[int, ...] = ()  # full-size images are scaled to this shorter side, or one between two
    crop: int = 0  # side of the square cut out of a full-size image
    pad: int = 4  # pixels of padding before the random crop back to size; 0: no crop
    test_side: int = 0  # full-size test images are scaled to this shorter side; 0: the middle of shorter_side
    cut: str = "crop"  # of a full-size training image: crop: anywhere | area: GoogLeNet's, of random area and aspect
    flip: bool = True  # mirror half of the training images
    vertical_flip: bool = False  # turn half of them upside down
    shift: int = 0  # at most so many pixels, each way
    rotate: float = 0.0  # at most so many degrees, each way
    colour: str = "none"  # pca: AlexNet's colour noise | none
    jitter: tuple[float, ...] = ()  # how far brightness, contrast, saturation and hue change, at most
    noise: float = 0.0  # standard deviation of Gaussian noise on pixels, which are 0 to 1
    mixup: float = 0.0  # alpha of the Beta distribution by which pairs of images are mixed; 0: they are not
    balanced: bool = False  # label shuffling: all classes alike often, however many images they have
    workers: int = 0  # processes that decode full-size images; 0: threads
    on_bad_image: str = "stop"  # what cannot be decoded: stop | skip: the next image stands in


@dataclass(frozen=True)
class Model:
    """The net by its name and its options; None leaves an option as the net's paper has it."""

    name: str = "resnet20"  # a name of cnn_jax.models.MODELS
    dtype: str | None = None  # of the activations: float32 | bfloat16
    width: float | None = None  # maps and units of every layer but the last, in multiples of the paper's
    shortcut: str | None = None  # A: zero-padded identity | B: projection where sizes change | C: everywhere
    stride_in: str | None = None  # of a bottleneck: 1x1, the paper's | 3x3
    conv_bias: bool | None = None  # ResNet: biases of the convolutions too
    bn_epsilon: float | None = None  # added to the variances
    bn_group: int | None = None  # images over which batch statistics are taken; 0: the whole batch
    scan_from: int | None = None  # stages of this many identical blocks run in a scan: compiles fast
    remat: bool | None = None  # VGG: activations of a block are computed again in the backward pass, not kept
    hidden: tuple[int, ...] | None = None  # widths of the hidden dense layers
    activation: str | None = None  # sigmoid | tanh | relu
    initialiser: str | None = None  # of the weights: paper | xavier | he
    initial_bias: float | None = None  # of the biases that AlexNet's paper starts at 1
    dropout: float | None = None  # share of the dense layers' inputs or outputs dropped in training
    norm: str | None = None  # none | bn: batch normalisation | lrn: local response normalisation
    rubbish: float | None = None  # LeNet-5: the constant j of the MAP criterion's rubbish class
    noise: float | None = None  # autoencoder: standard deviation of what is added to the pixels in training
    aux_heads: bool | None = None  # whether a net that has auxiliary heads keeps them
    aux_weight: float | None = None  # of each auxiliary loss against the main one
    factorised_7x7: bool | None = None  # Inception: three 3x3 as the first layers, not one 7x7
    aux_norm: bool | None = None  # Inception: batch norm in the auxiliary head's fully connected layer too
    count_padding: bool | None = None  # Inception: average pooling counts the zeros outside the map


@dataclass(frozen=True)
class Optim:
    """SGD with momentum and coupled L2, or RMSProp, and its learning rate over the steps."""

    rule: str = "sgd"  # sgd | rmsprop: gradients over the root of their mean square, then momentum
    rms_decay: float = 0.9  # of RMSProp's mean square
    rms_epsilon: float = 1.0  # added to RMSProp's mean square
    clip: float = 0.0  # gradients of a larger norm are scaled back to it; 0: none are
    learning_rate: float = 0.1
    schedule: str = "step"  # constant | step | exponential | inverse_time | plateau
    boundaries: tuple[int, ...] = ()  # step: multiply by `factor` at each of these iterations
    factor: float = 0.1  # step and plateau: what the rate is multiplied by
    decay: float = 0.0  # exponential lr exp(-decay t) and inverse_time lr / (1 + decay t), t in steps
    patience: int = 5  # plateau: evaluations without a better error before the rate is cut
    momentum: float = 0.9
    weight_decay: float = 1e-4
    filter_rms: float = 0.0  # filters whose RMS exceeds this are scaled back to it (ZFNet: 0.1); 0: none are
    decay_all: bool = True  # False: spare biases and batch norm's scale and shift
    warmup_learning_rate: float = 0.01
    warmup_error: float = 1.0  # hold the warm-up rate until the training error is below this; 1: no warm-up


@dataclass(frozen=True)
class Train:
    """How long, and what happens every how many steps."""

    steps: int = 64_000
    start_from: str = ""  # a run of the same study, whose parameters this one starts from
    start_layers: tuple[str, ...] = ()  # which of its layers, such as conv1_1; empty: all
    log_every: int = 100
    eval_every: int = 1_000  # also saves, so that the best evaluation can be kept
    save_every: int = 1_000
    label_smoothing: float = 0.0  # the share of each label that is spread over all classes, in the training loss
    parallel: str = "jit"  # jit over a mesh | pmap: two compiled forms of the same step
    watchdog: float = 10.0  # minutes without a step, save or evaluation, after which it says so; 0: never
    on_nan: str = "stop"  # stop: at a loss that is not finite | skip: updates of such a loss or gradient, counted
    debug: bool = False  # the first operation to give NaN is told, and shapes and types must match exactly: slow
    precision: str = "float32"  # of products; TPUs and GPUs are faster with tensorfloat32 or bfloat16


@dataclass(frozen=True)
class Experiment:
    """One run: everything that its numbers depend on."""

    study: str = ""
    name: str = ""
    seed: int = 0
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    tests: tuple[str, ...] = ()  # of the finished run: views@sides, such as dense@256,384,512
    deviations: tuple[str, ...] = ()  # from the paper, in words; launch.py adds what the values show


@dataclass(frozen=True)
class Row:
    """A line of the paper's table: which run stands for it, and what the paper prints (errors in %)."""

    run: str
    label: str
    group: str  # the panel of the figure it is drawn in
    source: str
    paper: dict[str, float] = field(default_factory=dict)
    table: str = ""  # which of the paper's tables, where there are several
    test: str = ""  # which of the run's tests it is; empty: the last evaluation in training


@dataclass(frozen=True)
class Claim:
    """What a paper says of two of its figures, to be held against ours on the same test images."""

    words: str
    better: tuple[str, str]  # (run, test): the one that is said to err less
    worse: tuple[str, str]
    paper: float | None  # better minus worse in points of top-1 error; None: it prints no such figures


@dataclass(frozen=True)
class Stack:
    """Convolutions one after another, stride 1, whose cost a study compares; nothing is trained."""

    label: str
    group: str  # the alternatives that it is compared with; the first of them is the measure
    side: int  # of the maps, which stay as large
    inputs: int  # maps that go in
    kernels: tuple[tuple[int, int, int], ...]  # height, width, maps of each convolution
    dilation: int = 1
    source: str = ""
    paper: dict[str, float] = field(default_factory=dict)  # what the paper prints: weights


@dataclass(frozen=True)
class Study:
    """A paper's comparison: its runs, its table, and what a reader must know."""

    name: str
    title: str
    paper: str
    paper_data: str  # the data set of the paper's figures: a difference from other data's means nothing
    preset: str
    runs: dict[str, Experiment]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    recipes: dict[str, Experiment] = field(default_factory=dict)  # runs by the paper's recipe, which has not all
    stacks: tuple[Stack, ...] = ()


# Where a run happens, not what it is: a run may be continued with other values of these.
PLACE = ("data.dir", "data.eval_batch_size", "data.workers", "train.parallel", "train.watchdog", "tests", "deviations")

# What makes sense; whatever else a value must be is known where it is used.
LEAST = {
    "data.batch_size": 1,
    "data.eval_batch_size": 1,
    "data.holdout": 0,
    "data.pad": 0,
    "data.crop": 0,
    "data.test_side": 0,
    "data.shift": 0,
    "data.rotate": 0,
    "data.noise": 0,
    "data.mixup": 0,
    "data.workers": 0,
    "model.bn_group": 0,
    "optim.patience": 1,
    "optim.momentum": 0,
    "optim.weight_decay": 0,
    "optim.filter_rms": 0,
    "optim.rms_decay": 0,
    "optim.rms_epsilon": 0,
    "optim.clip": 0,
    "model.noise": 0,
    "model.aux_weight": 0,
    "model.scan_from": 1,
    "train.label_smoothing": 0,
    "optim.decay": 0,
    "seed": 0,
    "train.steps": 1,
    "train.log_every": 1,
    "train.eval_every": 1,
    "train.save_every": 1,
    "train.watchdog": 0,
}
MOST = {
    "train.steps": 2**31 - 1,  # counted in int32
    "seed": 2**31 - 1,
    "train.label_smoothing": 1,
    "optim.rms_decay": 1,
}
POSITIVE = ("optim.learning_rate", "optim.factor", "optim.warmup_learning_rate", "optim.warmup_error")
CHOICES = {
    "train.parallel": ("jit", "pmap"),
    "optim.rule": ("sgd", "rmsprop"),
    "train.precision": ("float32", "tensorfloat32", "bfloat16"),
    "data.mean": ("pixel", "channel", "none"),
    "data.cut": ("crop", "area"),
    "data.colour": ("none", "pca"),
    "data.on_bad_image": ("stop", "skip"),
    "train.on_nan": ("stop", "skip"),
}


def check(experiment: Experiment) -> None:
    """Raises UserError for a value that no run can have, naming the field and what it may be."""
    for path, value in flatten(experiment).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}={value}: wants a finite number")
        if path in LEAST and value is not None and value < LEAST[path]:
            raise UserError(f"{path}={value}: wants at least {LEAST[path]}")
        if value is not None and path in MOST and value > MOST[path]:
            raise UserError(f"{path}={value}: wants at most {MOST[path]}")
        if path in POSITIVE and value <= 0:
            raise UserError(f"{path}={value}: wants more than 0")
        if path in CHOICES and value not in CHOICES[path]:
            raise UserError(f"{path}={value!r}: choose {' or '.join(CHOICES[path])}")
    if any(not 0 < step <= MOST["train.steps"] for step in experiment.optim.boundaries):
        raise UserError(f"optim.boundaries={_shown(experiment.optim.boundaries)}: wants steps from 1 to {2**31 - 1}")
    for path, name in (("name", experiment.name), ("train.start_from", experiment.train.start_from)):
        if name in (".", "..") or set("/\\\0") & set(name):
            raise UserError(f"{path}={name!r}: is a folder's name in the workdir, so without slashes")
    group, batch = experiment.model.bn_group, experiment.data.batch_size
    if group and batch % group:
        raise UserError(f"model.bn_group={group} does not divide data.batch_size={batch}")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{'optim.learning_rate': 0.1, ...} of a frozen dataclass, in the order of its fields."""
    flat = {}
    for f in dataclasses.fields(value):
        item, path = getattr(value, f.name), f"{prefix}{f.name}"
        flat |= flatten(item, path + ".") if dataclasses.is_dataclass(item) else {path: item}
    return flat


def override(experiment: Experiment, assignments: Iterable[str]) -> Experiment:
    """The experiment with 'path=value' assignments applied; raises UserError for a bad name or type."""
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write it as field=value, for example optim.learning_rate=0.05")
        known = [p for p in flatten(experiment) if "." in p]
        if path in ("seed", "name"):
            raise UserError(f"--set {path}: choose it with {'--seeds=N' if path == 'seed' else '--run=NAME'}")
        if path not in known:
            raise UserError(f"--set {path}: no such field; {nearest(path, known)}")
        experiment = _replaced(experiment, path.split("."), text, path)
    return experiment


def _replaced(value: Any, path: list[str], text: str, whole: str) -> Any:
    name, *rest = path
    if rest:
        return dataclasses.replace(value, **{name: _replaced(getattr(value, name), rest, text, whole)})
    wanted = typing.get_type_hints(type(value))[name]
    try:
        return dataclasses.replace(value, **{name: parse(text, wanted)})
    except ValueError:
        raise UserError(f"--set {whole}={text}: wants {spell(wanted)}, not {text!r}") from None


def parse(text: str, wanted: Any) -> Any:
    """Text as a value of the wanted type (int, float, bool, str, tuple[x, ...], x | None); else ValueError."""
    options = typing.get_args(wanted)
    if isinstance(wanted, types.UnionType):
        return None if text.lower() == "none" else parse(text, options[0])
    if typing.get_origin(wanted) is tuple:
        return tuple(parse(part.strip(), options[0]) for part in text.strip("()").split(",") if part.strip())
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return wanted(text)


def spell(wanted: Any) -> str:
    """A type in a user's words."""
    options = typing.get_args(wanted)
    if isinstance(wanted, types.UnionType):
        return f"{spell(options[0])} or none"
    if typing.get_origin(wanted) is tuple:
        return f"several of {spell(options[0])}, with commas between"
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}[wanted]


def to_json(value: Any) -> str:
    """A frozen dataclass as JSON text; from_json gives an equal value back."""
    return json.dumps(dataclasses.asdict(value), indent=2) + "\n"


def from_json(text: str) -> Experiment:
    """The experiment of a config.json; raises UserError for unknown, missing or mistyped fields."""
    try:
        return _built(Experiment, json.loads(text), "")
    except json.JSONDecodeError as e:
        raise UserError(f"config.json is not JSON (line {e.lineno}): restore it, or use another --workdir") from None


def _built(cls: Any, items: dict[str, Any], prefix: str) -> Any:
    wanted = typing.get_type_hints(cls)
    if unknown := [name for name in items if name not in wanted]:
        raise UserError(f"config.json: no such field {prefix}{unknown[0]}; {nearest(unknown[0], wanted)}")
    if missing := [name for name in wanted if name not in items]:
        raise UserError(f"config.json: {prefix}{missing[0]} is missing; it was written by another version")
    return cls(**{name: _typed(wanted[name], item, prefix + name) for name, item in items.items()})


def _typed(wanted: Any, item: Any, path: str) -> Any:
    if dataclasses.is_dataclass(wanted) and isinstance(item, dict):
        return _built(wanted, item, path + ".")
    options = typing.get_args(wanted)
    if isinstance(wanted, types.UnionType):
        return None if item is None else _typed(options[0], item, path)
    if typing.get_origin(wanted) is tuple and isinstance(item, list):
        return tuple(_typed(options[0], part, path) for part in item)
    if wanted is float and type(item) is int:
        return float(item)
    if type(item) is not wanted:
        raise UserError(f"config.json: {path} wants {spell(wanted)}, not {item!r}")
    return item


def differences(old: Experiment, new: Experiment, ignore: Iterable[str] = ()) -> list[str]:
    """['train.steps: 64000 -> 300', ...]: the fields in which two experiments differ."""
    before, after = flatten(old), flatten(new)
    return [f"{p}: {_shown(before[p])} -> {_shown(after[p])}" for p in before
            if p not in ignore and before[p] != after[p]]  # fmt: skip


def _shown(value: Any) -> str:
    if value is None:
        return "the net's default"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
