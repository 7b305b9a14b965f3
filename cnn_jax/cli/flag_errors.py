"""Explains flags that cannot be parsed, and what to type instead."""

import re
import shlex
from collections.abc import Sequence
from typing import Annotated

from absl import flags

from cnn_jax.errors import find_same, find_similar
from cnn_jax.values import Bound, describe_bounds

HELP = "--help shows every flag"
_FIELDS = "docs/configuration.md lists every field"
_OF_THE_LENGTH = "a run's length is given in steps: write --set=train.steps=N"
_OF_DEVICES = "JAX takes the accelerators that it finds; JAX_PLATFORMS=cpu in front takes the CPU"
# {what is called otherwise, or needs no flag: what to do}
_GUESSES = {
    "epochs": _OF_THE_LENGTH,
    "num_epochs": _OF_THE_LENGTH,
    "device": _OF_DEVICES,
    "devices": _OF_DEVICES,
    "platform": _OF_DEVICES,
    "gpu": _OF_DEVICES,
    "cpu": _OF_DEVICES,
    "resume": "the same command continues a run",
    "continue": "the same command continues a run",
    "seed": "--seeds=N trains each run with the seeds 0 to N - 1",
}
_FLAGS_OF_FIELDS = {"data.dataset": "data", "data.dir": "data_dir", "train.parallel": "parallel"}


def explain(error: Exception, argv: Sequence[str], names: Sequence[str]) -> str:
    """Returns what is wrong and what to type instead, on one line.

    Args:
      error: Raised by absl.
      argv: The program's name and its arguments.
      names: The flags that may be suggested.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        argument = error.flagvalue  # The whole one, such as --schedule.base=0.1.
        value = argument.partition("=")[2]
        if "=" not in argument:
            value, *_ = [*argv[argv.index(argument) + 1 :], ""]
        value = "" if value.startswith("-") else value
        return f"--{error.flagname}: no such flag; {suggest(error.flagname, value, names)}"
    words = str(error)
    if missing := re.fullmatch(r"Missing value for flag --?(\w+)", words):
        return f"--{missing[1]}: its value is missing; write --{missing[1]}=VALUE"
    if wrong := re.match(r"flag --(\w+)=", words):
        given = words.removeprefix("flag ").removesuffix(f": {error.__context__}")
        return f"{given}: must be {describe_accepted_values(flags.FLAGS[wrong[1]].parser)}"
    return f"{words.removeprefix('ERROR:: ')}; {HELP}"


def describe_accepted_values(parser: flags.ArgumentParser) -> str:
    """Returns which values a flag takes."""
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    if isinstance(parser, flags.EnumParser):
        return " or ".join(parser.enum_values)
    if isinstance(parser, flags.IntegerParser):
        bound = Bound(parser.lower_bound, parser.upper_bound)
        return f"an integer, {describe_bounds(Annotated[int, bound])}"
    return parser.syntactic_help


def suggest(name: str, value: str, names: Sequence[str]) -> str:
    """Returns what to type instead of a flag that does not exist.

    Args:
      name: The flag, without dashes.
      value: Its value; empty: none was given.
      names: The flags that may be suggested.
    """
    name = name.replace("-", "_")
    if name in _GUESSES:
        return _GUESSES[name]
    if name in names:
        return f"write --{name}"
    fields = _list_fields()
    if same := find_same(name, fields):
        return f"write {' or '.join(_write(same, value))}"
    if any(field.startswith(f"{name}.") for field in fields):
        return f"write --set={name}.FIELD=VALUE; {_FIELDS}"
    near = [] if "." in name else [f"--{flag}" for flag in find_similar(name, names)]
    near = near or _write(find_similar(name, fields), value)
    if near:
        return f"nearest: {', '.join(near)}"
    return f"a field is set with --set=FIELD=VALUE; {_FIELDS}" if "." in name else HELP


def _list_fields() -> list[str]:
    """Returns every field of a configuration, by its present and its former name."""
    from cnn_jax.config import iterate_fields
    from cnn_jax.overrides import RENAMED
    from cnn_jax.training.components import KINDS

    fields = {path: None for path, _, _ in iterate_fields() if "." in path or path in KINDS}
    for field, kind in KINDS.items():
        for choice in kind.names or ():
            fields |= {f"{field}.{option}": None for option in kind.get_option_types(choice)}
    return list(fields | dict.fromkeys(RENAMED))


def _write(fields: Sequence[str], value: str) -> list[str]:
    """Returns the flags that set fields."""
    from cnn_jax.overrides import RENAMED

    value, written = value or "VALUE", []
    for field in dict.fromkeys(RENAMED.get(field, field) for field in fields):
        own = _FLAGS_OF_FIELDS.get(field)
        written.append(shlex.quote(f"--{own}={value}" if own else f"--set={field}={value}"))
    return written
