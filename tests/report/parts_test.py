"""Parts of reports against figures by hand."""

import dataclasses
import re

import pytest
from helpers.report_folders import (
    COMMAND,
    cells,
    make_experiment,
    make_row,
    read_folder,
    write_evaluation,
    write_run,
    write_study,
)

from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.report import elements, parts
from cnn_jax.report.claims import BELOW_ZERO, Claim, Score, score
from cnn_jax.report.parts import curves, evaluations, footnotes
from cnn_jax.report.parts.words import describe_range, format_quantity
from cnn_jax.report.rows import describe_setting, find_other_settings
from cnn_jax.report.verdicts import judge

PAPER = {"top1_error": 8.75}


def table_of(folder, *rows):
    return cells(parts.paper_table(read_folder(folder, *rows), rows))


def test_mean_deviation_and_difference_of_three_seeds(tmp_path):
    write_study(tmp_path, "resnet-20", seeds=3)
    for seed, error in enumerate((0.08, 0.09, 0.13)):
        write_run(tmp_path, "resnet-20", seed, (0.9, 0.5, error), (0.7, 0.01 * (seed + 1)))
    row = make_row("resnet-20", paper=PAPER)
    found = table_of(tmp_path, row)["resnet-20"]
    # Mean 10; deviations -2, -1, 3: variance 14 / 2 = 7, sqrt(7) = 2.6458. Training 1, 2, 3: 2, 1.
    assert found["top-1 error: ours (%)"] == "10.00 ± 2.65"
    assert found["top-1 error: paper (%)"] == "8.75"
    assert found["difference (points)"] == "+1.25"
    assert found["training error (%)"] == "2.00 ± 1.00"
    assert (found["seeds"], found["steps"]) == ("3", "300")
    results = read_folder(tmp_path, row)
    facts = dict(parts.facts(results).items)
    assert facts["command"] == COMMAND and facts["date"] == "2026-11-22"
    assert (facts["hardware"], facts["commit"], facts["versions"]) == (
        "2 x cpu",
        "abc1234",
        "jax 0.12.0",
    )
    assert parts.run_states(results).progress == "3 of 3 runs finished"
    assert parts.missing(results) is None


def test_one_seed_has_no_deviation_and_no_paper_figure_no_difference(tmp_path):
    write_study(tmp_path, "plain-20", "resnet-20")
    write_run(tmp_path, "plain-20", errors=(0.0912,))
    write_run(tmp_path, "resnet-20", errors=(0.08,))
    found = table_of(tmp_path, make_row("plain-20"), make_row("resnet-20", paper=PAPER))
    assert found["plain-20"]["top-1 error: ours (%)"] == "9.12"
    assert found["plain-20"]["difference (points)"] == parts.DASH
    assert found["resnet-20"]["difference (points)"] == "−0.75"
    assert found["resnet-20"]["training error (%)"] == parts.DASH


def test_other_data_than_the_papers_has_no_difference(tmp_path):
    write_study(tmp_path, "resnet-20", paper_data="cifar10")
    write_run(tmp_path, "resnet-20", errors=(0.08,))
    row = make_row("resnet-20", paper=PAPER)
    found = table_of(tmp_path, row)["resnet-20"]
    assert found["top-1 error: paper, cifar10 (%)"] == "8.75"
    assert found["top-1 error: ours, digits (%)"] == "8.00"
    assert found["difference (points)"] == parts.DASH
    notes = dict(parts.notes(read_folder(tmp_path, row)).items)
    assert notes["Data"].startswith("the paper's errors are on cifar10, ours on digits")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model": "mlp"}, "model mlp"),
        ({"options": {"bn_group": 4}}, "bn_group 4"),
        ({"options": {"remat": True}}, ""),
        ({"data": "mnist"}, "data mnist"),
        ({"steps": 200}, "200 of 300 steps"),
        ({}, ""),
    ],
)
def test_a_row_that_deviates_from_the_paper_says_how_and_has_no_difference(tmp_path, change, words):
    paper = describe_setting(make_experiment("resnet-20"))
    write_study(tmp_path, "resnet-20", paper_runs={"resnet-20": vars(paper)})
    write_run(tmp_path, "resnet-20", errors=(0.08,), **change)
    found = table_of(tmp_path, make_row("resnet-20", paper=PAPER))["resnet-20"]
    assert found.get("not the paper's", "") == words
    assert (found["difference (points)"] == "−0.75") == (not words)


