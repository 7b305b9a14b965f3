"""Loads a model's weights from a file of any publisher, and saves them."""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from cnn_jax import models
from cnn_jax.errors import UserError, explain_os_errors
from cnn_jax.files import write_whole
from cnn_jax.pretrained import (
    download,
    files,
    match,
    names,
    preprocessing,
    publish,
    write_files,
)
from cnn_jax.pretrained.match import TensorSource
from cnn_jax.pretrained.preprocessing import Preprocessing
from cnn_jax.pretrained.wrappers import strip_prefix
from cnn_jax.text import escape_unprintable

FORMATS = ("native", *publish.FORMATS)
Params: TypeAlias = Any
Stats: TypeAlias = Any


class Pretrained(NamedTuple):
    """Weights of models.create(name, num_classes, **options), with options and preprocessing.

    Attributes:
      params: The model's parameters, float32.
      stats: Batch norm's running averages, float32.
      preprocessing: Preprocessing of its images: preprocessing.apply(images [B, H, W, 3] uint8).
      options: Options of models.create, beside num_classes.
      num_classes: Number of logits.
    """

    params: Params
    stats: Stats
    preprocessing: Preprocessing
    options: dict[str, Any]
    num_classes: int


def load(name: str, path_or_url: str | os.PathLike[str]) -> Pretrained:
    """Loads weights from a file of torchvision, timm or Keras, or of `save`.

    A prefix that wrappers such as DataParallel have added to every tensor's name is removed and
    reported on stderr.

    Args:
      name: A name of `models.MODELS`.
      path_or_url: A .safetensors, .pth (no code in it is run), .h5, .weights.h5 or .keras file; a
        URL is downloaded once.

    Raises:
      UserError: If the file cannot be downloaded or read, or its tensors or their shapes are not
        exactly the model's.
    """
    models.find_spec(name)
    path = download.fetch(path_or_url)
    try:
        weights = files.open_weights(path)
        if weights.publisher == files.OURS:
            return _load_ours(name, weights)
        return _load_public(name, weights, path_or_url)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _load_public(
    name: str, weights: files.Weights, path_or_url: str | os.PathLike[str]
) -> Pretrained:
    publisher = weights.publisher
    tensors, prefix = strip_prefix(weights.tensors)
    if prefix:
        line = f"{path_or_url}: every name begins with {prefix!r}, which is left out"
        print(escape_unprintable(line), file=sys.stderr)
    layout = names.find_layout(publisher, name, tensors)
    preprocessing = _find_recipe(layout.preprocessing, publisher, path_or_url)
    last = "fc8/kernel" if name.startswith(("alexnet", "vgg")) else "head/kernel"
    head = names.find_name(publisher, layout, last)
    if head not in tensors:
        raise UserError(
            f"has no tensor {head!r}, the last of {name}; is this a file of {name}, its top"
            " included?"
        )
    shape = tensors[head].shape
    if len(shape) != 2 or not all(shape):
        raise UserError(f"tensor {head!r} has shape {shape}; in {name} it is of inputs and classes")
    num_classes = shape[0 if publisher == files.TORCH else 1]
    sources = {}
    for path, shape in match.list_shapes(name, num_classes, layout.options, preprocessing).items():
        tensor = names.find_name(publisher, layout, path.partition("/")[2])
        if layout.without_scale and path.endswith("/scale"):
            sources[path] = TensorSource(None, shape)
        elif publisher == files.TORCH:
            channels = match.count_flattened_channels(layout, path)
            ndim = len(tensors[tensor].shape) if tensor in tensors else 0
            sources[path] = match.find_torch_source(tensor, shape, ndim, channels)
        else:
            sources[path] = TensorSource(tensor, shape)
    params, stats = match.fill(name, sources, tensors, names.UNUSED[publisher])
    return Pretrained(params, stats, preprocessing, layout.options, num_classes)


def _find_recipe(
    default: Preprocessing, publisher: str, path_or_url: str | os.PathLike[str]
) -> Preprocessing:
    """Returns the publisher's preprocessing, or what the file's name or timm's config.json says."""
    if publisher != files.TORCH:
        return default
    if any(f"-{name}." in os.fspath(path_or_url) for name in preprocessing.V2_HASHES):
        return preprocessing.TORCHVISION_V2
    config = download.fetch_sibling(path_or_url, "config.json")
    if config is None:
        return default
    try:
        return preprocessing.from_timm(json.loads(config.read_text()))
    except (ValueError, RecursionError) as error:  # UserErrors are ValueErrors.
        raise UserError(f"{config} {error}; repair it, or move it away") from error


