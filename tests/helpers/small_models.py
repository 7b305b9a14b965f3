"""A residual network that compiles in seconds, for tests of what surrounds a model."""

import functools

from cnn_jax import models
from cnn_jax.models import resnet

OPTIONS = {"blocks": (1, 1), "channels": (4, 8)}


def register(monkeypatch):
    """Adds the model `two_blocks` - two blocks, batch norm, a projection - to MODELS for a test."""
    if hasattr(models, "ModelSpec"):
        spec = models.ModelSpec(resnet.ResNet, OPTIONS, input_shape=(32, 32, 3), num_classes=10)
    else:
        spec = functools.partial(resnet.ResNet, **OPTIONS)
    monkeypatch.setitem(models.MODELS, "two_blocks", spec)