def test_a_reconstruction_error_is_not_a_percentage(tmp_path):
    """An autoencoder in a classification study: 105% would be nonsense."""
    write_study(tmp_path, "resnet-20", "other")
    error = {"error_name": "reconstruction_error"}
    write_run(tmp_path, "resnet-20", errors=(1.0502,), train=(1.2,), **error)
    write_run(tmp_path, "other", errors=(0.08,), train=(0.05,))
    rows = make_row("resnet-20", paper=PAPER), make_row("other", paper=PAPER)
    found = table_of(tmp_path, *rows)
    assert found["resnet-20"]["top-1 error: ours (%)"] == parts.DASH
    assert found["resnet-20"]["difference (points)"] == parts.DASH
    assert found["resnet-20"]["reconstruction error: ours"] == "1.05"
    assert found["resnet-20"]["training reconstruction error"] == "1.2"
    assert found["other"]["reconstruction error: ours"] == parts.DASH
    panels = parts.make_panels(read_folder(tmp_path, *rows), rows)
    assert {p.label: p.curves[0].test[-1][1] for p in panels} == {
        "error (%)": pytest.approx(8),
        "reconstruction error": 1.0502,
    }


def test_a_partial_study_lists_what_is_missing(tmp_path):
    names = ("done", "cut", "nan", "never", "some")
    write_study(tmp_path, *names, seeds=2)
    for seed in (0, 1):
        write_run(tmp_path, "done", seed, errors=(0.04 + 0.02 * seed,))
        train = (0.6,) * (3 + 2 * seed)
        write_run(tmp_path, "cut", seed, errors=(0.5, 0.4)[: seed + 1], train=train, last=None)
        write_run(tmp_path, "nan", seed, errors=(0.3,), last="nan")
    write_run(tmp_path, "some", 1, errors=(0.07,))
    rows = [make_row(name, paper={"top1_error": 5.0}) for name in names]
    found = table_of(tmp_path, *rows)
    ours = "top-1 error: ours (%)"
    assert found["cut"][ours] == "40.00 (at step 200 of 300)"
    assert found["cut"]["training error (%)"] == "60.00 (at step 250 of 300)"
    assert found["nan"][ours] == "30.00 (at step 100 of 300)"
    assert found["never"][ours] == found["never"]["steps"] == parts.DASH
    assert all(found[name]["difference (points)"] == parts.DASH for name in ("cut", "nan", "never"))
    assert (found["some"][ours], found["some"]["seeds"]) == ("7.00", "1 of 2")
    results = read_folder(tmp_path, *rows)
    assert parts.run_states(results).progress == "3 of 10 runs finished"
    assert [grade for _, grade, _ in parts.run_states(results).items] == [
        "ok",
        "part",
        "bad",
        "none",
        "part",
    ]
    assert parts.missing(results).lines == (
        "cut: seed 0: cut off at step 150 of 300; seed 1: cut off at step 250 of 300",
        "nan: seeds 0, 1: stopped by NaN at step 250",
        "never: seeds 0, 1: not started",
        "some: seed 0: not started",
    )
    assert parts.missing(results).command == COMMAND


