"""Writes an experiment as JSON text, the file config.json of a run, and reads it strictly.

`cnn_jax.training.components.find_changes` decides whether two configurations count as the same.
"""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.config import Choice, Experiment, choose
from cnn_jax.errors import UserError, explain_os_errors, suggest_names
from cnn_jax.values import convert

VERSION = 2  # Version of the format.

# Fields that a config.json of this version may lack, because they were added after it. They take
# their defaults.
NEWER_FIELDS = (
    "data.affine",
    "data.long_tail",
    "data.shuffle_pixels",
    "log",
    "train.steps_per_call",
    "train.stop_after",
)


def to_json(experiment: Experiment) -> str:
    """Returns the experiment as JSON text, of which `from_json` makes an equal experiment."""
    return json.dumps({"version": VERSION} | _to_plain(experiment), indent=2) + "\n"


def read_config(path: Path) -> Experiment:
    """Reads a run's config.json.

    Raises:
      UserError: If it cannot be read, or holds no experiment of this version.
    """
    with explain_os_errors(f"{path} cannot be read"):
        try:
            return from_json(path.read_text(encoding="utf-8"))
        except (UserError, UnicodeDecodeError) as error:
            why = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            raise UserError(f"{path}: {why}") from None


def read_run(folder: Path, data_dir: str = "") -> Experiment:
    """Reads the config.json of a run folder.

    Args:
      folder: <workdir>/<run>/seed<k>.
      data_dir: Where prepared TFDS folders lie now; empty: where they lay in training.

    Raises:
      UserError: If the folder is not a run folder, or as in `read_config`.
    """
    if not (folder / file_names.CONFIG).exists():
        raise UserError(f"{folder} is not a run folder: it holds no config.json")
    experiment = read_config(folder / file_names.CONFIG)
    if not data_dir:
        return experiment
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, dir=data_dir))


def from_json(text: str) -> Experiment:
    """Returns the experiment of a config.json.

    Raises:
      UserError: If the text is not JSON, or a field is unknown, missing or of another type.
    """
    try:
        return _from_items(json.loads(text))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        # An integer of thousands of digits is a ValueError.
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(
            f"config.json is not JSON{line}: restore it, or use another workdir"
        ) from None


def _from_items(items: Any) -> Experiment:
    if not isinstance(items, dict):
        raise UserError("config.json holds no experiment: restore it, or use another workdir")
    if items.pop("version", 1) != VERSION:
        raise UserError(
            "config.json was written by another version of cnn_jax: continue the run with the"
            " commit that starts.jsonl names, or start it again in another workdir"
        )
    return _read(Experiment, items, "")


def _to_plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return {"name": value.name} | {key: _to_plain(item) for key, item in value.items}
    if dataclasses.is_dataclass(value):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_to_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(cls: Any, items: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls, include_extras=True)
    for name in items:
        if name not in hints:
            raise UserError(
                f"config.json: no such field {prefix}{name}; {suggest_names(name, hints)}"
            )
    newer = [name for name in hints if prefix + name in NEWER_FIELDS]
    items = {name: _to_plain(getattr(cls(), name)) for name in newer} | items
    for name in hints:
        if name not in items:
            raise UserError(
                f"config.json: {prefix}{name} is missing: restore it, or use another workdir"
            )
    return cls(**{n: _read_field(hints[n], items[n], prefix + n) for n in hints})


def _read_field(wanted: Any, item: Any, path: str) -> Any:
    bare = typing.get_args(wanted)[0] if hasattr(wanted, "__metadata__") else wanted
    if bare is Choice:
        return _read_choice(item, path)
    if typing.get_args(bare)[:1] == (Choice,):
        if not isinstance(item, list):
            raise UserError(f"config.json: {path} must be a list")
        return tuple(_read_choice(part, path) for part in item)
    if dataclasses.is_dataclass(bare):
        if not isinstance(item, dict):
            raise UserError(f"config.json: {path} must be an object")
        return _read(bare, item, path + ".")
    try:
        return convert(path, item, wanted)
    except UserError as error:
        raise UserError(f"config.json: {error}") from None


def _read_choice(item: Any, path: str) -> Choice:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise UserError(f"config.json: {path} must be an object with a name")
    args = {key: _read_argument(value, f"{path}.{key}") for key, value in item.items()}
    name = args.pop("name")
    return choose(name, **args)


def _read_argument(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return tuple(_read_argument(part, path) for part in value)
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    raise UserError(f"config.json: {path} must be a number, text, true, false or a list")
