"""Models as shapes only, which takes no time to compute, and the images that they take."""

import jax

from cnn_jax import models

# {model: side of the smallest images that it takes}
SMALLEST_SIDES = {
    "lenet5": 28, "alexnet": 67, "alexnet_one_tower": 67, "alexnet_half": 67, "alexnet_owt": 63,
    "zfnet": 47, "vgg_a": 32, "vgg_a_lrn": 32, "vgg_b": 32, "vgg_c": 32, "vgg_d": 32, "vgg_e": 32,
}  # fmt: skip


def draw_images(count, side=8):
    """Draws random images [count, side, side, 3]."""
    return jax.random.normal(jax.random.key(1), (count, side, side, 3))


def get_image_shape(name, side=0):
    """Returns [H, W, C] of a model's images, by default of its paper's size."""
    if name == "lenet5":
        return side or 32, side or 32, 1
    return (*(side or (227 if name.startswith("alexnet") else 224),) * 2, 3)


def make_abstract(name, classes=10, side=0, **options):
    """Returns the model, and the shapes of its parameters, of its statistics and of an image."""
    model = models.create(name, classes, **options)
    image = jax.ShapeDtypeStruct((1, *get_image_shape(name, side)), "float32")
    return model, *jax.eval_shape(model.init, jax.random.key(0), image), image


def count_layer_parameters(params):
    """Returns {layer: number of parameters}."""
    return {
        layer: sum(leaf.size for leaf in jax.tree.leaves(tree)) for layer, tree in params.items()
    }
