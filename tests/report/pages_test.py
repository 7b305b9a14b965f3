"""Sweeps, comparisons, exports and the page of all claims."""

import dataclasses
import json
import os

import pytest
from helpers.report_folders import (
    FakeStudy,
    cells,
    make_row,
    read_folder,
    write_evaluation,
    write_run,
    write_study,
)

from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.report import all_claims, build, compare, export, figures, parts, render, sweep
from cnn_jax.report.claims import ABOVE_ZERO, BELOW_ZERO, Claim, Measured, Score, subtract
from cnn_jax.report.elements import Cell, Page, Table
from cnn_jax.report.figures import curves, style

BASES = (0.01, 0.1, 1.0)


def write_grid(folder, momenta=(0.0, 0.9)):
    names = {}
    for base in BASES:
        for momentum in momenta:
            name = f"net-base{base}-momentum{momentum}"
            names[name] = "net"
            schedule = choose("constant", base=base)
            optimizer = choose("sgd", momentum=momentum)
            error = 0.1 * BASES.index(base) + momentum / 10
            write_run(
                folder,
                name,
                errors=(0.9, error),
                train=(0.8, error / 2),
                schedule=schedule,
                optimizer=optimizer,
            )
    swept = ["schedule.base", "optimizer.momentum"]
    write_study(folder, *names, "net-never", swept=swept, swept_from=names | {"net-never": "net"})


def test_a_sweep_is_a_table_of_its_grid(tmp_path):
    write_grid(tmp_path)
    results = read_folder(tmp_path)
    table = sweep.make_table(results, sweep.find_points(results))
    assert table.columns[:3] == ("schedule.base", "optimizer.momentum", "top-1 error (%)")
    assert table.rows[1] == ("0.01", "0.9", "9.00", "4.50", "1")
    assert table.rows[-1] == ("—", "—", "—", "—", "0 of 1")
    assert table.footnote.endswith("Lowest of 6: net-base0.01-momentum0.0, possibly by chance.")


def test_a_sweep_is_plotted_against_each_field_with_a_line_per_other_value(tmp_path):
    write_grid(tmp_path)
    points = sweep.find_points(read_folder(tmp_path))
    base, momentum = sweep.make_charts(("schedule.base", "optimizer.momentum"), points)
    assert (base.x_label, base.log_x, momentum.x_label, momentum.log_x) == (
        "schedule.base",
        True,
        "optimizer.momentum",
        False,
    )
    assert [line.label for line in base.lines] == ["momentum 0.0", "momentum 0.9"]
    # Points of (x, mean, least, largest) in %.
    assert [p[:2] for p in base.lines[1].points] == [
        (x, pytest.approx(9 + 10 * i)) for i, x in enumerate(BASES)
    ]
    assert [line.label for line in momentum.lines] == ["base 0.01", "base 0.1", "base 1.0"]
    assert [p[:2] for p in momentum.lines[0].points] == [(0.0, 0), (0.9, pytest.approx(9))]


def test_a_logarithmic_axis_has_numbers_not_markup(tmp_path):
    write_grid(tmp_path)
    figure = sweep.make_figure(read_folder(tmp_path), sweep.find_points(read_folder(tmp_path)))
    svg, other = figure.svgs()
    assert ">0.01<" in svg and ">0.1<" in svg and "mathdefault" not in svg + other


def test_a_sweep_over_names_has_the_names_as_ticks(tmp_path):
    for name in ("resnet20", "plain20"):
        write_run(tmp_path, f"net-{name}", errors=(0.1,), model=name)
    write_study(tmp_path, "net-resnet20", "net-plain20", swept=["model"])
    (chart,) = sweep.make_charts(("model",), sweep.find_points(read_folder(tmp_path)))
    assert chart.ticks == ("resnet20", "plain20") and not chart.log_x
    assert [point[0] for point in chart.lines[0].points] == [0, 1]


