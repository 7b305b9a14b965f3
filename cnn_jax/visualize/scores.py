"""Scores to differentiate: one number for each image, from a model's outputs."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.models import Model

ScoreName = Literal["logit", "log_probability", "probability"]
SCORES: tuple[ScoreName, ...] = ("logit", "log_probability", "probability")


def score_outputs(
    model: Model, outputs: jax.Array, images: jax.Array, labels: jax.Array, score: ScoreName
) -> jax.Array:
    """Returns the score of each image's class, [B].

    A model without classes, such as the autoencoder, has minus the loss of its rebuilt image as
    its score, whichever score is named.

    Args:
      model: The model.
      outputs: Outputs of the model: logits [B, classes], or rebuilt images [B, H, W, C].
      images: What the model was given, [B, H, W, C].
      labels: [B] int, the class that each image is scored for.
      score: logit: the class's output | log_probability and probability: after the softmax.

    Raises:
      UserError: If there is no such score.
    """
    if score not in SCORES:
        raise UserError(f"score={score}: choose {', '.join(SCORES)}")
    if not has_classes(outputs):
        assert model.score is not None
        return -model.score(outputs, jax.lax.stop_gradient(images), labels)[0]
    if score != "logit":
        outputs = jax.nn.log_softmax(outputs)
    chosen = jnp.take_along_axis(outputs, labels[:, None], axis=1)[:, 0]
    return jnp.exp(chosen) if score == "probability" else chosen


def has_classes(outputs: Any) -> bool:
    """Returns whether outputs, or their shapes, are logits [B, classes]."""
    return len(outputs.shape) == 2
