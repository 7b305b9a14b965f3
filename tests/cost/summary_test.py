"""Summaries of models: the papers' own figures, layer by layer, and counts that agree with the
traced program's.
"""

import time

import pytest
from helpers import published_counts

from cnn_jax import models
from cnn_jax.cost import summary, traced_counts


@pytest.fixture(scope="module")
def totals():
    return {
        name: summary.summarize_model(name).total for name in models.MODELS if name != "resnet1202"
    }


def test_totals_match_the_papers(totals):
    parameters = {
        name: n for name, n in published_counts.count_without_heads().items() if name in totals
    }
    assert {name: totals[name].parameters for name in parameters} == parameters
    for name, (printed, share) in published_counts.MULTIPLY_ADDS.items():
        assert totals[name].multiply_adds == pytest.approx(printed, rel=share), name


# LeNet-5's C3 is computed with all 96 kernels, of which its table connects 60; the rest are zero.
@pytest.mark.parametrize(
    "name", ["alexnet", "googlenet_bn", "resnet20", "vgg_c", "lenet5_modern", "lenet5", "mlp"]
)
def test_the_layers_sum_to_the_program_s_multiply_adds(totals, name):
    model = models.create(
        name, **({"aux_heads": False} if "aux_heads" in models.list_options(name) else {})
    )
    zeros = 10 * 10 * 25 * (96 - 60) if name == "lenet5" else 0
    assert totals[name].multiply_adds + zeros == traced_counts.count_multiply_adds(
        model, totals[name].image
    )
    assert totals[name].parameters == traced_counts.count_parameters(model, totals[name].image)


def rows(name, **at):
    return {row.name: row for row in summary.summarize_model(name, **at).layers}


def test_lenet5_matches_the_paper_s_table():
    layers = rows("lenet5")
    assert [(row.name, row.output, row.parameters) for row in layers.values()] == [
        ("c1", (28, 28, 6), 156), ("s2", (14, 14, 6), 12), ("c3", (10, 10, 16), 1_516),
        ("s4", (5, 5, 16), 32), ("c5", (1, 1, 120), 48_120), ("f6", (84,), 10_164),
        ("output", (10,), 0),
    ]  # fmt: skip
    assert (
        layers["c3"].multiply_adds == 10 * 10 * 60 * 25
        and layers["s2"].activation_bytes == 4 * 14 * 14 * 6
    )


def test_alexnet_matches_the_paper_s_table():
    layers = rows("alexnet")
    assert [(row.name, row.output, row.kernel, row.parameters) for row in layers.values()] == [
        ("conv1", (55, 55, 96), "11x11/4", 34_944), ("lrn1", (55, 55, 96), "", 0),
        ("pool1", (27, 27, 96), "3x3/2", 0), ("conv2", (27, 27, 256), "5x5, 2 groups", 307_456),
        ("lrn2", (27, 27, 256), "", 0), ("pool2", (13, 13, 256), "3x3/2", 0),
        ("conv3", (13, 13, 384), "3x3", 885_120),
        ("conv4", (13, 13, 384), "3x3, 2 groups", 663_936),
        ("conv5", (13, 13, 256), "3x3, 2 groups", 442_624), ("pool5", (6, 6, 256), "3x3/2", 0),
        ("fc6", (4096,), "", 37_752_832), ("fc7", (4096,), "", 16_781_312),
        ("fc8", (1000,), "", 4_097_000),
    ]  # fmt: skip
    assert layers["conv1"].multiply_adds == 105_415_200
    assert layers["fc8"].multiply_adds == 4096 * 1000


def test_another_image_size_changes_the_counts():
    small, whole = rows("vgg_d", image_size=64), rows("vgg_d")
    assert (
        small["conv1_1"].output == (64, 64, 64)
        and small["fc6"].parameters == 2 * 2 * 512 * 4096 + 4096
    )
    assert small["conv5_3"].parameters == whole["conv5_3"].parameters


@pytest.mark.parametrize(
    "count",
    [c for c in published_counts.PARAMETERS if "shortcut" in c.options],
    ids=published_counts.label,
)
def test_options_are_counted_too(count):
    assert summary.summarize_model(count.net, **count.options).total.parameters == count.parameters


def test_a_table_lines_up():
    lines = summary.format_costs(summary.summarize_model("lenet5").layers).splitlines()
    assert lines[0].split() == [
        "name",
        "layer",
        "output",
        "kernel",
        "parameters",
        "multiply-adds",
        "activation-bytes",
    ]
    assert "10x10x16" in lines[3] and "1,516" in lines[3]
    assert len({line.index("  5x5  ") for line in lines if "  5x5  " in line}) == 1


# One model of each family with equal blocks, which are traced once.
@pytest.mark.parametrize(
    "name", ["resnet50", "plain44", "inception_v3", "bn_inception", "googlenet", "autoencoder"]
)
def test_equal_blocks_are_all_counted(name):
    """Compared with the traced program, which has no blocks."""
    shape, classes = models.get_paper_input(name)
    options = {"aux_heads": False} if "aux_heads" in models.list_options(name) else {}
    model = models.create(name, classes, **options)
    layers = summary.list_layers(model, shape)
    assert sum(layer.multiply_adds for layer in layers) == traced_counts.count_multiply_adds(
        model, shape
    )
    assert sum(layer.parameters for layer in layers) == traced_counts.count_parameters(model, shape)
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)


def test_auxiliary_heads_are_counted():
    """Their parameters are trained, but a forward pass in evaluation does not run them."""
    shape, classes = models.get_paper_input("googlenet")
    counts = summary.count_model("googlenet", classes, shape)
    model = models.create("googlenet", classes)
    assert counts.parameters == traced_counts.count_parameters(model, shape)
    assert counts.multiply_adds == traced_counts.count_multiply_adds(model, shape)


def test_equal_requests_are_computed_once(monkeypatch):
    first = summary.count_model("resnet20", 7, (32, 32, 3), width=0.5)
    monkeypatch.setattr(summary, "list_layers", None)  # Loading would raise.
    assert summary.count_model("resnet20", 7, (32, 32, 3), width=0.5) == first
    with pytest.raises(TypeError):
        summary.count_model("resnet20", 8, (32, 32, 3), width=0.5)


def test_counting_every_model_takes_seconds():
    """At most 8 seconds on one core, including ResNet-1202; nothing is compiled."""
    summary._list_layers_once.cache_clear()
    begin = time.process_time()
    totals, left_out = summary.summarize_all()
    assert len(totals) == len(models.MODELS) and not left_out
    assert time.process_time() - begin < 8
    assert "resnet1202" in summary.format_costs(totals)


def test_models_that_cannot_take_an_image_size_are_named():
    totals, left_out = summary.summarize_all(image_size=32)
    assert "vgg_a" in {total.name for total in totals}
    assert any("inception_v3" in words for words in left_out)


def test_a_summary_ends_with_the_deviations():
    text = summary.format_summary(summary.summarize_model("lenet5"), ["it is ours"])
    assert text.endswith("\n\nDiffers from the paper:\n  it is ours")
    assert "60,000" in text and "c3" in text
