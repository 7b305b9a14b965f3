"""Reading run folders: complete, incomplete, damaged and foreign ones."""

import json
import random

import pytest
from helpers.report_folders import (
    FakeStudy,
    make_row,
    read_folder,
    write_evaluation,
    write_run,
    write_study,
)

from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.report import build, parts
from cnn_jax.report.reading.study_file import read_study_file


def test_a_run_that_ends_before_its_last_step_is_unfinished(tmp_path):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5,), steps=300)
    config = (place / "config.json").read_text()
    (place / "config.json").write_text(config.replace('"steps": 300', '"steps": 600'))
    (run,) = read_folder(tmp_path).runs["run"]
    assert run.state == "cut off at step 300 of 600" and run.final_error is None


def test_seeds_of_which_one_sets_an_option_to_its_default_are_averaged(tmp_path):
    write_study(tmp_path, "run", seeds=3)
    write_run(tmp_path, "run", errors=(0.5,))
    write_run(tmp_path, "run", 1, errors=(0.4,), options={"shortcut": "A", "norm": "bn"})
    write_run(tmp_path, "run", 2, errors=(0.4,), options={"shortcut": "B"})
    results = read_folder(tmp_path)
    assert [run.seed for run in results.runs["run"]] == [0, 1]
    assert results.problems[0].startswith("run/seed2: left out")
    assert "(model.shortcut: B -> default)" in results.problems[0]


def test_an_incomplete_last_line_is_ignored(tmp_path):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5, 0.4), last=None)
    with open(place / "metrics.jsonl", "ab") as log:
        torn = '{"event": "eval", "step": 300, "top1_error": 0.1, "why": "é'
        log.write(torn.encode()[:-1])  # Half of a character.
    results = read_folder(tmp_path)
    assert max(results.runs["run"][0].evaluations) == 200 and not results.problems


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "eval", "st',
        "[1]",
        "null",
        '{"step": 3}',
        '{"event": "eval"}',
        '{"event": "eval", "step": 1e999}',
        '{"event": "eval", "step": 2, "top1_error": NaN}',
        '{"event": "eval", "step": true}',
        "[" * 100_000,
        "\\xff",
    ],
)
def test_a_damaged_line_is_left_out_and_named(tmp_path, line):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5, 0.4, 0.3))
    first, *rest = (place / "metrics.jsonl").read_text().split("\n")
    (place / "metrics.jsonl").write_text("\n".join([first, line, *rest]))
    results = read_folder(tmp_path)
    assert results.runs["run"][0].final_error == 0.3
    assert results.problems[0].startswith(
        "run/seed0/metrics.jsonl: 1 damaged line ignored; to restore"
    )


def test_an_earlier_evaluation_does_not_replace_a_damaged_last_one(tmp_path):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5, 0.4, 0.3))
    lines = (place / "metrics.jsonl").read_text().split("\n")
    lines[2] = lines[2][:-5]
    (place / "metrics.jsonl").write_text("\n".join(lines))
    (run,) = read_folder(tmp_path).runs["run"]
    assert run.state == "damaged: its last evaluation is lost"
    assert run.final_error is None and not run.finished


@pytest.mark.parametrize("text", ["", "{", "null", "5", "[]", "{}", b"\xff\xfe", '{"version": 1}'])
def test_a_damaged_config_is_named_and_the_other_runs_are_reported(tmp_path, text):
    write_study(tmp_path, "bad", "good")
    place = write_run(tmp_path, "bad", errors=(0.1,))
    write_run(tmp_path, "good", errors=(0.2,))
    (place / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    results = read_folder(tmp_path)
    bad, good = results.runs["bad"][0], results.runs["good"][0]
    assert bad.final_error is None or not text  # Its end is known without its settings.
    assert good.final_error == 0.2
    if text:
        assert bad.state.startswith("unreadable")
        assert results.problems[0].startswith("bad/seed0/config.json: ")


@pytest.mark.parametrize(
    "change",
    [
        {"top1_error": "0.1"},
        {"wrong": "0102"},
        {"wrong": 5},
        {"top1_interval": [0.1]},
        {"top1_error": 0.3},
        {"images": 5},
        {"top1_error": None, "top5_error": None},
    ],
)
def test_a_damaged_evaluation_is_left_out_and_named(tmp_path, change):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5,))
    write_evaluation(place, "dense@36", "0100")
    path = place / "evaluations" / "dense@36.json"
    assert read_folder(tmp_path).runs["run"][0].protocols["dense@36"].errors["top1_error"] == 0.25
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    results = read_folder(tmp_path)
    assert not results.runs["run"][0].protocols
    assert "dense@36.json: damaged" in results.problems[0]


def test_an_evaluation_of_an_earlier_step_than_the_last_is_left_out_and_named(tmp_path):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5,))
    write_evaluation(place, "dense@36", "0100")
    path = place / "evaluations" / "dense@36.json"
    last = read_folder(tmp_path).runs["run"][0].steps
    for step, problems in ((last, 0), (last - 1, 1)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"step": step}))
        results = read_folder(tmp_path)
        assert len(results.problems) == problems
        assert bool(results.runs["run"][0].protocols) == (problems == 0)
    assert f"of step {last - 1}, which is not the run's last" in results.problems[0]


