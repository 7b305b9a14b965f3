"""Model cards: Markdown for readers, below the metadata that model hubs read."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cnn_jax import file_names, models
from cnn_jax.config import Experiment
from cnn_jax.data import Dataset
from cnn_jax.errors import explain_os_errors
from cnn_jax.evaluation.evaluation_file import Evaluation, read_evaluation
from cnn_jax.files import write_whole
from cnn_jax.pretrained import Preprocessing
from cnn_jax.text import escape_unprintable
from cnn_jax.training import metrics_log

TOP1 = "top1_error"  # The error of a model that tells classes.


class CardResult(NamedTuple):
    """An error of the checkpoint.

    Attributes:
      error: The error; top-1, 0 to 1.
      on_test: Whether it is of test images, as hubs expect.
    """

    error: float
    on_test: bool


def write_card(
    path: Path,
    folder: Path,
    experiment: Experiment,
    step: int,
    source: Dataset,
    recipe: Preprocessing,
    files: Mapping[str, Path],
) -> None:
    """Writes the card of a run's weights.

    Args:
      path: Path of the card: README.md, where hubs look for it.
      folder: The run's.
      experiment: The run's.
      step: Step of the checkpoint.
      source: The data set.
      recipe: How images are prepared for the weights.
      files: What lies beside the card, by what it is.

    Raises:
      UserError: If it cannot be written.
    """
    options: dict[str, Any] = experiment.model.args
    error_name = models.create(experiment.model.name, source.num_classes, **options).error_name
    errors = _read_errors(folder, step, experiment.data.validation_images, error_name)
    head = "\n".join(_list_metadata(experiment, errors, error_name))
    lines = _list_paragraphs(folder, experiment, step, source, recipe, errors, error_name, files)
    body = "\n".join(map(escape_unprintable, lines))
    with explain_os_errors(f"cannot write {path}"):
        write_whole(path, f"---\n{head}\n---\n\n{body}")


def _read_errors(folder: Path, step: int, held_out: int, error_name: str) -> dict[str, CardResult]:
    """Returns {how it was measured: the error of this name} of this checkpoint.

    A run evaluates its held-out training images, if it has any. So does a protocol without a split.
    """
    errors = {}
    where = f", on held-out training images ({held_out:,})" if held_out else ""
    for event in metrics_log.read_events(folder):
        if event["event"] == "eval" and event["step"] == step and error_name in event:
            errors[f"during training{where}"] = CardResult(event[error_name], not held_out)
    for path in sorted((folder / file_names.EVALUATIONS).glob("*.json")):
        found: Evaluation | None = read_evaluation(path)
        if found and found.step == step:
            name, on_test = f"{found.protocol}{where}", not held_out
            if "split=" in found.protocol:
                name, on_test = found.protocol, "split=test" in found.protocol
            name += "" if found.average == "softmax" else f", {found.average} averaged"
            errors[name] = CardResult(found.top1_error, on_test)
    return {name: found for name, found in errors.items() if found.error is not None}


def _list_metadata(
    experiment: Experiment, errors: Mapping[str, CardResult], error_name: str
) -> list[str]:
    """Returns the lines of the hub's metadata: YAML, whose values are written as JSON."""
    data = experiment.data.dataset.name  # Without a folder's path, which is private.
    task = "image-classification" if error_name == TOP1 else "image-to-image"
    results = [
        {
            "task": {"type": task},
            "dataset": {"name": data, "type": data},
            "metrics": [
                {
                    "type": "accuracy",
                    "value": round(1 - found.error, 6),
                    "name": f"top-1, {protocol}",
                }
            ],
        }
        for protocol, found in errors.items()
        if found.on_test and error_name == TOP1
    ]
    fields: dict[str, Any] = {
        "library_name": "cnn_jax",
        "pipeline_tag": task,
        "tags": ["jax", "flax", task, experiment.model.name],
        "datasets": [data],
    }
    if results:
        fields["metrics"] = ["accuracy"]
        fields["model-index"] = [{"name": experiment.name, "results": results}]
    return [f"{name}: {json.dumps(value)}" for name, value in fields.items()]


