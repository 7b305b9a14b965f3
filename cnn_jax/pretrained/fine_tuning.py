"""What fine-tuning needs: a new head, and which parameters are trained."""

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from cnn_jax.errors import UserError, suggest_names
from cnn_jax.layers.initializers import xavier_normal

_HEAD = re.compile(r"(^|/)(head|fc8|fc10|output)/kernel$")
# Of mlp and lenet5_modern, where the last one is the head.
_NUMBERED = re.compile(r"Dense_(\d+)/kernel$")


def replace_head(name: str, params: Any, key: jax.Array, num_classes: int) -> Any:
    """Returns parameters with a new last layer, and new last layers of auxiliary heads.

    Weights are N(0, 1 / inputs), biases 0; all others are untouched. Use the result with
    models.create(name, num_classes, **options).

    Args:
      name: The model.
      params: Its parameters.
      key: Random key of the new weights.
      num_classes: Logits of the new layer.

    Raises:
      UserError: For lenet5, whose last layer is not trained, and for autoencoders.

    Example:
      >>> params = {"head": {"kernel": jnp.ones((512, 1000)), "bias": jnp.ones(1000)}}
      >>> replace_head("resnet18", params, jax.random.key(0), 5)["head"]["kernel"].shape
      (512, 5)
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    numbers = {path: int(found[1]) for path in flat if (found := _NUMBERED.match(path))}
    heads = [path for path in flat if _HEAD.search(path)]
    if not heads and numbers:
        heads = [max(numbers, key=numbers.__getitem__)]
    if not heads:
        raise UserError(f"{name} has no head that could be replaced")
    for i, path in enumerate(heads):
        shape = (flat[path].shape[0], num_classes)
        flat[path] = xavier_normal(jax.random.fold_in(key, i), shape, jnp.float32)
        flat[path.replace("kernel", "bias")] = jnp.zeros(num_classes, jnp.float32)
    return traverse_util.unflatten_dict(flat, sep="/")


def make_trainable_mask(params: Any, patterns: Sequence[str]) -> Any:
    """Returns a tree of the parameters' form: True for those that are trained.

    Freeze the others with
    optax.multi_transform({True: optimizer, False: optax.set_to_zero()}, mask). optax.masked alone
    would hand them their bare gradients.

    Args:
      params: The parameters.
      patterns: Of paths such as "stage4_block1/conv1/kernel", as in fnmatch: "head/*",
        "stage4_block?/*".

    Raises:
      UserError: If a pattern fits no parameter.

    Example:
      >>> make_trainable_mask({"stem": {"kernel": 1}, "head": {"kernel": 2}}, ["head/*"])
      {'stem': {'kernel': False}, 'head': {'kernel': True}}
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        if not fnmatch.filter(flat, pattern):
            raise UserError(
                f"trainable: no parameter fits {pattern!r}; {suggest_names(pattern, flat)}"
            )
    mask = {path: any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns) for path in flat}
    return traverse_util.unflatten_dict(mask, sep="/")
