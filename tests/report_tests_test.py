"""The report of test protocols: cells, intervals and verdicts against figures worked out by hand."""

import json

import numpy as np
import pytest
from report_test import row, study, write_run

from cnn_jax.config import protocol_name
from cnn_jax.report import build, evaluations, read
from experiments import vgg_scale_jitter


def write_test(place, protocol, wrong, top5=0.01, interval=(0.1, 0.3)):
    """A test's file; wrong: '0' or '1' an image."""
    (place / "evaluations").mkdir(exist_ok=True)
    found = {
        "top1_error": wrong.count("1") / len(wrong),
        "top5_error": top5,
        "top1_interval": interval,
        "top5_interval": (0.0, 0.02),
        "wrong": wrong,
    }
    (place / "evaluations" / f"{protocol}.json").write_text(json.dumps(found))


def claim(paper):
    return {"statement": "d against c", "better": ("d", "dense@36"), "worse": ("c", "dense@40"), "paper": paper}


def both(folder, ours, theirs, **more):
    """A study of two runs, each with one test."""
    printed = {"top1_error": 25.0, "top5_error": 8.0}
    rows = [
        row(name, table="Table 3", protocol=test, paper=printed) for name, test in (("d", "dense@36"), ("c", "dense@40"))
    ]
    study(folder, *rows, **more)
    data = {"data": {"train_resize": [36, 72]}}
    write_test(write_run(folder, "d", errors=(0.2,), **data), "dense@36", ours)
    write_test(write_run(folder, "c", errors=(0.2,), **data), "dense@40", theirs)
    return evaluations.tables(*read.read(folder))


def test_a_cell_has_the_interval_of_its_test_and_the_difference_from_the_paper(tmp_path):
    (found,) = both(tmp_path, "1000", "1100")
    assert found.title == "Table 3"
    assert found.cells[0] == ("d", "25.0", "25.00 [10.0; 30.0]", "+0.00", "8.0", "1.00 [0.0; 2.0]", "−7.00", "1")
    assert found.cells[1][2:4] == ("50.00 [10.0; 30.0]", "+25.00")


def test_other_data_than_the_paper_s_have_no_difference(tmp_path):
    (found,) = both(tmp_path, "1000", "1100", paper_data="imagenet2012")
    assert found.cells[0][3] == "—"


@pytest.mark.parametrize(
    "paper, ours, theirs, verdict",
    [
        (-1.2, "0" * 100, "0" * 80 + "1" * 20, "agrees: errs less"),
        (-1.2, "0" * 80 + "1" * 20, "0" * 100, "disagrees: errs more"),
        (0.1, "0" * 80 + "1" * 20, "0" * 100, "agrees: errs more"),
        (None, "0" * 100, "0" * 80 + "1" * 20, "errs less"),
        (-1.2, "01" * 50, "10" * 50, "cannot tell: the interval holds 0"),
    ],
)
def test_a_claim_is_judged_by_the_paired_interval(paper, ours, theirs, verdict, tmp_path):
    *_, found = both(tmp_path, ours, theirs, claims=[claim(paper)])
    assert found.cells[0][-1] == verdict


def test_the_interval_of_a_difference_is_that_of_the_pairs(tmp_path):
    """20 of 100 images are won and none lost: 20 points, deviation 0.402, so 1.96 * 4.02 points each way."""
    *_, found = both(tmp_path, "0" * 100, "0" * 80 + "1" * 20, claims=[claim(-1.2)])
    deviation = np.std([0] * 80 + [-1] * 20, ddof=1)
    low, high = -20 - 19.6 * deviation, -20 + 19.6 * deviation
    assert found.cells[0][1:4] == ("−1.20", "−20.00", f"[−{-low:.2f}; −{-high:.2f}]")


def test_a_claim_without_its_tests_says_so(tmp_path):
    both(tmp_path, "0", "1")
    there, nets = read.read(tmp_path)
    assert evaluations._claim(claim(-1) | {"better": ("d", "grid@36")}, nets)[-1] == "not tested yet"


def test_the_report_is_built_with_its_pictures(tmp_path):
    both(tmp_path, "1000", "1100", claims=[claim(-1.2)])
    built = build.build(tmp_path)
    page = built.html.read_text()
    assert "crops.png" not in built.markdown.read_text() and "What the paper says" in page and "Table 3" in built.text
    (tmp_path / "crops.png").write_bytes(built.png.read_bytes())
    page = build.build(tmp_path).html.read_text()
    assert "data:image/png;base64," in page and "](crops.png)" in built.markdown.read_text()


@pytest.mark.parametrize("preset", vgg_scale_jitter.PRESETS)
def test_every_row_and_claim_of_vgg_scale_jitter_has_its_test(preset):
    made = vgg_scale_jitter.study(preset)
    asked = {(row.run, row.protocol) for row in made.rows}
    asked |= {pair for claim in made.claims for pair in (claim.better, claim.worse)}
    assert asked and all(test in map(protocol_name, made.runs[run].protocols) for run, test in asked)
    starts = {run.train.start_from for run in made.runs.values()} - {""}
    assert starts <= made.runs.keys()
    names = list(made.runs)
    assert all(names.index(r.train.start_from) < names.index(r.name) for r in made.runs.values() if r.train.start_from)


def test_the_paper_s_tables_are_whole():
    rows = [row for row in vgg_scale_jitter.study("paper").rows if row.paper]
    assert [sum(row.table == f"Table {k}" for row in rows) for k in (3, 4, 5)] == [12, 10, 6]