def test_a_run_that_diverged_is_a_result(tmp_path):
    """All seeds, or some, of which the others' mean is shown; nothing of it is missing."""
    write_study(tmp_path, "all", "some", seeds=2)
    recording = {"on_nan": "record"}
    for seed, name in ((0, "all"), (1, "all"), (0, "some")):
        write_run(tmp_path, name, seed, errors=(0.3,), last="nan", train_fields=recording)
    write_run(tmp_path, "some", 1, errors=(0.07,), train_fields=recording)
    found = table_of(tmp_path, make_row("all"), make_row("some"))
    assert found["all"]["top-1 error: ours (%)"] == "diverged at step 250"
    assert found["some"]["top-1 error: ours (%)"] == "7.00 (1 of 2 diverged)"
    results = read_folder(tmp_path)
    assert parts.run_states(results).progress == "1 of 4 runs finished, 3 diverged"
    assert parts.missing(results) is None
    first = Claim("it trains", score(Score("some")), expected=BELOW_ZERO)
    verdict = judge(results, first)
    assert (verdict.verdict, verdict.why) == ("undecided", "some seed 0 diverged at step 250")


def test_deviations_of_all_runs_are_listed_once_and_others_as_footnotes(tmp_path):
    names = ("first", "second", "third", "never")
    write_study(tmp_path, *names)
    common = "train.steps: 64000 -> 300"
    write_run(tmp_path, "first", errors=(0.1,), deviations=[common])
    write_run(tmp_path, "second", errors=(0.1,), deviations=[common, "rate", "warm-up"])
    write_run(tmp_path, "third", errors=(0.1,), deviations=["warm-up", common])
    found = table_of(tmp_path, *map(make_row, names))
    assert [found[name]["deviations"] for name in names] == ["—", "a, b", "b", "—"]
    results = read_folder(tmp_path)
    assert parts.deviations(results).items == (
        ("All runs", common),
        ("a", "rate"),
        ("b", "warm-up"),
    )
    assert [footnotes._make_mark(n) for n in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]


def test_long_lists_of_numbers_are_shortened():
    drops = ",".join(map(str, range(100, 6000, 100)))
    short = footnotes._shorten_numbers(f"schedule.boundaries: {drops} -> default; steps: 1,600")
    assert short == ("schedule.boundaries: 100,200,...,5900 (59 numbers) -> default; steps: 1,600")
    few = "schedule.boundaries: 32000,48000 -> 180,255; model.channels: 8,16,32,64 -> 4,8,16,32"
    assert footnotes._shorten_numbers(few) == few


def test_a_protocols_cell_has_its_interval_and_the_difference_from_the_paper(tmp_path):
    write_study(tmp_path, "d", "c")
    write_evaluation(write_run(tmp_path, "d", errors=(0.2,)), "dense@36", "1000")
    write_evaluation(write_run(tmp_path, "c", errors=(0.2,)), "dense@40", "1100")
    paper = {"top1_error": 25.0, "top5_error": 8.0}
    rows = [make_row(n, paper=paper, protocol=p) for n, p in (("d", "dense@36"), ("c", "dense@40"))]
    found = parts.paper_table(read_folder(tmp_path, *rows), rows).rows
    assert found[0][:8] == (
        "d",
        "25.0",
        "25.00 [10.0; 30.0]",
        "+0.00",
        "8.0",
        "1.00 [0.0; 2.0]",
        "−7.00",
        "1",
    )
    assert found[1][2:4] == ("50.00 [10.0; 30.0]", "+25.00")


def test_curves_are_the_mean_and_range_over_seeds(tmp_path):
    write_study(tmp_path, "plain-20", "resnet-20", seeds=2)
    write_run(tmp_path, "plain-20", 0, errors=(0.5, 0.2))
    write_run(tmp_path, "plain-20", 1, errors=(0.7,), train=(0.8,), last=None)
    rows = make_row("plain-20", "plain"), make_row("resnet-20")
    plain, residual = parts.make_panels(read_folder(tmp_path, *rows), rows)
    assert (plain.title, residual.title) == ("plain", "residual")
    assert plain.curves[0].test == ((100, pytest.approx(60), 50, 70), (200, 20, 20, 20))
    assert plain.curves[0].train == ((50, 80, 80, 80),)
    assert plain.curves[0].remark == "" and residual.curves[0].remark == "(not started)"


