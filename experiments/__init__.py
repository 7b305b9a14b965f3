"""STUDIES: every study by its name, a function (preset) -> Study. Making one imports no JAX."""

from collections.abc import Callable

from cnn_jax.study import Study

from . import (
    augmentation,
    conv_arithmetic,
    image_retrieval,
    kernel_size,
    locality,
    lrn,
    mnist_methods,
    pooling,
    resnet_degradation,
    ten_crop,
    vgg_scale_jitter,
)

STUDIES: dict[str, Callable[[str], Study]] = {
    "resnet_degradation": resnet_degradation.cifar,
    "resnet_degradation_imagenet": resnet_degradation.imagenet,
    "vgg_scale_jitter": vgg_scale_jitter.study,
    "lrn": lrn.study,
    "ten_crop": ten_crop.study,
    "conv_arithmetic": conv_arithmetic.study,
    "image_retrieval": image_retrieval.study,
    "mnist_methods": mnist_methods.study,
    "kernel_size": kernel_size.study,
    "locality": locality.study,
    "pooling": pooling.study,
    "augmentation": augmentation.study,
}

# What a study costs: name -> preset -> words for --list.
COSTS: dict[str, dict[str, str]] = {
    "resnet_degradation": resnet_degradation.CIFAR_COST,
    "resnet_degradation_imagenet": resnet_degradation.IMAGENET_COST,
    "vgg_scale_jitter": vgg_scale_jitter.COST,
    "lrn": lrn.COST,
    "ten_crop": ten_crop.COST,
    "conv_arithmetic": conv_arithmetic.COST,
    "image_retrieval": image_retrieval.COST,
    "mnist_methods": mnist_methods.COST,
    "kernel_size": kernel_size.COST,
    "locality": locality.COST,
    "pooling": pooling.COST,
    "augmentation": augmentation.COST,
}
