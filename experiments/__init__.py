"""STUDIES: every study by its name, a function (preset) -> Study. Making one imports no JAX."""

from collections.abc import Callable

from cnn_jax.study import Study

from . import (
    activations,
    alexnet_towers,
    augmentation,
    batch_norm,
    boolean_functions,
    conv_arithmetic,
    image_retrieval,
    inception_ablation,
    initialization,
    kernel_size,
    locality,
    lrn,
    lrn_cifar10,
    mnist_methods,
    pooling,
    resnet_degradation,
    ten_crop,
    vgg_scale_jitter,
    zfnet_ablation,
)

STUDIES: dict[str, Callable[[str], Study]] = {
    "resnet_degradation": resnet_degradation.cifar,
    "resnet_degradation_imagenet": resnet_degradation.imagenet,
    "vgg_scale_jitter": vgg_scale_jitter.study,
    "lrn": lrn.study,
    "ten_crop": ten_crop.study,
    "conv_arithmetic": conv_arithmetic.study,
    "boolean_functions": boolean_functions.study,
    "batch_norm": batch_norm.study,
    "activations": activations.study,
    "initialization": initialization.study,
    "image_retrieval": image_retrieval.study,
    "mnist_methods": mnist_methods.study,
    "kernel_size": kernel_size.study,
    "locality": locality.study,
    "pooling": pooling.study,
    "augmentation": augmentation.study,
    "lrn_cifar10": lrn_cifar10.study,
    "alexnet_towers": alexnet_towers.study,
    "inception_ablation": inception_ablation.study,
    "zfnet_ablation": zfnet_ablation.study,
}

# What a study costs: name -> preset -> words for --list.
COSTS: dict[str, dict[str, str]] = {
    "resnet_degradation": resnet_degradation.CIFAR_COST,
    "resnet_degradation_imagenet": resnet_degradation.IMAGENET_COST,
    "vgg_scale_jitter": vgg_scale_jitter.COST,
    "lrn": lrn.COST,
    "ten_crop": ten_crop.COST,
    "conv_arithmetic": conv_arithmetic.COST,
    "boolean_functions": boolean_functions.COST,
    "batch_norm": batch_norm.COST,
    "activations": activations.COST,
    "initialization": initialization.COST,
    "image_retrieval": image_retrieval.COST,
    "mnist_methods": mnist_methods.COST,
    "kernel_size": kernel_size.COST,
    "locality": locality.COST,
    "pooling": pooling.COST,
    "augmentation": augmentation.COST,
    "lrn_cifar10": lrn_cifar10.COST,
    "alexnet_towers": alexnet_towers.COST,
    "inception_ablation": inception_ablation.COST,
    "zfnet_ablation": zfnet_ablation.COST,
}
