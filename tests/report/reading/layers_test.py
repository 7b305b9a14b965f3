"""Statistics of layers in reports: read strictly, and drawn against depth and training."""

import dataclasses
import json

import matplotlib
import numpy as np
import pytest
from helpers.report_folders import read_folder, write_run, write_study

from cnn_jax.report import export, figures, parts
from cnn_jax.report.claims import ABOVE_ZERO, Claim, measure_seeds, measure_values
from cnn_jax.report.verdicts import judge


def make_layer(name, kind="Dense", std=1.0, **more):
    spread = {"mean": 0.5, "std": std, "low": -1.0, "high": 1.0, "counts": [1, 3]}
    gradients = {f"grad_{key}": value for key, value in spread.items()} | {"grad_std": 2 * std}
    return (
        {"layer": name, "kind": kind, "units": [[0, 1, 2], [3, 4, None]]}
        | spread
        | gradients
        | more
    )


def write_layers(place, *lines):
    text = "".join(json.dumps({"step": s, "layers": layers}) + "\n" for s, layers in lines)
    (place / "layers.jsonl").write_text(text)


def first_layers(std):
    return [
        make_layer("Dense_0"),
        make_layer("act", "relu", std, saturated=0.25, dead=0.5),
        make_layer("Dense_1"),
        make_layer("act2", "relu", std / 10, saturated=0.75, dead=0.0),
    ]


@pytest.fixture
def folder(tmp_path):
    write_study(tmp_path, "a", "b", seeds=2)
    for name, scale in (("a", 1.0), ("b", 3.0)):
        for seed in (0, 1):
            place = write_run(tmp_path, name, seed, (0.5,), (0.5,))
            std = scale * (1 + seed)
            write_layers(place, (0, first_layers(std)), (300, first_layers(2 * std)))
    return tmp_path


def test_layers_are_read(folder):
    run = read_folder(folder).runs["b"][1]
    assert list(run.layers) == [0, 300] and len(run.layers[0]) == 4
    layer = run.layers[0][1]
    assert (layer.name, layer.kind, layer.saturated, layer.dead) == ("act", "relu", 0.25, 0.5)
    assert (layer.values.std, layer.gradients.std, layer.values.counts) == (6.0, 12.0, (1, 3))
    assert layer.units[0] == (0, 1, 2) and np.isnan(layer.units[1][2])
    assert run.layers[0][0].saturated is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda layer: layer.pop("kind"),
        lambda layer: layer.update(std="1"),
        lambda layer: layer.update(low=None),
        lambda layer: layer.update(counts=[1.5]),
        lambda layer: layer.update(units=[[1, 2]]),
        lambda layer: layer.update(dead="none"),
    ],
)
def test_a_damaged_line_is_left_out_and_named(damage, folder):
    layers = first_layers(1.0)
    damage(layers[1])
    write_layers(folder / "a" / "seed0", (0, layers), (300, first_layers(1.0)))
    results = read_folder(folder)
    assert list(results.runs["a"][0].layers) == [300]
    assert results.problems == ("a/seed0/layers.jsonl: 1 damaged line(s) ignored",)


def test_the_layers_are_kept_with_the_results(folder, tmp_path):
    from helpers.report_folders import FakeStudy

    export.export(folder, tmp_path / "out", FakeStudy())
    kept = read_folder(tmp_path / "out")
    assert kept.compact
    # As text, because a percentile that is not a number equals none.
    assert str(kept.runs["a"][1].layers) == str(read_folder(folder).runs["a"][1].layers)


def drawn_lines(part):
    """{(chart, label): (x, y)} of a figure's lines."""
    seen = {}
    original = figures.write_png

    def keep(draw):
        with figures.use_style():
            drawing = draw()
        for axes in drawing.axes:
            for line in axes.get_lines():
                place = (axes.get_title(), line.get_label())
                seen[place] = (list(line.get_xdata()), list(line.get_ydata()))
        return original(draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_png", keep)
        png = part.png()
    assert png.startswith(b"\x89PNG") and all(svg.startswith("<svg") for svg in part.svgs())
    return seen


def test_deviations_by_depth_are_means_over_seeds(folder):
    results = read_folder(folder)
    lines = drawn_lines(parts.layer_stds(results, {"a": "A", "b": "B"}, 0, "caption"))
    # Seeds 1 and 2 times the scale, the second activation a tenth; gradients twice as much.
    assert lines["activations", "A"] == ([1, 2], [1.5, pytest.approx(0.15)])
    assert lines["activations", "B"][1][0] == 4.5
    assert lines["gradients of the loss", "A"][1][0] == 3.0
    assert parts.layer_stds(results, {"a": "A"}, 7, "caption") is None


def test_shares_over_training(folder):
    lines = drawn_lines(
        parts.shares_over_training(read_folder(folder), {"a": "A"}, "saturated", "caption")
    )
    assert lines["A", "layer 1"] == ([0, 300], [25, 25])
    assert lines["A", "layer 2"] == ([0, 300], [75, 75])


def test_histograms_are_densities(folder):
    part = parts.layer_histograms(read_folder(folder), {"a": "A"}, 0, "c", ("values", "gradients"))
    heights, original = [], matplotlib.axes.Axes.stairs

    def stairs(axes, values, edges, **more):
        heights.append((values, edges))
        return original(axes, values, edges, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.axes.Axes, "stairs", stairs)
        assert part.png()
    # Counts 1 and 3 in bins of width 1: of two activations, values and gradients.
    assert heights == [([0.25, 0.75], [-1.0, 0.0, 1.0])] * 4
    assert parts.layer_histograms(read_folder(folder), {"a": "A"}, 7, "c") is None


def test_a_figure_computed_for_each_seed_has_student_s_interval(folder):
    def compute(runs):
        first, second = (runs[name].layers[0][1].values.std for name in ("a", "b"))
        return second - first

    results = read_folder(folder)
    measured = measure_seeds(results, ("a", "b"), compute)
    # 2 and 4: mean 3, standard error 1, t of one degree of freedom 12.706.
    assert measured.value == 3 and measured.seeds == 2 and measured.runs == ("a", "b")
    assert measured.over_seeds == pytest.approx((3 - 12.706, 3 + 12.706), abs=1e-2)
    claim = Claim("b is wider", lambda results: measured, ABOVE_ZERO)
    assert judge(results, claim).verdict == "undecided"
    assert measure_seeds(results, ("a",), lambda runs: None).value is None
    assert measure_values([1.0, 1.1, 1.2]).over_seeds[0] > 0.8


def test_a_seed_that_diverged_is_not_left_out_of_a_mean(folder):
    results = read_folder(folder)
    lost = dataclasses.replace(
        results.runs["b"][1], diverged=7, failed_at=7, state="diverged at step 7"
    )
    results = dataclasses.replace(results, runs=results.runs | {"b": (results.runs["b"][0], lost)})
    known = {0: 1.0, 1: None}
    measured = measure_seeds(results, ("a", "b"), lambda runs: known[runs["b"].seed])
    assert measured.value is None and measured.why == "b seed 1 diverged at step 7"
    # Where a divergence has a value of its own, it counts.
    assert measure_seeds(results, ("a", "b"), lambda runs: 1.0).seeds == 2
