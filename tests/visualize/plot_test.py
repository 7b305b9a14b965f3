"""The plot functions: what is drawn where, read from the figures' axes."""

import jax
import numpy as np
import pytest
from visualize.gradients_test import make_subject

from cnn_jax import visualize
from cnn_jax.visualize import plot

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def list_images(figure):
    """The arrays that are drawn, row by row."""
    return [[np.asarray(image.get_array()) for image in axes.images] for axes in figure.axes]


def test_maps_lie_over_their_images_and_signed_ones_have_zero_in_the_middle():
    rng = np.random.default_rng(1)
    sizes, signed = rng.random((2, 8, 8)), rng.standard_normal((2, 16, 16, 3))
    figure = plot.plot_maps(PIXELS, {"sizes": sizes, "signed": signed}, ["first", "second"])
    drawn = figure.axes[:6]
    assert [axes.get_title() for axes in drawn[:2]] == ["first", "second"]
    np.testing.assert_array_equal(drawn[1].images[0].get_array(), PIXELS[1])
    np.testing.assert_allclose(drawn[3].images[1].get_array(), sizes[1], rtol=1e-6)
    np.testing.assert_allclose(drawn[4].images[1].get_array(), signed[0].sum(-1), rtol=1e-5)
    for axes, least in ((drawn[2], 0), (drawn[4], -1)):
        low, high = axes.images[1].get_clim()
        assert high > 0 and low == least * high


def test_the_strongest_feature_maps_are_drawn():
    values = np.zeros((1, 4, 4, 12), np.float32)
    values[0, 1, 2, 7], values[0, 0, 0, 3] = 5, 2
    figure = plot.plot_feature_maps({"conv": values, "logits": np.zeros((1, 10))})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["channel 7", "channel 3"] and len(titles) == plot.MAX_CHANNELS
    first, second = (images[0] for images in list_images(figure)[:2])
    assert first[1, 2] == 1 and second[0, 0] == pytest.approx(0.4)


def test_each_result_of_a_model_can_be_drawn(tmp_path):
    model, params, stats, images, _ = given = make_subject()
    weights = (model, params, stats)
    shape = images.shape[1:]
    filters = visualize.find_first_filters(*weights, shape)
    assert len(plot.plot_filters(filters).axes) >= filters.kernels.shape[-1]
    top = visualize.find_top_images(*weights, [images], "conv2", 2)
    fields = visualize.find_receptive_fields(*weights, shape, "conv2")
    drawn = plot.plot_top_images(top, fields, PIXELS, channels=[4, 1])
    assert [axes.get_ylabel() for axes in drawn.axes] == ["channel 4", "", "channel 1", ""]
    rows, columns = fields.find_box(*top.places[1, 0])
    patch = PIXELS[top.images[1, 0]][rows, columns]
    np.testing.assert_array_equal(drawn.axes[2].images[0].get_array(), patch)
    occlusion = visualize.occlude(*given, "conv2")
    axes = plot.plot_occlusion(PIXELS, occlusion).axes
    np.testing.assert_array_equal(axes[4].images[0].get_array(), occlusion.probability[0])
    changes = visualize.measure_invariance(*given, ("conv1",), count=3)
    lines = plot.plot_invariance(changes).axes[1].lines
    np.testing.assert_array_equal(lines[1].get_ydata(), changes[0].probability[1])
    curves = visualize.measure_curves(*given, np.ones((2, 16, 16)), steps=2)
    deletion, insertion = plot.plot_curves({"ones": curves}).axes
    np.testing.assert_allclose(deletion.lines[0].get_ydata(), curves.deletion.mean(0))
    (label,) = [text.get_text() for text in insertion.get_legend().get_texts()]
    assert label == f"ones: {curves.insertion_area.mean():.3f}"
    dreams = visualize.dream(*weights, images, "conv2", jax.random.key(0), steps=1)
    figure = plot.plot_images({"image": PIXELS, "dream": 255 * np.asarray(dreams.images[..., :1])})
    figure.savefig(tmp_path / "figure.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["image", "", "dream", ""]
    projected = {"conv2": np.ones((2, 16, 16, 3))}
    figure = plot.plot_projections(PIXELS, projected, ["a", "b"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "", ""]


def test_likeliest_classes_have_their_own_colors_and_names():
    """Of a thousand classes, those that occur."""
    likeliest = np.array([[[281, 285]], [[281, 287]]])
    quantity = np.ones(likeliest.shape)
    places = np.zeros(2, int)
    occlusion = visualize.Occlusion(quantity, quantity, likeliest, places, places, places, 2)
    names = [f"class {number}" for number in range(1000)]
    axes = plot.plot_occlusion(PIXELS, occlusion, class_names=names).axes
    drawn = [axes[place].images[0] for place in (6, 7)]
    first, second = ([tuple(c) for c in each.to_rgba(each.get_array())[0]] for each in drawn)
    assert first[0] == second[0] and len({*first, *second}) == 3
    shown = [label.get_text() for label in axes[-1].get_yticklabels()]
    assert shown == ["class 281", "class 285", "class 287"]
    many = np.concatenate([np.arange(20), [7] * 9]).reshape(1, 1, -1).repeat(2, 0)
    axes = plot.plot_occlusion(PIXELS, occlusion._replace(likeliest=many)).axes
    shown = [label.get_text() for label in axes[-1].get_yticklabels()]
    assert len(shown) == plot.MAX_CLASSES + 1 and "7" in shown and shown[-1] == "others"
