"""The start and the end of a benchmark: its exit code, its table and its line of JSON."""

import functools
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from cnn_jax.commands import run_command
from cnn_jax.errors import UserError, suggest_names

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "json", "", "Also append the line of JSON to this file, for `python -m benchmarks.table`."
)


def run_benchmark(main: Callable[[], object]) -> NoReturn:
    """Reads the flags, runs a benchmark's `main`, and exits.

    Mistakes, Ctrl-C and files that cannot be read or written end it with one line, as every
    command. A benchmark that fails ends with `sys.exit` and a line: its exit code is 1.
    """
    name = Path(sys.argv[0]).name
    interrupted = f"{name}: stopped; it starts anew the next time"
    run = functools.partial(app.run, lambda _: main(), flags_parser=_parse_flags)
    sys.exit(run_command(run, name, lambda: interrupted))


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        program, *others = FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{' '.join(str(error).split())}; --help shows every flag") from None
    if others:
        raise UserError(f"{others[0]}: it takes flags only; --help shows them")
    return [program]


def check_names(flag: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError if a name in the list of a flag is not known."""
    for name in names:
        if name not in known:
            raise UserError(f"--{flag}={name}: no such name; {suggest_names(name, known)}")


def write_result(result: dict[str, Any]) -> None:
    """Prints the result as one line of JSON and appends it to the file of `--json`."""
    line = json.dumps(result)
    print(line)
    if FLAGS.json:
        with Path(FLAGS.json).open("a") as lines:
            lines.write(line + "\n")


def compute_range(values: list[float]) -> dict[str, float]:
    """Returns the min, median and max of the values."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def format_columns(lines: list[tuple[str, ...]]) -> str:
    """Aligns rows of cells: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for first, *others in lines:
        rows.append([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
    return "\n".join("  ".join(row) for row in rows)
