"""feature_visualization: how the measured rows become the table and the claims."""

import pytest

from cnn_jax.report import build
from cnn_jax.report.elements import Table
from cnn_jax.report.reading.folder import read
from cnn_jax.report.verdicts import judge
from cnn_jax.study import configure, write_study
from experiments.feature_visualization import OCCLUSION, study

STUDY = configure(study("smoke"))
LEVELS = {"saliency": 0.1, "guided": 0.7, "gradcam": 0.2}


def make_rows(seeds):
    """What is measured of three runs; one image of each has no correlation."""
    rows = []
    for run in STUDY.runs:
        for seed in range(seeds):
            about = {"run": run, "seed": seed}
            for name, level in LEVELS.items():
                correlation = [level + 0.01 * seed, None, level + 0.03 * seed * (name == "guided")]
                deletion = [0.2, 0.3, 0.1 + 0.03 * seed]
                row = {"map": name, "title": name.title(), "correlation": correlation}
                rows.append(about | row | {"deletion": deletion, "insertion": [0.5, 0.6, 0.7]})
            row = {"map": "chance", "title": "pixels in random order", "correlation": []}
            rows.append(about | row | {"deletion": [0.4] * 3, "insertion": [0.5] * 3})
    return rows


def read_rows(folder, rows):
    write_study(STUDY, folder, 2, "", rows)
    return read(folder, STUDY.rows, STUDY.claims)


def test_claims_are_mean_differences_by_hand(tmp_path):
    results = read_rows(tmp_path, make_rows(seeds=2))
    guided, grad_cam, deletion = (judge(results, claim) for claim in STUDY.claims)
    # Seed 0: 0.7 - 0.1; seed 1: (0.71 + 0.73) / 2 - (0.11 + 0.1) / 2.
    assert guided.ours.value == pytest.approx((0.6 + 0.615) / 2) and guided.ours.seeds == 2
    assert guided.verdict == "agrees" and guided.ours.over_seeds is not None
    assert grad_cam.ours.value == pytest.approx(-(0.5 + 0.515) / 2)
    assert grad_cam.verdict == "agrees"
    assert deletion.ours.value == pytest.approx(-(0.2 + 0.19) / 2)
    assert deletion.verdict == "agrees"


def test_one_seed_decides_nothing_and_no_rows_say_so(tmp_path):
    results = read_rows(tmp_path / "one", make_rows(seeds=1))
    assert {judge(results, claim).verdict for claim in STUDY.claims} == {"undecided"}
    results = read_rows(tmp_path / "none", [])
    assert {judge(results, claim).why for claim in STUDY.claims} == {"not measured yet"}


def test_the_table_has_means_over_images_and_seeds(tmp_path):
    results = read_rows(tmp_path, make_rows(seeds=2))
    page = build.compose(results, STUDY)
    (table,) = [part for part in page.find(Table) if part.title == "Maps"]
    assert len(table.rows) == 3 * 4
    assert table.rows[1] == ("LeNet-5, modern variant", "Guided", "0.710", "0.205", "0.600")
    assert table.rows[3][2:] == ("—", "0.400", "0.500")


def test_pictures_of_runs_that_are_not_finished_are_removed(tmp_path):
    names = ("gallery-lenet.png", OCCLUSION)
    for name in (*names, "crops.png"):
        (tmp_path / name).write_bytes(b"of an earlier run")
    assert STUDY.measure_runs(tmp_path, list(STUDY.runs.values()), str) == []
    assert [path.name for path in tmp_path.iterdir()] == ["crops.png"]
