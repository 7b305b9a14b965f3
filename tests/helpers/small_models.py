"""A residual network that compiles in seconds, for tests of everything but models."""

from cnn_jax import models
from cnn_jax.models import resnet

TWO_BLOCKS = models.ModelSpec(
    resnet.ResNet,
    {"blocks": (1, 1), "channels": (4, 8)},
    input_shape=(32, 32, 3),
    num_classes=10,
)


def register(monkeypatch):
    """Adds the model `two_blocks` to MODELS for a test: two blocks, batch norm, a projection."""
    monkeypatch.setitem(models.MODELS, "two_blocks", TWO_BLOCKS)
