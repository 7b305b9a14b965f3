"""Public weights of torchvision, timm and Keras, files of our own, and fine-tuning."""

from cnn_jax.pretrained.fine_tuning import make_trainable_mask, replace_head
from cnn_jax.pretrained.preprocessing import Preprocessing
from cnn_jax.pretrained.weights import Pretrained, load, save

__all__ = [
    "Preprocessing",
    "Pretrained",
    "load",
    "make_trainable_mask",
    "replace_head",
    "save",
]
