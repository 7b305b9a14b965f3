"""Synthesized images: of the classes, DeepDream, and inversions of codes."""

import jax
import jax.numpy as jnp

from cnn_jax import visualize
from cnn_jax.report.elements import Part
from cnn_jax.visualize import plot
from cnn_jax.visualize.page.context import Context, make_figure, shorten
from cnn_jax.visualize.page.inside import spread_layers, to_pixels

MAX_CLASSES, MAX_IMAGES = 10, 4


def draw_classes(context: Context) -> list[Part]:
    """Draws an image of each class for which its logit is large."""
    context.require_classes()
    count = min(MAX_CLASSES, context.subject.num_classes)
    labels = jnp.arange(count, dtype=jnp.int32)
    found = visualize.maximize_class(
        *context.given, labels, context.subject.image_shape, context.key
    )
    shares = visualize.compute_probabilities(*context.given, found.images)
    titles = [f"{shorten(context.name_class(i))}\n{float(shares[i, i]):.0%}" for i in range(count)]
    pixels = to_pixels(context, found.images)
    caption = (
        "Images for which the class's logit is large, made from noise by gradient ascent with"
        " jitter, blur and total variation (after Simonyan et al. 2013, Sec. 2); beside each class"
        " its probability."
    )
    return [
        make_figure(
            "Class maximization",
            caption,
            "maximize.png",
            lambda: plot.plot_images({"": pixels}, titles),
        )
    ]


def draw_dreams(context: Context) -> list[Part]:
    """Draws images changed so that a layer is more active."""
    layers = [context.layer] if context.layer else spread_layers(context.spatial, 3)[1:]
    x = context.x[:MAX_IMAGES]
    rows = {"image": context.images.pixels[:MAX_IMAGES]}
    for layer in layers:
        found = visualize.dream(*context.given, x, layer, context.key)
        rows[layer] = to_pixels(context, found.images)
    caption = (
        "Images, and the same after gradient ascent of the mean square of a layer's activations"
        " (Mordvintsev et al. 2015)."
    )
    return [make_figure("DeepDream", caption, "dream.png", lambda: plot.plot_images(rows))]


def draw_inversions(context: Context) -> list[Part]:
    """Draws images that have the same codes as the given ones."""
    layers = spread_layers(list(context.layers), 4)
    x = context.x[:MAX_IMAGES]
    rows, titles = {"image": context.images.pixels[:MAX_IMAGES]}, [""] * len(x)
    for number, layer in enumerate(layers):
        key = jax.random.fold_in(context.key, number)
        found = visualize.invert(*context.given, x, layer, key)
        rows[layer] = to_pixels(context, found.images)
        titles += [f"error {float(error):.2f}" for error in found.objective]
    caption = (
        "Images made from noise so that a layer's code is that of the image above, with total"
        " variation (after Mahendran, Vedaldi 2015); error: the distance of the codes over the"
        " code's norm."
    )
    return [make_figure("Inversion", caption, "invert.png", lambda: plot.plot_images(rows, titles))]
