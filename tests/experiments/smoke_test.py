"""Every study's smoke preset runs from the first step to the report."""

import json

import pytest

from cnn_jax import study as library
from cnn_jax.report import build
from experiments import COSTS, STUDIES

SMOKE = [name for name, presets in COSTS.items() if "smoke" in presets]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKE)
def test_the_smoke_preset_runs_and_reports(name, tmp_path):
    study = STUDIES[name]("smoke")
    report = library.run(study, tmp_path, seeds=2 if study.runs else 1, tell=str)
    assert not report.problem and all(path.exists() for path in (report.html, *report.figures))
    verdicts = json.loads(report.claims.read_text())["claims"]
    assert [one["statement"] for one in verdicts] == [c.statement for c in study.claims]
    again = build.build(tmp_path)
    assert again.text == report.text
    folders = {path.parent.name for path in tmp_path.glob("*/seed1")}
    assert folders == set(study.runs)


@pytest.mark.parametrize(
    "name", [name for name in COSTS if STUDIES[name](next(iter(COSTS[name]))).runs]
)
def test_a_study_without_a_finished_run_has_a_report(name, tmp_path):
    study = STUDIES[name](next(iter(COSTS[name])))
    library.write_study(study, tmp_path, 1, "the command")
    report = build.build(tmp_path, study, html=False)
    assert not report.problem and "not started" in report.text