def _list_paragraphs(
    folder: Path,
    experiment: Experiment,
    step: int,
    source: Dataset,
    recipe: Preprocessing,
    errors: Mapping[str, CardResult],
    error_name: str,
    files: Mapping[str, Path],
) -> list[str]:
    name, options = experiment.model.name, experiment.model.args
    start = _read_last_start(folder)
    steps = f"{step:,} of {experiment.train.steps:,} steps"
    lines = [f"# {experiment.name}", ""]
    classes = f" with {source.num_classes} classes" if error_name == TOP1 else ""
    lines.append(
        f"`{name}` of [cnn_jax](https://github.com/cnn-jax/cnn_jax){classes}, trained on"
        f" {_name_data(experiment)}: {steps}, batches of {experiment.data.batch_size}, seed"
        f" {experiment.seed}."
    )
    if start:
        lines[-1] += f" Hardware: {start['hardware']}. Commit {start['commit']}, {start['time']}."
    lines += ["", "## Results", ""]
    if errors:
        title = "top-1 error" if error_name == TOP1 else error_name.replace("_", " ")
        lines += [f"| evaluation | {title} |", "|---|---|"]
        form = ".2%" if error_name == TOP1 else ".4g"
        lines += [f"| {protocol} | {found.error:{form}} |" for protocol, found in errors.items()]
    else:
        lines.append("This checkpoint was not evaluated.")
    deviations = experiment.deviations or models.describe_deviations(name, **options)
    if deviations:
        lines += ["", "## Where it differs from the paper", ""]
        lines += [f"- {words}" for words in deviations]
    lines += ["", "## Use", "", "```python"]
    outputs = "logits" if error_name == TOP1 else "outputs"
    if "program" in files:
        lines += _show_program(files["program"].name, recipe, outputs)
    if "native" in files:
        lines += _show_weights(files["native"].name, name, outputs)
    lines += ["```", "", "## Images", ""]
    fields = dataclasses.asdict(recipe)
    lines += [f"- {field}: {value}" for field, value in fields.items()]
    lines += ["", "The program takes bytes and normalizes them itself."]
    if experiment.data.subtract_mean == "pixel":
        lines[-1] += (
            " It subtracts the mean image of the training set; the weights alone come with the mean"
            " of each channel of it."
        )
    lines += ["", "## License", "", "Not stated. State one before you publish these weights.", ""]
    return lines


def _name_data(experiment: Experiment) -> str:
    """Returns the data set's name; of a folder the last part of its path alone."""
    path = experiment.data.dataset.args.get("path")
    if path is None:
        return experiment.data.name
    return f"the folder {os.path.basename(os.path.abspath(str(path)))} of images"


def _show_program(file: str, recipe: Preprocessing, outputs: str) -> list[str]:
    return [
        "import jax.export",
        "import numpy as np",
        "",
        f'program = jax.export.deserialize(bytearray(open("{file}", "rb").read()))',
        f"images = np.zeros((8, {recipe.crop}, {recipe.crop}, {len(recipe.mean)}), np.uint8)",
        f"{outputs} = program.call(images)  # a batch of any size",
    ]


def _show_weights(file: str, name: str, outputs: str) -> list[str]:
    return [
        "",
        "from cnn_jax import models, pretrained",
        "",
        f'loaded = pretrained.load("{name}", "{file}")',
        f'model = models.create("{name}", loaded.num_classes, **loaded.options)',
        "images = loaded.preprocessing.apply(images)",
        f"{outputs}, _ = model.apply(loaded.params, loaded.stats, images)",
    ]


def _read_last_start(folder: Path) -> dict[str, Any] | None:
    """Returns what the run's last launch said of its machine; None: nothing readable.

    A last line that was cut off is left out.
    """
    try:
        lines = (folder / file_names.STARTS).read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            start = json.loads(line)
            if {"hardware", "commit", "time"} <= start.keys():
                return dict(start)
    return None