def test_a_seed_that_did_not_train_is_in_no_mean_and_hides_no_curve(tmp_path):
    write_study(tmp_path, "some", "all", seeds=3)
    for seed, error in enumerate((0.1, 0.2, 0.9)):
        write_run(tmp_path, "some", seed, (0.9, error), (0.9, error))
        write_run(tmp_path, "all", seed, (0.9, 0.88), (0.9, 0.89))
    (panel,) = curves.make_panels(
        read_folder(tmp_path), (make_row("some"), make_row("all", group="residual"))
    )[:1]
    some = panel.curves[0]
    assert some.label.endswith("\n(1 of 3 did not train)")
    assert some.test[-1][1:] == pytest.approx((15, 10, 20))
    assert [[point[1] for point in line] for line in some.stalled] == [[90, pytest.approx(90)]]
    drawn = parts.error_curves(read_folder(tmp_path), (make_row("some"),))
    assert "did not train" in drawn.caption and drawn.png().startswith(b"\x89PNG")
    # Nothing else trained either, or not so much better.
    for row in (make_row("all"), make_row("absent")):
        drawn = parts.error_curves(read_folder(tmp_path), (row,))
        assert "did not train" not in drawn.caption


def test_dense_points_are_in_the_order_of_their_scales(tmp_path):
    write_study(tmp_path, "d")
    place = write_run(tmp_path, "d", errors=(0.2,), train_resize=(36, 72))
    write_evaluation(place, "dense@100", "1100")
    write_evaluation(place, "dense@36", "1000")
    write_evaluation(place, "dense@36,72", "1111")
    runs = read_folder(tmp_path).runs["d"]
    assert evaluations._find_dense_points(runs) == ((36, 25, 10, 30), (100, 50, 10, 30))
    assert evaluations._describe_training_scale(runs) == "S in [36; 72]"


def test_a_study_without_rows_or_report_has_a_line_for_each_run(tmp_path):
    write_study(tmp_path, "first", "second")
    write_evaluation(write_run(tmp_path, "first", errors=(0.2,)), "dense@36", "1000")
    page = parts.standard(read_folder(tmp_path))
    (table,) = page.find(elements.Table)
    assert list(cells(table)) == ["first", "first, dense@36", "second"]


def test_two_figures_need_two_files(tmp_path):
    write_study(tmp_path, "run")
    results = read_folder(tmp_path, make_row("run"))
    twice = parts.page(results, parts.error_curves(results), parts.error_curves(results))
    with pytest.raises(UserError, match=r"two figures named report\.png"):
        parts.check_files(twice)


def test_bars_show_the_papers_figure_and_ours_with_its_spread(tmp_path):
    write_study(tmp_path, "resnet-20", "plain-20", seeds=3)
    for seed, error in enumerate((0.08, 0.09, 0.13)):
        write_run(tmp_path, "resnet-20", seed, (0.9, 0.5, error))
    rows = make_row("resnet-20", paper=PAPER), make_row("plain-20", "plain")
    results = read_folder(tmp_path, *rows)
    (svg,) = parts.error_bars(results, rows).svgs()
    words = re.findall(r">([^<>\n]+)</text>", svg)
    assert {"8.75", "10.00 ± 2.65", " not finished"} <= {word.rstrip() for word in words}


def test_bars_and_table_round_alike(tmp_path):
    write_study(tmp_path, "run", seeds=6)
    errors = (0.0523, 0.0342, 0.0319, 0.0377, 0.0333, 0.0395)  # Their mean is near 0.03815.
    for seed, error in enumerate(errors):
        write_run(tmp_path, "run", seed, (0.9, 0.5, error))
    rows = (make_row("run"),)
    (svg,) = parts.error_bars(read_folder(tmp_path, *rows), rows).svgs()
    in_table = table_of(tmp_path, *rows)["run"]["top-1 error: ours (%)"]
    assert f">{in_table}</text>" in svg


