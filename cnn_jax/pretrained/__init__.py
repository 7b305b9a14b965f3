"""Public weights of torchvision, timm and Keras for the nets here, files of our own, and what fine-tuning needs."""

import dataclasses
import fnmatch
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_jax import models
from cnn_jax.errors import UserError, nearest
from cnn_jax.files import write_whole
from cnn_jax.layers.initializers import xavier_normal
from cnn_jax.pretrained import download, files, match, names, preprocessing
from cnn_jax.pretrained.match import Place
from cnn_jax.pretrained.preprocessing import Preprocessing

Params = Any


class Pretrained(NamedTuple):
    """Weights, and what belongs to them: models.create(name, num_classes, **options) is the net they are for.

    Attributes:
      params, stats: of that net, float32.
      preprocessing: of the images that it takes: preprocessing.apply(images [B, H, W, 3] uint8).
      options: of models.create, beside num_classes.
      num_classes: logits.
    """

    params: Params
    stats: Any
    preprocessing: Preprocessing
    options: dict[str, Any]
    num_classes: int


def load(name: str, path_or_url: str | os.PathLike[str]) -> Pretrained:
    """Weights of the net `name` of cnn_jax.models, from a file of torchvision, timm, Keras or `save`.

    path_or_url: .safetensors, .pth (no code in it is run), .h5, .weights.h5 or .keras; a URL is downloaded once.
    Raises UserError for a file that cannot be had or read, or whose tensors are not exactly the net's, each of its
    shape; then nothing of it is returned.
    """
    models.find_spec(name)
    path = download.local(path_or_url)
    try:
        weights = files.opened(path)
        return _ours(name, weights) if weights.publisher == files.OURS else _theirs(name, weights, path_or_url)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _theirs(name: str, weights: files.Weights, path_or_url: str | os.PathLike[str]) -> Pretrained:
    publisher, tensors, _ = weights
    plan = names.plan(publisher, name, tensors)
    recipe = _recipe(plan.preprocessing, publisher, path_or_url)
    head = names.theirs(publisher, plan, "fc8/kernel" if name.startswith(("alexnet", "vgg")) else "head/kernel")
    if head not in tensors:
        raise UserError(f"has no tensor {head!r}, the last of {name}; is this a file of {name}, its top included?")
    shape = tensors[head].shape
    if len(shape) != 2 or not all(shape):
        raise UserError(f"tensor {head!r} has shape {shape}; in {name} it is of inputs and classes")
    num_classes = shape[0 if publisher == files.TORCH else 1]
    places = {}
    for path, shape in match.shapes(name, num_classes, plan.options, recipe).items():
        tensor = names.theirs(publisher, plan, path.partition("/")[2])
        if plan.without_scale and path.endswith("/scale"):
            places[path] = Place(None, shape)
        elif publisher == files.TORCH:
            flattened = re.search(r"/(fc6|aux../dense)/kernel$", path)
            ndim = len(tensors[tensor].shape) if tensor in tensors else 0
            places[path] = match.from_torch(tensor, shape, ndim, plan.map_channels if flattened else 0)
        else:
            places[path] = Place(tensor, shape)
    params, stats = match.filled(name, places, tensors, names.UNUSED[publisher])
    return Pretrained(params, stats, recipe, plan.options, num_classes)


def _recipe(recipe: Preprocessing, publisher: str, path_or_url: str | os.PathLike[str]) -> Preprocessing:
    """The publisher's recipe, unless the file's name or timm's config.json beside it tells another."""
    if publisher != files.TORCH:
        return recipe
    if any(f"-{name}." in os.fspath(path_or_url) for name in preprocessing.V2_HASHES):
        return preprocessing.TORCHVISION_V2
    config = download.beside(path_or_url, "config.json")
    if config is None:
        return recipe
    try:
        return preprocessing.of_timm(json.loads(config.read_text()))
    except ValueError as error:  # UserError, and what json raises
        raise UserError(f"{config} {error}; repair it, or move it away") from error


