"""Writes and reads layers.jsonl: the results of `layer_statistics`, a line for each chosen step.

A line holds {"step": n, "layers": [{"layer": name, "kind": ..., "mean": ..., ...}, ...]}. A run
that continues from a step deletes the lines of later steps, as it does in metrics.jsonl, and
measures these steps again.
"""

import json
import os
from pathlib import Path
from typing import Any

from cnn_jax import file_names
from cnn_jax.files import write_whole


def drop_later_lines(folder: Path, step: int) -> set[int]:
    """Deletes damaged lines, and those of steps after `step`, from the file of a run that goes on.

    Args:
      folder: The run's folder.
      step: The step from which the run goes on.

    Returns:
      The steps of the lines that are left.
    """
    kept = [line for line in read_lines(folder) if line["step"] <= step]
    if (folder / file_names.LAYERS).exists():
        write_whole(folder / file_names.LAYERS, "".join(json.dumps(line) + "\n" for line in kept))
    return {line["step"] for line in kept}


def append_line(folder: Path, step: int, layers: list[dict[str, Any]]) -> None:
    """Appends the line of a step, and waits until it is on the disk.

    It must be there before a checkpoint of a later step is.

    Args:
      folder: The run's folder.
      step: The step after which the layers were measured.
      layers: A dictionary for each layer, from `layer_statistics.to_json`.
    """
    with open(folder / file_names.LAYERS, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"step": step, "layers": layers}) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run in the order of steps, without incomplete and damaged lines."""
    path = folder / file_names.LAYERS
    text = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    lines = [line for each in text if (line := parse_line(each)) is not None]
    return sorted(lines, key=lambda line: line["step"])


def parse_line(text: bytes) -> dict[str, Any] | None:
    """Returns the value of a line of the file, or None if the line is damaged."""
    try:
        line = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    return line if is_line(line) else None


def is_line(line: Any) -> bool:
    """Returns whether a value has the form of a line of the file."""
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        return False
    layers = line.get("layers")
    return isinstance(layers, list) and all(map(_is_layer, layers))


def _is_layer(layer: Any) -> bool:
    if not isinstance(layer, dict) or not isinstance(layer.get("layer"), str):
        return False
    names = ("mean", "std", "low", "high")
    numbers = [layer.get(f"{of}{name}") for of in ("", "grad_") for name in names]
    lists = [layer.get("counts"), layer.get("grad_counts"), layer.get("units")]
    return all(x is None or isinstance(x, int | float) for x in numbers) and all(
        isinstance(x, list) for x in lists
    )
