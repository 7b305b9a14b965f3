"""The start and the end of a benchmark: its exit code, its table and its line of JSON."""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from cnn_jax.commands import run_command

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "json", "", "Also append the line of JSON to this file, for `python -m benchmarks.table`."
)


def run_benchmark(main: Callable[[list[str]], object]) -> NoReturn:
    """Runs a benchmark's `main` with the arguments that are no flags, and exits.

    Ctrl-C and files that cannot be read or written end it with one line, as every command.
    """
    name = Path(sys.argv[0]).name
    interrupted = f"{name}: stopped; it starts anew the next time"
    sys.exit(run_command(lambda: app.run(main), name, lambda: interrupted))


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
