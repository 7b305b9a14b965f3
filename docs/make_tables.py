"""Writes docs/command_line.md's table of flags and docs/configuration.md from the code.

python docs/make_tables.py writes them; with --check it only says whether they are up to date.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax import config, models, optim, registry, values
from cnn_jax.cli.flags import FLAGS, format_default, get_help
from cnn_jax.data.datasets import DATASETS
from cnn_jax.evaluation.protocols import PROTOCOLS
from cnn_jax.layers.initializers import INITIALIZERS
from cnn_jax.overrides import iterate_fields

DOCS = Path(__file__).parent
MARK = "<!-- The table below is written by docs/make_tables.py. -->"


def make_flags_table() -> str:
    """Returns the table of all flags."""
    lines = ["| flag | default | what it does |", "|---|---|---|"]
    for flag in FLAGS.get_flags_for_module("cnn_jax.cli.flags"):
        shown = format_default(flag)
        default = f"`{shown}`" if shown else ""
        lines.append(f"| `--{flag.name}` | {default} | {_escape_cell(get_help(flag))} |")
    return "\n".join(lines)


def make_fields_table() -> str:
    """Returns the table of all plain fields."""
    rows = [
        (path, wanted, default)
        for path, wanted, default in iterate_fields()
        if "." in path and not isinstance(default, config.Choice)
    ]
    return _make_options_table(rows)


def make_choices_tables() -> str:
    """Returns tables of the options of all choices: optimizers, schedules, data sets, models."""
    parts = []
    for field, functions in (
        ("optimizer", optim.OPTIMIZERS),
        ("schedule", optim.SCHEDULES),
        ("data.dataset", DATASETS),
        ("protocols", PROTOCOLS),
    ):
        for name, function in functions.items():
            full = registry.complete(field, config.choose(name), functions)
            types = registry.get_option_types(function)
            if types or field in ("optimizer", "schedule"):
                rows = [(f"{field}.{o}", types[o], full.args.get(o)) for o in types]
                summary = (function.__doc__ or "").splitlines()[0]
                parts.append(f"### `{field}={name}`\n\n{summary}\n\n{_make_options_table(rows)}")
    return "\n\n".join([*parts, make_models_tables()])


def make_models_tables() -> str:
    """Returns the table of the models' options, and that of the options of each model."""
    having: dict[tuple[str, str, str], list[str]] = {}
    for name in models.MODELS:
        for option, wanted in models.get_option_types(name).items():
            meaning = _find_meaning(models.find_spec(name).module, option)
            having.setdefault((option, _describe_values(option, wanted), meaning), []).append(name)
    described = "\n".join(
        f"| `model.{option}` | {kind} | {_escape_cell(meaning)} | {_format_some(of)} |"
        for (option, kind, meaning), of in sorted(having.items())
    )
    names = "\n".join(
        f"| `{name}` | {', '.join(f'`{o}`' for o in models.get_option_types(name))} |"
        for name in models.MODELS
    )
    return (
        "### `model=NAME`\n\n| option | value | meaning | models |\n|---|---|---|---|\n"
        f"{described}\n\nAn initializer is `paper`, the one of the model's paper, or one of"
        f" {', '.join(f'`{name}`' for name in INITIALIZERS)}\n"
        "(`cnn_jax/layers/initializers.py`).\n\n"
        f"| model | options |\n|---|---|\n{names}"
    )


def _describe_values(option: str, wanted: Any) -> str:
    if option == "initializer":  # Their list is long, and the same for all models.
        return "an initializer"
    bounds = values.describe_bounds(wanted)
    return values.describe(wanted) + (f", {bounds}" if bounds else "")


def _format_some(names: list[str]) -> str:
    shown = names if len(names) <= 6 else [*names[:2], "...", names[-1]]
    return ", ".join(name if name == "..." else f"`{name}`" for name in shown)


def _find_meaning(module: type, option: str) -> str:
    """Returns what the docstring of a model's class, or of one that it extends, says of a field."""
    if option == "dtype":
        return "Precision of activations. Parameters are float32."
    for attributes in _read_attributes(module):
        if found := re.search(rf"^  {option}: (.*(?:\n {{4}}.*)*)", attributes, re.MULTILINE):
            return found[1]
    raise LookupError(f"{module.__name__}: no docstring describes the field {option}")


def _read_attributes(module: type) -> Iterator[str]:
    for each in module.__mro__:
        yield inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2]


def _make_options_table(rows: list) -> str:
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for path, wanted, default in rows:
        kind = _describe_values(path, wanted)
        shown = values.format_value(default) if default not in ("", ()) else "empty"
        meaning = _escape_cell(values.describe_meaning(wanted))
        lines.append(f"| `{path}` | {kind} | {shown} | {meaning} |")
    return "\n".join(lines)


def _escape_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def make_pages() -> dict[Path, str]:
    """Returns {page: what it should hold}."""
    command_line = DOCS / "command_line.md"
    head = command_line.read_text().partition(MARK)[0]
    configuration = (
        "# Every field of a configuration\n\n"
        "A field is set with `--set field=value` on the command line. The optimizer, the\n"
        "schedule, the data set and the model are names with options of their own. Evaluation\n"
        "protocols are too, but an experiment has a tuple of them, which `--set` does not take:\n"
        '`Experiment(..., protocols=(choose("dense", scales=(74, 110, 146)),))`. This page is\n'
        "written by docs/make_tables.py.\n\n"
        f"## Data and training\n\n{make_fields_table()}\n\n## Choices\n\n{make_choices_tables()}\n"
    )
    return {
        command_line: f"{head}{MARK}\n\n{make_flags_table()}\n",
        DOCS / "configuration.md": configuration,
    }


def main() -> int:
    """Writes or checks the pages; returns the exit code."""
    stale = [p for p, text in make_pages().items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv[1:]:
        for page in stale:
            print(f"{page} is out of date: run python docs/make_tables.py", file=sys.stderr)
        return 2 if stale else 0
    for page, text in make_pages().items():
        page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