def test_columns_of_the_paper_are_left_out_where_it_prints_nothing(tmp_path):
    write_study(tmp_path, "resnet-20", paper_data="")
    write_run(tmp_path, "resnet-20", 0, (0.9, 0.5, 0.1))
    found = table_of(tmp_path, make_row("resnet-20"))["resnet-20"]
    assert found["top-1 error: ours (%)"] == "10.00"
    assert "top-1 error: paper (%)" not in found and "difference (points)" not in found


def test_what_was_done_to_a_data_set_is_a_setting():
    paper = describe_setting(make_experiment(data="cifar10"))
    run = make_experiment(data="cifar10")

    def find(data):
        return find_other_settings(describe_setting(dataclasses.replace(run, data=data)), paper)

    encoded = choose("cifar10", jpeg_quality=75)
    assert find(dataclasses.replace(run.data, dataset=encoded)) == ("jpeg_quality 75",)
    changed = dataclasses.replace(run.data, validation_images=5_000, shuffle_pixels=True)
    assert find(changed) == ("validation_images 5000", "shuffle_pixels true")
    # Older folders do not have it.
    old = dataclasses.replace(paper, changes=None)
    assert find_other_settings(describe_setting(dataclasses.replace(run, data=changed)), old) == ()


def test_an_option_that_is_set_to_its_default_is_no_other_setting():
    paper = describe_setting(make_experiment(options={"shortcut": "A"}))
    plain, wide = (make_experiment(options=options) for options in ({}, {"width": 2.0}))
    assert find_other_settings(describe_setting(plain), paper) == ()
    assert find_other_settings(paper, describe_setting(plain)) == ()
    assert find_other_settings(describe_setting(wide), paper) == ("width 2.0",)
    unscattered = choose("digits", side=8, scatter=False)
    data = dataclasses.replace(plain.data, dataset=unscattered)
    same = describe_setting(dataclasses.replace(plain, data=data))
    assert find_other_settings(same, paper) == find_other_settings(paper, same) == ()


def test_a_long_list_of_equal_values_is_short(tmp_path):
    paper = describe_setting(make_experiment(model="mlp", options={"hidden": (100,) * 21}))
    ours = describe_setting(make_experiment(model="mlp", options={"hidden": (60,) * 21}))
    assert find_other_settings(ours, paper) == ("hidden 21 times 60",)
    short = describe_setting(make_experiment(model="mlp", options={"hidden": (60, 60)}))
    assert find_other_settings(short, paper) == ("hidden 60,60",)


@pytest.mark.parametrize(
    "value, unit, shown",
    [
        (-0.005629, "", "−0.005629"),
        (-1e-9, "", "−1e-09"),
        (-3, "steps", "−3"),
        (204_800, "weights", "204,800"),
        (-0.75, "points", "−0.75"),
        (-0.001, "points", "+0.00"),
        (6.97, "%", "6.97"),
        (-0.001, "%", "0.00"),
    ],
)
def test_a_value_is_shown_with_a_minus_sign(value, unit, shown):
    assert format_quantity(value, unit) == shown


@pytest.mark.parametrize(
    "expected, shown",
    [
        ((2 / 3, 1.5), "0.667 to 1.5"),
        ((27.57 - 0.5, 28.07), "27.07 to 28.07"),
        ((-float("inf"), -0.2), "below −0.2"),
        ((1 / 3, float("inf")), "above 0.333"),
        ((1_982_464.0, 1_982_464.0), "1,982,464"),
    ],
)
def test_a_range_has_its_own_digits_or_three(expected, shown):
    assert describe_range(expected, "") == shown
