"""Old names of what lies in `cnn_jax.trained` and in `codes`."""

from cnn_jax.evaluation.retrieval.codes import find_layer
from cnn_jax.trained import UNTRAINED, TrainedModel, load_run, load_weights

__all__ = ["UNTRAINED", "TrainedModel", "find_layer", "load_run", "load_weights"]
