"""The result of an evaluation protocol: its file in a run's folder, and its line of text.

A run's results are in evaluations/<protocol>.json. Those of averaged logits, which reports do not
read, have other names (`make_evaluation_path`).
"""

import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax import file_names
from cnn_jax.errors import explain_os_error
from cnn_jax.evaluation.metrics import Measures
from cnn_jax.evaluation.scoring import Average
from cnn_jax.files import write_whole
from cnn_jax.values import convert


@dataclass(frozen=True)
class Evaluation(Measures):
    """The result of an evaluation protocol: the content of evaluations/<protocol>.json.

    Attributes:
      protocol: Its name with its scales, such as dense@256,384.
      average: What was averaged over views and scales: softmax or logits.
      mirrored: Whether mirror images were scored too.
      left_out: Test images that could not be read.
      step: Step of the checkpoint; None: public weights.
      changed_error: Share of images whose answer the protocol's shift changes; None: the protocol
        has no shift.
    """

    protocol: str
    average: str
    mirrored: bool
    left_out: int
    step: int | None
    changed_error: float | None = None


def make_evaluation_path(folder: Path, protocol: str, average: Average) -> Path:
    """Returns the path of the file that holds the result of an evaluation.

    Args:
      folder: The run's folder.
      protocol: Name of the protocol, with its options.
      average: What is averaged. The name of the file contains it unless it is softmax, which
        studies take.

    Example:
      >>> make_evaluation_path(Path("plain-20/seed0"), "dense@256", "logits").name
      'dense@256,average=logits.json'
    """
    if average != "softmax":
        protocol += f"{',' if '@' in protocol else '@'}average={average}"
    return folder / file_names.EVALUATIONS / f"{protocol}.json"


def read_evaluation(path: Path) -> Evaluation | None:
    """Reads an evaluation's file; returns None if there is none, or it is damaged."""
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
        confusion = items.pop("confusion")
        hints = typing.get_type_hints(Evaluation)
        fields = {name: convert(name, value, hints[name]) for name, value in items.items()}
        found = Evaluation(confusion=confusion, **fields)
        counts = np.array(confusion)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # UserError and UnicodeDecodeError are ValueErrors.
    classes = len(found.error_by_class)
    fits = counts.dtype.kind == "i" and counts.shape == (classes, classes)
    whole = fits and counts.sum() == found.images == len(found.wrong)
    return found if whole else None


def write_evaluation(path: Path, found: Evaluation) -> str:
    """Writes an evaluation's file, and creates its folder if that is missing.

    Args:
      path: The result of `make_evaluation_path`.
      found: The result.

    Returns:
      Why the file could not be written; empty: it was written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(dataclasses.asdict(found)) + "\n")
    except OSError as error:
        return f"{explain_os_error(f'the result is not kept: cannot write {path}', error)}"
    return ""


def format_evaluation(name: str, found: Evaluation, held_out: bool = False) -> str:
    """Returns the results in one line.

    Args:
      name: Name of the run or the weights, with which the line begins.
      found: The results.
      held_out: Whether the run holds out training images (data.validation_images), on which it is
        evaluated unless the protocol names a split.
    """
    errors = [_format_error("top-1", found.top1_error, found.top1_interval)]
    if found.top5_error is not None and found.top5_interval is not None:
        errors.append(_format_error("top-5", found.top5_error, found.top5_interval))
    if found.changed_error is not None:
        errors.append(f"changed answers {found.changed_error:.2%}")
    images = "held-out training images" if held_out and "split=" not in found.protocol else "images"
    words = f"{', '.join(errors)}, loss {found.loss:.3f} ({found.images} {images})"
    average = "" if found.average == "softmax" else f", {found.average} averaged"
    return f"{name} {found.protocol}{average}: {words}"


def _format_error(name: str, error: float, interval: tuple[float, ...]) -> str:
    low, high = interval
    return f"{name} error {error:.2%} [{low:.1%}; {high:.1%}]"
