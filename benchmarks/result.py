"""The end of a benchmark: its table, and its result as one line of JSON."""

import json
import statistics
from pathlib import Path
from typing import Any

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "json", "", "Also append the line of JSON to this file, for `python -m benchmarks.table`."
)


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
