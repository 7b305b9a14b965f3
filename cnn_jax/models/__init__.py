"""MODELS, every net by its name, and create(name, num_classes, **options) -> Model(init, apply)."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from cnn_jax.config import UserError, nearest
from cnn_jax.models import resnet
from cnn_jax.models.lenet import LenetModern
from cnn_jax.models.mlp import ACTIVATIONS, Mlp

Params, Stats = Any, Any


class Model(NamedTuple):
    """A net as two pure functions; batch norm, dropout and the like are hidden behind them."""

    init: Callable[[jax.Array, jax.Array], tuple[Params, Stats]]  # (key, images) -> (params, stats)
    # (params, stats, images [B, H, W, C], train, key) -> (logits [B, classes], stats)
    apply: Callable[..., tuple[jax.Array, Stats]]


_cifar, _imagenet = resnet.cifar, resnet.imagenet
_basic, _bottleneck = resnet.Basic, resnet.Bottleneck

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": Mlp,
    "lenet5_modern": LenetModern,
    # CIFAR nets: He et al. 2015, Sec. 4.2
    "resnet20": functools.partial(_cifar, 20),
    "resnet32": functools.partial(_cifar, 32),
    "resnet44": functools.partial(_cifar, 44),
    "resnet56": functools.partial(_cifar, 56),
    "resnet110": functools.partial(_cifar, 110),
    "resnet1202": functools.partial(_cifar, 1202),
    "plain20": functools.partial(_cifar, 20, shortcut=resnet.PLAIN),
    "plain32": functools.partial(_cifar, 32, shortcut=resnet.PLAIN),
    "plain44": functools.partial(_cifar, 44, shortcut=resnet.PLAIN),
    "plain56": functools.partial(_cifar, 56, shortcut=resnet.PLAIN),
    "plain110": functools.partial(_cifar, 110, shortcut=resnet.PLAIN),
    # ImageNet nets: He et al. 2015, Table 1
    "resnet18": functools.partial(_imagenet, (2, 2, 2, 2), _basic),
    "resnet34": functools.partial(_imagenet, (3, 4, 6, 3), _basic),
    "resnet50": functools.partial(_imagenet, (3, 4, 6, 3), _bottleneck),
    "resnet101": functools.partial(_imagenet, (3, 4, 23, 3), _bottleneck),
    "resnet152": functools.partial(_imagenet, (3, 8, 36, 3), _bottleneck),
    "plain18": functools.partial(_imagenet, (2, 2, 2, 2), _basic, shortcut=resnet.PLAIN),
    "plain34": functools.partial(_imagenet, (3, 4, 6, 3), _basic, shortcut=resnet.PLAIN),
}


def create(name: str, num_classes: int, axis: str | None = None, **options: Any) -> Model:
    """The named net. Options left out or None are as the net's paper has them.

    axis: the pmapped axis over which the batch is split, if it is (batch norm needs to know).
    Raises UserError for an unknown name, or an option that the net does not have.
    """
    if name not in MODELS:
        raise UserError(f"model {name!r}: no such net; {nearest(name, MODELS)}")
    options = {option: value for option, value in options.items() if value is not None}
    if unknown := [option for option in options if option not in known_options(name)]:
        raise UserError(f"model.{unknown[0]}: {name} has no such option; {nearest(unknown[0], known_options(name))}")
    for option, choices in {"shortcut": resnet.SHORTCUTS, "activation": tuple(ACTIVATIONS)}.items():
        if option in options and options[option] not in choices:
            raise UserError(f"model.{option}={options[option]!r}: choose {', '.join(choices)}")
    if axis and "axis" in known_options(name):
        options["axis"] = axis
    net = MODELS[name](num_classes=num_classes, **options)

    def init(key: jax.Array, images: jax.Array) -> tuple[Params, Stats]:
        # On zeros, operation by operation: a block's are compiled once, so that not even ResNet-1202 takes long.
        variables = net.lazy_init(key, jax.ShapeDtypeStruct(images.shape, images.dtype), train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, stats: Stats, images: jax.Array, train: bool = False, key: jax.Array | None = None
    ) -> tuple[jax.Array, Stats]:
        variables = {"params": params, "batch_stats": stats}
        if not train:
            return net.apply(variables, images, train=False), stats
        rngs = None if key is None else {"dropout": key}
        logits, moved = net.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return logits, moved.get("batch_stats", {})

    return Model(init, apply)


def known_options(name: str) -> list[str]:
    """The options of a net beside num_classes."""
    made = MODELS[name]
    family = getattr(made, "func", made)
    fields = inspect.signature(resnet.ResNet if family in (_cifar, _imagenet) else family).parameters
    fixed = {"num_classes", "parent", "name", "blocks", "maps", "block", "imagenet_stem"}
    if name.startswith("plain"):
        fixed.add("shortcut")
    return [field for field in fields if field not in fixed]