def test_an_evaluation_of_averaged_logits_is_not_a_protocol_s_result(tmp_path):
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5,))
    write_evaluation(place, "dense@36", "0100")
    write_evaluation(place, "dense@36,average=logits", "1111")
    path = place / "evaluations" / "dense@36.json"
    other = path.with_stem("dense@36,average=logits")
    for each, average in ((path, "softmax"), (other, "logits")):
        each.write_text(json.dumps(json.loads(each.read_text()) | {"average": average}))
    results = read_folder(tmp_path)
    assert results.runs["run"][0].protocols.keys() == {"dense@36"} and not results.problems
    other.rename(path)  # As earlier versions named it.
    results = read_folder(tmp_path)
    assert not results.runs["run"][0].protocols
    assert "dense@36.json: of averaged logits" in results.problems[0]


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"runs": "abc"},
        {"runs": []},
        {"seeds": -1},
        {"seeds": True},
        {"notes": [1]},
        {"swept": {}},
        {"paper_runs": []},
        {"paper_runs": {"a": {}}},
        {"measured": 3},
        {"swept_from": [1]},
    ],
)
def test_a_damaged_study_file_gives_one_line_with_the_remedy(tmp_path, change):
    write_study(tmp_path, "run", **change)
    with pytest.raises(
        UserError, match=r"study\.json: .*; delete it, and launch the study again|has no runs"
    ):
        read_study_file(tmp_path)


def test_a_missing_or_broken_study_file_is_named(tmp_path):
    remedy = rf"{tmp_path} .*python launch.py --experiment=NAME --workdir={tmp_path}"
    with pytest.raises(UserError, match=remedy):
        build.build(tmp_path, FakeStudy())
    for text in ("{", "null", "5", "[" * 100_000):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(UserError, match=r"study\.json is not .*delete it"):
            build.build(tmp_path, FakeStudy())
    assert not list(tmp_path.glob("*report*"))


def test_a_folder_of_an_older_version_is_recognized(tmp_path):
    (tmp_path / "study.json").write_text('{"name": "old", "title": "Old", "rows": []}')
    with pytest.raises(UserError, match="written by an older version of cnn_jax: build"):
        read_study_file(tmp_path)


def test_random_damage_gives_a_report_or_one_line(tmp_path):
    """300 times, bits are flipped, bytes removed, or the end is cut off."""
    rng = random.Random(0)
    write_study(tmp_path, "run")
    place = write_run(tmp_path, "run", errors=(0.5, 0.4, 0.3), train=(0.7, 0.6))
    write_evaluation(place, "dense@36", "0100")
    rows = make_row("run"), make_row("run", protocol="dense@36")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for _ in range(300):
        path = rng.choice(files)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        at = rng.randrange(len(damaged))
        match rng.randrange(3):
            case 0:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[at : at + rng.randrange(1, 9)]
            case 2:
                del damaged[at:]
        path.write_bytes(damaged)
        try:
            results = read_folder(tmp_path, *rows)
        except UserError as error:
            assert path.name == "study.json" and "\n" not in str(error)
        else:
            parts.paper_table(results, rows)
            parts.notes(results)
        path.write_bytes(whole)


def start_at(place, time):
    """Moves the start of a run, which `write_run` has written."""
    path = place / "starts.jsonl"
    path.write_text(path.read_text().replace("2026-11-22T15:00:00", time))


def test_seeds_with_another_configuration_than_the_newest_are_left_out_and_named(tmp_path):
    write_study(tmp_path, "run", seeds=3)
    for seed, rate in enumerate((0.1, 0.5, 0.5)):
        schedule = choose("constant", base=rate)
        place = write_run(tmp_path, "run", seed, errors=(0.5, 0.4, 0.3), schedule=schedule)
        start_at(place, f"2026-11-22T15:00:0{seed}")
    results = read_folder(tmp_path)
    assert [run.seed for run in results.runs["run"]] == [1, 2]
    (problem,) = results.problems
    assert problem.startswith("run/seed0: left out") and "schedule.base: 0.1 -> 0.5" in problem
    assert "left out" in parts.problems(results).lines[0]


def test_seeds_of_versions_with_and_without_an_option_are_of_one_run(tmp_path):
    write_study(tmp_path, "run", seeds=2)
    for seed in range(2):
        options = {"l1": 0.0} if seed else {}
        write_run(tmp_path, "run", seed, errors=(0.5,), optimizer=choose("sgd", **options))
    results = read_folder(tmp_path)
    assert [run.seed for run in results.runs["run"]] == [0, 1] and not results.problems


def test_a_seed_of_an_earlier_launch_that_has_been_erased_is_not_missing(tmp_path):
    write_study(tmp_path, "run", seeds=2)
    write_run(tmp_path, "run", errors=(0.5,))
    (tmp_path / "run/seed2").mkdir()
    assert [run.seed for run in read_folder(tmp_path).runs["run"]] == [0, 1]
