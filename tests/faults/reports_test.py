"""What people have reported stays mended, and each test that is said to hold it exists."""

import pytest
from faults.reports import REPORTS, ROOT

DONE = [report for report in REPORTS if not report.test]
TESTED = [report for report in REPORTS if report.test]


@pytest.fixture(autouse=True)
def _jax_is_prepared(monkeypatch):
    monkeypatch.setattr("cnn_jax.cli.command.prepare_jax", lambda compile_cache: None)


@pytest.mark.parametrize("report", DONE, ids=lambda report: report.what)
def test_what_was_reported_is_mended(report):
    said = report.do()
    assert report.says in said and "Traceback" not in said, said


@pytest.mark.parametrize("report", TESTED, ids=lambda report: report.what)
def test_the_test_of_a_report_exists(report):
    assert (ROOT / report.test).is_file()