def test_a_swept_study_has_the_report_of_a_sweep(tmp_path):
    write_grid(tmp_path)
    built = build.build(tmp_path, FakeStudy((make_row("net"),), report=parts.standard))
    assert "## Grid" in built.markdown.read_text() and built.figures[0].is_file()


def test_runs_of_several_folders_are_compared(tmp_path):
    for folder, error in (("first", 0.1), ("second", 0.2)):
        place = tmp_path / folder
        place.mkdir()
        write_run(place, "net", errors=(0.5, error), train=(0.5,), deviations=())
        write_study(place, "net")
    write_run(tmp_path / "second", "other", errors=(0.3,), data="mnist", steps=100)
    write_run(tmp_path / "second", "unfinished", errors=(0.3,), last=None)
    folders = [tmp_path / "first" / "net", tmp_path / "second"]
    built = compare.compare(folders, tmp_path / "out")
    text = built.markdown.read_text()
    assert "net (first)" in text and "net (second)" in text and "| other |" in text
    assert "unfinished: cut off at step 100 of 300" in text
    assert (tmp_path / "out" / "compare.png").is_file() and built.html.is_file()
    again = compare.compare(folders, tmp_path / "out")
    assert again.text == built.text


def test_runs_of_one_name_in_several_workdirs_below_a_folder_are_told_apart(tmp_path, monkeypatch):
    for number, workdir in enumerate(("a", "b")):
        (tmp_path / "runs" / workdir).mkdir(parents=True)
        write_run(tmp_path / "runs" / workdir, "net", number, errors=(0.1 + 0.1 * number,))
    write_run(tmp_path / "runs/b", "other", errors=(0.3,))
    (tmp_path / "runs/latest").symlink_to("b")
    text = compare.compare([tmp_path / "runs"], tmp_path / "out").markdown.read_text()
    assert "# Comparison of 3 runs" in text
    assert "| a/net | resnet20 | digits | 10.00 |" in text
    assert "| b/net | resnet20 | digits | 20.00 |" in text and "| other | " in text
    for place in (".", "..", "../../net", "seed1"):
        monkeypatch.chdir(tmp_path / "runs/b/net" / ("" if place == "seed1" else "seed1"))
        text = compare.compare([place], tmp_path / "out").markdown.read_text()
        assert "# Comparison of 1 run\n" in text
        assert "| net | resnet20 | digits | 20.00 |" in text
    places = [".", tmp_path / "runs/a"]
    monkeypatch.chdir(tmp_path / "runs/b/net/seed1")
    text = compare.compare(places, tmp_path / "out").markdown.read_text()
    assert "| net (b) | " in text and "| net (a) | " in text


def test_exported_results_below_a_folder_are_compared(tmp_path):
    """With the runs beside them, but not with the trials of an export."""
    for number, name in enumerate(("a", "b")):
        write_run(tmp_path / "workdirs" / name, "net", errors=(0.1 + 0.1 * number,))
        write_study(tmp_path / "workdirs" / name, "net")
        for place in (f"deep/er/{name}", f"deep/er/{name}/tuning"):
            export.export(
                tmp_path / "workdirs" / name,
                tmp_path / place,
                FakeStudy((make_row("net"),), report=parts.standard),
            )
    text = compare.compare([tmp_path / "deep"], tmp_path / "out").markdown.read_text()
    assert "# Comparison of 2 runs" in text
    assert "| net (a) | resnet20 | digits | 10.00 |" in text
    assert "| net (b) | resnet20 | digits | 20.00 |" in text
    write_run(tmp_path / "deep", "other", errors=(0.3,))
    text = compare.compare([tmp_path / "deep"], tmp_path / "out").markdown.read_text()
    assert "# Comparison of 3 runs" in text


def test_seeds_of_other_settings_are_in_no_mean_of_a_comparison(tmp_path):
    write_run(tmp_path, "net", 0, errors=(0.1,), steps=100)
    write_run(tmp_path, "net", 1, errors=(0.3, 0.2), steps=200)
    write_run(tmp_path, "net", 2, errors=(0.3,), steps=300, last=None)
    text = compare.compare([tmp_path], tmp_path / "out").markdown.read_text()
    assert "| net | resnet20 | digits | 10.00 |" in text
    assert f"{tmp_path}/net/seed1: left out, because seed 0, which was started last, has" in text