def _load_ours(name: str, weights: files.Weights) -> Pretrained:
    fields = ("name", "num_classes", "preprocessing", "options")
    try:
        model, num_classes, given, options = (weights.metadata[field] for field in fields)
        if model != name:
            raise UserError(f"is of {model!r:.80}, not of {name}")
        preprocessing = Preprocessing(**_make_tuples(given))
        options = _make_tuples(options)
        shapes = match.list_shapes(name, num_classes, options, preprocessing)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"does not describe its model as cnn_jax.pretrained.save does: {error}"
        ) from error
    sources = {path: TensorSource(path, shape) for path, shape in shapes.items()}
    params, stats = match.fill(name, sources, weights.tensors, unused=r"(?!)")
    return Pretrained(params, stats, preprocessing, options, num_classes)


def _make_tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}


def save(
    path: str | os.PathLike[str],
    name: str,
    params: Params,
    stats: Stats,
    num_classes: int,
    preprocessing: Preprocessing,
    options: Mapping[str, Any] | None = None,
    format: str = "native",
) -> None:
    """Writes a file of weights, whole or not at all.

    Of format native, `load` gives the same back, bit for bit. The other formats are for
    torchvision's, timm's and Keras' models, which then compute the same logits from the same
    normalized images. The file does not say how images are normalized.

    Args:
      path: The file: .safetensors; of torchvision and timm .pth or .safetensors, of Keras .h5.
      name: The model.
      params: Parameters of models.create(name, num_classes, **options), float32.
      stats: Its statistics, float32.
      num_classes: Number of logits.
      preprocessing: Preprocessing of its images.
      options: Options of the model.
      format: native | torchvision | timm | keras.

    Raises:
      UserError: If the parameters are not the model's, the library has no model that computes the
        same, or the file cannot be written.

    Example:
      >>> import tempfile
      >>> from cnn_jax import models, pretrained
      >>> model = models.create("perceptron", 10)
      >>> params, stats = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
      >>> preprocessing = pretrained.Preprocessing(crop=8, mean=(0.5,), std=(0.5,))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = f"{folder}/w.safetensors"
      ...     pretrained.save(path, "perceptron", params, stats, 10, preprocessing)
      ...     loaded = pretrained.load("perceptron", path)
      >>> loaded.num_classes, loaded.preprocessing.crop
      (10, 8)

    For other libraries::

      pretrained.save("a.pth", "resnet18", params, stats, 10, preprocessing, format="torchvision")
      # In PyTorch: torchvision.models.resnet18(num_classes=10).load_state_dict(torch.load(...))
      pretrained.save("a.h5", "vgg_d", params, stats, 10, preprocessing, format="keras")
      # In Keras: model.load_weights("a.h5", by_name=True)
    """
    ending = Path(path).suffix
    content = serialize(name, params, stats, num_classes, preprocessing, options, format, ending)
    with explain_os_errors(f"cannot write {path}"):
        write_whole(Path(path), content)


def serialize(
    name: str,
    params: Params,
    stats: Stats,
    num_classes: int,
    preprocessing: Preprocessing,
    options: Mapping[str, Any] | None = None,
    format: str = "native",
    ending: str = ".safetensors",
) -> bytes:
    """Returns the content of the file that `save` writes, which explains the arguments.

    In place of the file's path it takes the ending of its name.

    Raises:
      UserError: If the parameters are not the model's, or the library has no model that computes
        the same.
    """
    if format not in FORMATS:
        raise UserError(f"format={format!r}: choose {' | '.join(FORMATS)}")
    options = dict(options or {})
    shapes = match.list_shapes(name, num_classes, options, preprocessing)
    arrays = {path: np.asarray(leaf) for path, leaf in match.flatten(params, stats).items()}
    for leaf in sorted(shapes.keys() | arrays.keys()):
        given = (arrays[leaf].shape, arrays[leaf].dtype.name) if leaf in arrays else "nothing"
        needed = (shapes[leaf], "float32") if leaf in shapes else "nothing"
        if given != needed:
            raise UserError(
                f"{leaf}: {given}, but {name} with {num_classes} classes and options {options} has"
                f" {needed}"
            )
    if format == "native":
        return _to_native(name, arrays, num_classes, preprocessing, options)
    return _to_format(format, ending, name, arrays, num_classes, options)


def _to_native(
    name: str,
    arrays: dict[str, np.ndarray],
    num_classes: int,
    preprocessing: Preprocessing,
    options: dict[str, Any],
) -> bytes:
    metadata = {
        "name": name,
        "num_classes": num_classes,
        "options": options,
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    return files.to_native_safetensors(arrays, metadata)


def _to_format(
    format: str,
    ending: str,
    name: str,
    arrays: dict[str, np.ndarray],
    num_classes: int,
    options: dict[str, Any],
) -> bytes:
    endings = publish.FORMATS[format][2]
    if ending not in endings:
        raise UserError(f"format={format}: its files end in {' or '.join(endings)}")
    tensors = publish.to_tensors(format, name, arrays, num_classes, options)
    return write_files.WRITERS[ending](tensors)