def _ours(name: str, weights: files.Weights) -> Pretrained:
    tuples = lambda given: {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        of, num_classes, recipe, options = (
            weights.told[k] for k in ("name", "num_classes", "preprocessing", "options")
        )
        if of != name:
            raise UserError(f"is of {of!r:.80}, not of {name}")
        recipe, options = Preprocessing(**tuples(recipe)), tuples(options)
        shapes = match.shapes(name, num_classes, options, recipe)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"does not say what it is of as cnn_jax.pretrained.save does: {error}") from error
    places = {path: Place(path, shape) for path, shape in shapes.items()}
    params, stats = match.filled(name, places, weights.tensors, unused=r"(?!)")
    return Pretrained(params, stats, recipe, options, num_classes)


def save(
    path: str | os.PathLike[str],
    name: str,
    params: Params,
    stats: Any,
    num_classes: int,
    preprocessing: Preprocessing,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Writes .safetensors, from which `load(name, path)` gives the same back, bit for bit: whole or not at all.

    params, stats: float32, of models.create(name, num_classes, **options) on images as `preprocessing` makes them.
    Raises UserError where they are not, or the file cannot be written.
    """
    options = dict(options or {})
    shapes = match.shapes(name, num_classes, options, preprocessing)
    arrays = {path: np.asarray(leaf) for path, leaf in match.flat(params, stats).items()}
    for place in sorted(shapes.keys() | arrays.keys()):
        has = (arrays[place].shape, arrays[place].dtype.name) if place in arrays else "nothing"
        wants = (shapes[place], "float32") if place in shapes else "nothing"
        if has != wants:
            raise UserError(f"{place}: {has}, but {name} with {num_classes} classes and options {options} has {wants}")
    told = {
        "name": name,
        "num_classes": num_classes,
        "options": options,
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    try:
        write_whole(Path(path), files.safetensors_bytes(arrays, told))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def replace_head(name: str, params: Params, key: jax.Array, num_classes: int) -> Params:
    """The parameters with a new last layer of so many logits, and new ones of auxiliary heads; the others untouched.

    Weights are N(0, 1 / inputs), biases 0. Use them with models.create(name, num_classes, **options).
    Raises UserError for lenet5, whose last layer is not trained.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    numbered = sorted(filter(_NUMBERED.match, flat), key=lambda path: int(_NUMBERED.match(path)[1]))
    heads = [path for path in flat if _HEAD.search(path)] or numbered[-1:]
    if not heads:
        raise UserError(f"{name} has no head that could be replaced")
    for i, path in enumerate(heads):
        shape = (flat[path].shape[0], num_classes)
        flat[path] = xavier_normal(jax.random.fold_in(key, i), shape, jnp.float32)
        flat[path.replace("kernel", "bias")] = jnp.zeros(num_classes, jnp.float32)
    return traverse_util.unflatten_dict(flat, sep="/")


_HEAD = re.compile(r"(^|/)(head|fc8)/kernel$")
_NUMBERED = re.compile(r"Dense_(\d+)/kernel$")  # of mlp and lenet5_modern, the last of which is the head


def trainable(params: Params, patterns: Sequence[str]) -> Any:
    """True for the parameters whose path fits one of the patterns ("head/*", "stage4_block?/*"), False for the rest.

    Paths are as in "stage4_block1/conv1/kernel", patterns as in fnmatch. Freeze the others with
    optax.multi_transform({True: transformation, False: optax.set_to_zero()}, trainable(...)): optax.masked alone would
    hand them their bare gradients. Raises UserError for a pattern that fits none.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for pattern in patterns:
        if not fnmatch.filter(flat, pattern):
            raise UserError(f"trainable: no parameter fits {pattern!r}; {nearest(pattern, flat)}")
    chosen = {path: any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns) for path in flat}
    return traverse_util.unflatten_dict(chosen, sep="/")
