"""Other values for some fields of an experiment: `--set schedule.base=0.05`."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from cnn_jax import config
from cnn_jax.config import Choice, Experiment, choose, iterate_fields
from cnn_jax.errors import UserError, find_same, find_similar, suggest_names
from cnn_jax.values import convert, describe, parse, to_plain


class Kind(NamedTuple):
    """The names that a field with a choice accepts.

    Attributes:
      names: The valid names; None: any.
      get_option_types: Returns {option: type} of a name.
    """

    names: Collection[str] | None
    get_option_types: Callable[[str], Mapping[str, Any]]


Kinds = Mapping[str, Kind]

# {field of versions before 2026-11-26: current field}
RENAMED = {
    "optim.learning_rate": "schedule.base",
    "optim.schedule": "schedule",
    "optim.boundaries": "schedule.boundaries",
    "optim.factor": "schedule.factor",
    "optim.decay": "schedule.rate",
    "optim.patience": "schedule.patience",
    "optim.warmup_learning_rate": "schedule.warmup_base",
    "optim.warmup_error": "schedule.warmup_until_error",
    "optim.rule": "optimizer",
    "optim.rms_decay": "optimizer.decay",
    "optim.rms_epsilon": "optimizer.epsilon",
    "optim.clip": "optimizer.clip_norm",
    "optim.momentum": "optimizer.momentum",
    "optim.weight_decay": "optimizer.weight_decay",
    "optim.filter_rms": "optimizer.max_filter_rms",
    "optim.decay_all": "optimizer.decay_biases",
    "data.holdout": "data.validation_images",
    "data.mean": "data.subtract_mean",
    "data.shorter_side": "data.train_resize",
    "data.crop": "data.image_size",
    "data.pad": "data.pad_and_crop",
    "data.test_side": "data.eval_resize",
    "data.cut": "data.train_crop",
    "data.colour": "data.color_pca",
    "data.jitter": "data.color_jitter",
    "data.noise": "data.gaussian_noise",
    "data.balanced": "data.balance_classes",
    "model.initialiser": "model.initializer",
    "model.factorised_7x7": "model.factorized_7x7",
    "model.scan_from": "model.scan_min_blocks",
    "model.noise": "model.input_noise_std",
    "train.watchdog": "train.watchdog_minutes",
    "train.debug": "train.check_numerics",
}
NAMED_ELSEWHERE = {"seed": "--seeds=N", "name": "--run=NAME", "study": "--experiment=NAME"}


def override(experiment: Experiment, assignments: Iterable[str], kinds: Kinds) -> Experiment:
    """Returns the experiment with 'field=value' assignments applied, in their order.

    A new name of a choice (`schedule=cosine`) keeps the arguments that both names have;
    `model.shortcut=none` removes an argument.

    Args:
      experiment: What is changed.
      assignments: Such as 'train.steps=300', 'schedule=exponential' or 'schedule.rate=1e-4'.
      kinds: What each choice may name.

    Raises:
      UserError: If there is no such field, or the value is not what it may be.
    """
    for assignment in [assignments] if isinstance(assignments, str) else assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            example = "write it as field=value, for example schedule.base=0.05"
            raise UserError(f"--set {assignment}: {example}")
        experiment = _assign(experiment, path.strip(), text, kinds)
    return experiment


def _assign(experiment: Experiment, path: str, text: str, kinds: Kinds) -> Experiment:
    fields = {p: (wanted, default) for p, wanted, default in iterate_fields()}
    if path in NAMED_ELSEWHERE:
        raise UserError(f"--set {path}: choose it with {NAMED_ELSEWHERE[path]}")
    path = path.removesuffix(".name")  # model.name is model
    owner, _, option = path.rpartition(".")
    if path in kinds:
        return _replace(experiment, path, _rename(path, _get(experiment, path), text, kinds[path]))
    if owner in kinds:
        choice = _get(experiment, owner)
        return _replace(experiment, owner, _with_option(path, choice, option, text, kinds[owner]))
    if path in fields and "." in path:
        wanted, _ = fields[path]
        return _replace(experiment, path, read_value(f"--set {path}", text, wanted))
    if path in RENAMED:
        raise UserError(f"--set {path}: no such field; it is now called {RENAMED[path]}")
    known = [p for p in fields if "." in p or p in kinds]
    for field, kind in kinds.items():
        known += [f"{field}.{o}" for o in _options(field, _get(experiment, field), kind)]
    known += RENAMED
    near = find_same(path, known) or find_similar(path, known)
    names = ", ".join(dict.fromkeys(RENAMED.get(field, field) for field in near))
    words = f"nearest: {names}" if names else "docs/configuration.md lists every field"
    raise UserError(f"--set {path}: no such field; {words}")


def read_value(name: str, text: str, wanted: Any) -> Any:
    """Returns text as a checked value of the type; `name` begins the message of a UserError."""
    try:
        value = parse(text, wanted)
    except (ValueError, OverflowError):
        raise UserError(f"{name}={text}: must be {describe(wanted)}, not {text!r}") from None
    return convert(name, value, wanted)


def _rename(path: str, old: Choice, text: str, kind: Kind) -> Choice:
    new = config.parse_dataset(text) if path == "data.dataset" else choose(text)
    types = _options(path, new, kind)
    kept = {k: v for k, v in old.args.items() if k in types}
    return choose(new.name, **kept | new.args)


def _with_option(path: str, choice: Choice, option: str, text: str, kind: Kind) -> Choice:
    types = _options(path.rpartition(".")[0], choice, kind)
    if option not in types:
        if path in RENAMED:
            raise UserError(f"--set {path}: no such field; it is now called {RENAMED[path]}")
        known = suggest_names(option, types) if types else "it has none"
        raise UserError(f"--set {path}: {choice.name} has no such option; {known}")
    if text.lower() == "none" and "none" not in describe(types[option]).split(" or "):
        return config.change(choice, **{option: None})
    return config.change(choice, **{option: read_value(f"--set {path}", text, types[option])})


def _options(field: str, choice: Choice, kind: Kind) -> Mapping[str, Any]:
    if kind.names is not None and choice.name not in kind.names:
        what = field.rpartition(".")[2]
        near = suggest_names(choice.name, kind.names)
        raise UserError(f"{field}={choice.name!r}: no such {what}; {near}")
    return kind.get_option_types(choice.name)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _replace(value: Any, path: str, new: Any) -> Any:
    name, _, rest = path.partition(".")
    inner = _replace(getattr(value, name), rest, new) if rest else new
    return dataclasses.replace(value, **{name: inner})


def convert_fields(experiment: Experiment) -> Experiment:
    """Returns an experiment with NumPy's numbers in plain fields as Python's.

    Choices convert their own.

    Raises:
      UserError: If a field has an invalid value.
    """
    for path, wanted, _ in iterate_fields():
        value = _get(experiment, path)
        if isinstance(value, Choice) or path == "protocols":
            continue
        convert(path, value, wanted)
        if (plain := to_plain(value)) is not value:
            experiment = _replace(experiment, path, plain)
    config.check_names(experiment)
    return experiment
