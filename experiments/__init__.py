"""STUDIES: every study by its name, a function (preset) -> Study. Making one imports no JAX."""

from collections.abc import Callable

from cnn_jax.config import Study
from experiments import resnet_degradation

STUDIES: dict[str, Callable[[str], Study]] = {
    "resnet_degradation": resnet_degradation.cifar,
    "resnet_degradation_imagenet": resnet_degradation.imagenet,
}

# What a study costs: name -> preset -> words for --list.
COSTS: dict[str, dict[str, str]] = {
    "resnet_degradation": resnet_degradation.CIFAR_COST,
    "resnet_degradation_imagenet": resnet_degradation.IMAGENET_COST,
}
