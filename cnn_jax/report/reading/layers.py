"""Reads the statistics of layers from the lines of layers.jsonl."""

from collections.abc import Iterable
from typing import Any

from cnn_jax import file_names
from cnn_jax.report.reading.json_values import is_count, is_list_of, is_number
from cnn_jax.report.results import Layer, Spread


def make_layers(
    lines: Iterable[Any], folder: str, problems: list[str]
) -> dict[int, tuple[Layer, ...]]:
    """Returns the statistics of layers by step.

    Args:
      lines: The lines of layers.jsonl, as JSON values.
      folder: The run's folder, for messages.
      problems: If lines are damaged, a message is appended.
    """
    found, damaged = {}, 0
    for line in lines:
        try:
            assert is_count(line["step"])
            found[line["step"]] = tuple(map(_make_layer, line["layers"]))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
            damaged += 1
    if damaged:
        problems.append(f"{folder}/{file_names.LAYERS}: {damaged} damaged line(s) ignored")
    return dict(sorted(found.items()))


def _make_layer(words: dict[str, Any]) -> Layer:
    name, kind, units = words["layer"], words["kind"], words["units"]
    assert isinstance(name, str) and isinstance(kind, str) and is_list_of(units, list)
    shares = [words.get(key) for key in ("saturated", "dead", "kernel_zeros")]
    assert all(share is None or is_number(share) for share in shares)
    return Layer(
        name=name,
        kind=kind,
        values=_make_spread(words, ""),
        gradients=_make_spread(words, "grad_"),
        units=tuple(map(_make_percentiles, units)),
        saturated=shares[0],
        dead=shares[1],
        kernel=_make_spread(words, "kernel_") if "kernel_counts" in words else None,
        zeros=shares[2],
    )


def _make_percentiles(values: list[Any]) -> tuple[float, float, float]:
    low, middle, high = (float("nan") if value is None else float(value) for value in values)
    return low, middle, high


def _make_spread(words: dict[str, Any], prefix: str) -> Spread:
    mean, std, low, high, counts = (
        words[prefix + key] for key in ("mean", "std", "low", "high", "counts")
    )
    assert all(value is None or is_number(value) for value in (mean, std))
    assert is_number(low) and is_number(high) and all(map(is_count, counts))
    return Spread(mean, std, low, high, tuple(counts))
