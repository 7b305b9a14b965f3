"""Prefixes that a wrapper around a PyTorch model adds to the names of its tensors."""

from collections.abc import Mapping

from cnn_jax.pretrained.tensor import Tensor

# DataParallel, DistributedDataParallel and AveragedModel; torch.compile; Lightning and many a
# trainer.
PREFIXES = ("module.", "_orig_mod.", "model.")
COUNTER = "n_averaged"  # AveragedModel counts its updates beside the tensors.


def strip_prefix(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Removes the prefixes that wrappers add to every tensor's name, in any order.

    Args:
      tensors: By name.

    Returns:
      The tensors by their names in the model, and the prefix; empty if there is none. Without a
      prefix, nothing is changed.
    """
    prefix = ""
    stripped = dict(tensors)
    while True:
        names = [name for name in stripped if name != COUNTER]
        found = next((p for p in PREFIXES if names and all(n.startswith(p) for n in names)), None)
        if found is None:
            return (stripped, prefix) if prefix else (dict(tensors), "")
        stripped = {name.removeprefix(found): stripped[name] for name in names}
        prefix += found
