"""How a benchmark ends: a line of JSON, printed last, and kept for the table if asked."""

import json
import statistics
from pathlib import Path
from typing import Any

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("json", "", "A file to which the last line is appended, for benchmarks.table.")


def tell(result: dict[str, Any]) -> None:
    """Prints the result on one line, and appends it to the file of --json."""
    line = json.dumps(result)
    print(line)
    if FLAGS.json:
        with Path(FLAGS.json).open("a") as lines:
            lines.write(line + "\n")


def spread(values: list[float]) -> dict[str, float]:
    """Their min, median and max."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Lines of cells in columns, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for first, *others in lines:
        rows.append([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
    return "\n".join("  ".join(row) for row in rows)
