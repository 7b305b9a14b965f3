"""A run that ends in the middle of any of its writes, and is launched again: nothing is lost."""

import json

import pytest
from helpers import budget, deadly_writes, study_folders
from helpers.deadly_writes import MOMENTS, Writes
from helpers.small_run import TIMES

from cnn_jax import files, study
from cnn_jax.study import runner
from cnn_jax.training import metrics_log

pytestmark = pytest.mark.usefixtures("shared_programs")

EVERY = budget.choose(9, 1)  # Every k-th write is tried.


class KilledError(BaseException):
    """Unlike an Exception, nothing of ours handles it."""


def kill():
    raise KilledError


def end_at(number, moment):
    """The run ends in its write of this number."""
    return Writes(lambda count, place: count == number, moment, kill)


def launch(folder, writes):
    """Launches the study; what it prints goes nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        if writes:
            patch.setattr(files, "os", writes.as_os())
        patch.setattr(runner, "PART_AGE_S", 0)  # No other launch writes a part in this folder.
        made = study_folders.make_study("laptop")
        study.run(made, folder, command="make", tell=lambda line: None)


def describe(folder):
    """What a study leaves, but for times and places."""
    run = folder / "net/seed0"
    events = [
        {k: v for k, v in event.items() if k not in TIMES} for event in metrics_log.read_events(run)
    ]
    kept = ("config.json", "data.json", "evaluations/single.json", "digests.json")
    texts = {name: json.loads((run / name).read_text()) for name in kept}
    report = (folder / "report.md").read_text()
    assert "amaged" not in report, report
    return events, texts, sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(the names of the files written, in order; what is left)."""
    folder, writes = tmp_path_factory.mktemp("undisturbed"), Writes()
    launch(folder, writes)
    return writes.names, describe(folder)


def test_every_kind_of_file_is_written_by_the_one_writer(undisturbed):
    names = set(undisturbed[0])
    assert names >= {"study.json", "config.json", "data.json", "starts.jsonl", "metrics.jsonl"}
    assert names >= {"digests.json", "single.json", "report.md", "report.html"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_ends_in_a_write_goes_on(moment, undisturbed, tmp_path):
    names, whole = undisturbed
    first = MOMENTS.index(moment) if EVERY > 1 else 0
    for number in range(first, len(names), EVERY):
        folder = tmp_path / str(number)
        with pytest.raises(KilledError):
            launch(folder, end_at(number, moment))
        launch(folder, None)
        assert describe(folder) == whole, f"{names[number]} {moment}"


@pytest.mark.parametrize("line", [1, 2, 4])
def test_a_run_that_ends_in_the_middle_of_a_line_goes_on(line, undisturbed, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(metrics_log, "open", open, raising=False)  # It is put back.
        deadly_writes.cut_lines(metrics_log, "metrics.jsonl", line, kill)
        launch(tmp_path, None)
    text = (tmp_path / "net/seed0/metrics.jsonl").read_text()
    assert text and not text.endswith("\n")
    launch(tmp_path, None)
    assert describe(tmp_path) == undisturbed[1]


def test_a_run_that_ends_in_the_middle_of_an_event_goes_on(undisturbed, tmp_path):
    writer = pytest.importorskip("tensorboardX.event_file_writer").EventsWriter
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(writer, "flush", writer.flush)  # It is put back.
        deadly_writes.cut_events(3, kill)
        launch(tmp_path, None)
    launch(tmp_path, None)
    assert describe(tmp_path) == undisturbed[1]
