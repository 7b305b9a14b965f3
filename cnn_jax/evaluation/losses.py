"""The loss and the error of each image, from a model's outputs."""

import jax
import jax.numpy as jnp
import optax

from cnn_jax.models import Model

Outputs = jax.Array | tuple[jax.Array, ...]


def compute_cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Returns the softmax cross-entropy [B] in nats.

    Args:
      logits: [B, classes].
      labels: [B] int32.
      smoothing: Share of each label that is spread evenly over all classes, its own among them
        (Szegedy et al. 2015, arXiv:1512.00567, Sec. 7).
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return loss
    return (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(logits).mean(-1)


def compute_top1_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns whether the highest logit is not the label's, [B] bool.

    The first of equal logits is the answer. Logits that are not finite hold no answer and count as
    wrong (argmax would name the first NaN).

    Args:
      logits: [B, classes].
      labels: [B] int32.
    """
    return (jnp.argmax(logits, -1) != labels) | ~jnp.isfinite(logits).all(-1)


def compute_loss_and_error(
    model: Model,
    outputs: Outputs,
    images: jax.Array,
    labels: jax.Array,
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss [B] and the error [B] of a model's outputs.

    Args:
      model: The model. If it has a `score` function, that function returns the loss and the error.
      outputs: Logits [B, classes]. In training a model with auxiliary heads returns a tuple, whose
        first item is its main logits. The losses of the other heads are added, weighted by
        `model.aux_weight`; the error is that of the main logits.
      images: The model's inputs, [B, H, W, C].
      labels: [B] int32.
      label_smoothing: `smoothing` of `compute_cross_entropy`.
    """
    if model.score:
        return model.score(outputs, images, labels)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = compute_cross_entropy(logits, labels, label_smoothing)
    for head in auxiliary:
        loss += model.aux_weight * compute_cross_entropy(head, labels, label_smoothing)
    return loss, compute_top1_error(logits, labels)