def test_a_comparison_names_a_configuration_that_is_empty(tmp_path):
    for name in ("net", "other"):
        write_run(tmp_path, name, errors=(0.3,))
    (tmp_path / "net/seed0/config.json").write_text("")
    text = compare.compare([tmp_path], tmp_path / "out").markdown.read_text()
    assert "# Comparison of 1 run\n" in text and "net: unreadable: its config" in text
    (tmp_path / "other/seed0/config.json").unlink()
    (tmp_path / "other/seed0/config.json").mkdir()
    with pytest.raises(UserError, match=r"is finished \(.*config.json: is not JSON"):
        compare.compare([tmp_path], tmp_path / "out")


def test_an_option_that_is_set_to_its_default_is_not_compared(tmp_path):
    write_run(tmp_path, "a", errors=(0.3,), options={"shortcut": "A", "width": 2.0})
    write_run(tmp_path, "b", errors=(0.4,), options={})
    text = compare.compare([tmp_path], tmp_path / "out").markdown.read_text()
    table = text.partition("## Settings")[0]
    assert "model.width 2.0" in table and "model.shortcut" not in table


def test_a_comparison_without_finished_runs_gives_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run below it"):
        compare.compare([tmp_path / "empty"], tmp_path / "out")
    write_run(tmp_path, "net", errors=(0.3,), last=None)
    with pytest.raises(UserError, match="no run there is finished"):
        compare.compare([tmp_path / "net"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def make_evaluated(folder):
    folder.mkdir()
    write_study(folder, "d", "never")
    place = write_run(folder, "d", errors=(0.9, 0.5), train=(0.9, 0.6), train_resize=(36,))
    write_evaluation(place, "dense@36", "0" * 90 + "1" * 10)
    write_evaluation(place, "dense@36,72", "0" * 100)
    rows = make_row("d", protocol="dense@36"), make_row("never", protocol="dense@36")
    check = subtract(Score("d", "dense@36,72"), Score("d", "dense@36"))
    return FakeStudy(rows, (Claim("several scales help", check, BELOW_ZERO),))


def test_an_export_leaves_out_lines_that_were_cut_off(tmp_path):
    study = make_evaluated(tmp_path / "raw")
    whole = export.export(tmp_path / "raw", tmp_path / "whole", study)
    for name in ("metrics", "starts", "layers"):
        with (tmp_path / f"raw/d/seed0/{name}.jsonl").open("a") as lines:
            lines.write('{"event": "ev')
    torn = export.export(tmp_path / "raw", tmp_path / "torn", study)
    for name in ("runs.json", "report.md", "claims.json"):
        assert (torn.markdown.parent / name).read_bytes() == (
            whole.markdown.parent / name
        ).read_bytes()


def test_an_export_can_be_exported(tmp_path):
    study = make_evaluated(tmp_path / "raw")
    export.export(tmp_path / "raw", tmp_path / "kept", study)
    export.export(tmp_path / "kept", tmp_path / "again", study)
    for path in (tmp_path / "kept").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_an_export_gives_the_same_figures(tmp_path):
    study = make_evaluated(tmp_path / "raw")
    whole = build.build(tmp_path / "raw", study)
    kept = export.export(tmp_path / "raw", tmp_path / "kept", study)
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"study.json", "runs.json", "report.md", "report.png", "claims.json"}
    assert kept.claims.read_bytes() == whole.claims.read_bytes()
    assert kept.figures[0].read_bytes() == whole.figures[0].read_bytes()
    assert kept.text == whole.text
    assert "confusion" not in (tmp_path / "kept" / "runs.json").read_text()
    raw, compact = (read_folder(tmp_path / name).runs for name in ("raw", "kept"))
    assert raw["d"][0].train == compact["d"][0].train
    assert raw["d"][0].protocols == compact["d"][0].protocols
    assert raw["d"][0].experiment == compact["d"][0].experiment
    assert "runs.json" in kept.markdown.read_text()


def test_a_damaged_export_is_named(tmp_path):
    study = make_evaluated(tmp_path / "raw")
    export.export(tmp_path / "raw", tmp_path / "kept", study)
    path = tmp_path / "kept" / "runs.json"
    for text in ("{", "null", '{"version":1,"runs":[5]}', '{"version":7,"runs":[]}'):
        path.write_text(text)
        results = read_folder(tmp_path / "kept")
        assert results.runs["d"][0].state == "not started"
        assert "runs.json: " in results.problems[0] and "restore it" in results.problems[0]


def test_damaged_files_are_not_exported(tmp_path):
    study = make_evaluated(tmp_path / "raw")
    (tmp_path / "raw" / "d" / "seed0" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json"):
        export.export(tmp_path / "raw", tmp_path / "kept", study)
    assert not (tmp_path / "kept").exists()


def test_all_claims_are_one_page(tmp_path):
    for name in ("first", "second"):
        study = make_evaluated(tmp_path / name)
        build.build(tmp_path / name, study)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "claims.json").write_text('{"claims": 3}')
    built = all_claims.build(tmp_path)
    text = built.markdown.read_text()
    assert "2 claims in 2 reports: agrees 2, disagrees 0, undecided 0, not comparable 0." in text
    assert "[several scales help](first/report.md)" in text
    assert "(second/report.md)" in text and "broken/claims.json: is damaged" in text
    assert 'href="first/report.md"' in built.html.read_text()


def test_a_folder_without_claims_gives_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no claims\.json below it"):
        all_claims.build(tmp_path)


def test_the_page_of_all_claims_has_the_rows_of_the_reports(tmp_path):
    study = make_evaluated(tmp_path / "first")
    build.build(tmp_path / "first", study)
    words = json.loads((tmp_path / "first" / "claims.json").read_text())
    table = parts.claims_table(read_folder(tmp_path / "first", *study.rows), study.claims)
    ours = all_claims._make_table(words, "first")
    assert list(cells(ours).values()) == list(cells(table).values())


def test_every_page_rounds_a_claim_s_value_once(tmp_path):
    exact = 18.134999  # 18.135 with four decimals, which would be 18.14.
    study = make_evaluated(tmp_path / "first")
    measured = Measured(exact, over_seeds=(0.00004, exact), seeds=3)
    claim = Claim("the error is higher", lambda results: measured, ABOVE_ZERO)
    tiny = dataclasses.replace(claim, statement="the share is higher", unit="share")
    built = build.build(tmp_path / "first", dataclasses.replace(study, claims=(claim, tiny)))
    (found, _) = json.loads(built.claims.read_text())["claims"]
    assert found["ours"] == exact and found["over_seeds"] == [0.00004, exact]
    every = all_claims.build(tmp_path)
    for text in (built.markdown.read_text(), built.text, every.markdown.read_text(), every.text):
        words = text.replace("\\", "")
        assert "+18.13" in words and "[+0.00; +18.13]" in words and "[4e-05; 18.13]" in words


def test_the_axis_shows_all_final_values_and_omits_the_first_steps():
    done = figures.Curve("a", (), ((100, 90, 90, 90), (200, 10, 10, 10)))
    panel = figures.Panel("p", (done,))
    assert curves._find_limits([panel], panel) == (200, pytest.approx(1.04 * 25))
    cut = figures.Curve("b", ((100, 60, 60, 60),), (), remark="(to step 100)")
    panel = figures.Panel("p", (done, cut))
    assert curves._find_limits([panel], panel) == (200, pytest.approx(1.04 * 66))
    empty = figures.Panel("p", ())
    assert curves._find_limits([empty], empty) == (1, 100)


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_a_long_title_stays_inside_the_figure(panels):
    title = "Degradation of plain models, and residual models without it: a sweep of schedule.base"
    chart = figures.LineChart("", (figures.Series("", ((0, 1, 1, 1),), "k"),), "x", "y")
    with style.use_style():
        figure = figures.draw_lines(f"{title}, optimizer.momentum, {title}", [chart] * panels)
        figure.canvas.draw()
        box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_a_single_training_error_is_a_ring_and_a_single_test_error_a_disk():
    curve = figures.Curve("a", ((20, 70, 70, 70),), ((20, 90, 90, 90),))
    figure = figures.draw_panels("t", [figures.Panel("p", (curve,))])
    train, test = figure.axes[0].lines
    assert (train.get_marker(), train.get_markerfacecolor()) == ("o", "none")
    assert (test.get_marker(), test.get_markerfacecolor()) == ("o", curve.color)
    assert not test.get_clip_on() and not train.get_clip_on()  # The last step is at the edge.
    legend = [
        (line.get_marker(), line.get_markerfacecolor()) for line in figure.legends[0].legend_handles
    ]
    assert legend == [("o", style.INK), ("o", "none")]


def test_a_narrow_logarithmic_axis_has_narrow_margins():
    line = figures.Series("a", ((1, 1.0, 0.97, 1.0), (2, 1.1, 1.0, 1.1)), "k")
    chart = figures.LineChart("", (line,), "x", "y", log_y=True)
    low, high = figures.draw_lines("t", [chart]).axes[0].get_ylim()
    assert 0.955 < low < 0.97 and 1.1 < high < 1.115


@pytest.mark.parametrize("values", [(), (0.0,), (0.0, 0.5), (2.0,)], ids=str)
def test_a_logarithmic_axis_may_have_no_values_that_it_can_show(values):
    points = tuple((x, value, value, value) for x, value in enumerate(values))
    lines = (figures.Series("a", points, "k"),) if points else ()
    chart = figures.LineChart("", lines, "x", "y", log_y=True, share_y=False)
    assert style.write_png(lambda: figures.draw_lines("t", [chart])).startswith(b"\x89PNG")


def test_a_line_of_runs_that_are_not_trained_has_its_name_in_the_legend():
    lines = tuple(
        figures.Series(name, points, "k") for name, points in (("a", ()), ("b", ((1, 2, 2, 2),)))
    )
    for shown in (lines, lines[:1]):
        figure = figures.draw_lines("t", [figures.LineChart("", shown, "x", "y", log_x=True)])
        texts = figure.axes[0].get_legend().get_texts()
        assert [text.get_text() for text in texts] == [line.label for line in shown]
        figure.canvas.draw()


def test_intervals_of_runs_that_are_not_trained_are_drawn_without_a_warning():
    assert figures.draw_intervals("t", "error (%)", []).axes  # A warning is an error in tests.


def test_models_of_one_depth_share_a_color():
    by_depth = figures.choose_colors(
        {"plain": ["plain-20", "plain-56"], "residual": ["56", "20", "110"]}
    )
    plain = by_depth["plain"]
    assert by_depth["residual"] == [plain[1], plain[0], figures.PALETTE[2]]
    by_place = figures.choose_colors({"a": ["34 A", "34 B"], "b": ["sigmoid"]})
    assert by_place == {"a": list(figures.PALETTE[:2]), "b": [figures.PALETTE[0]]}
    many = figures.choose_colors({"a": [f"model {i}" for i in range(12)]})["a"]
    assert len(set(many)) == 12


def test_a_link_to_a_folder_whose_name_is_not_utf_8_is_that_of_its_bytes():
    cell = Cell("a run", link=os.fsdecode(b"caf\xe9/report.md"))
    page = Page("Runs", (Table("All", ("run",), ((cell,),)),))
    assert "[a run](caf%E9/report.md)" in render.render_markdown(page)
    assert '<a href="caf%E9/report.md">' in render.render_html(page, {})
