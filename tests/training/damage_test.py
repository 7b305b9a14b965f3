"""Damaged files of a run folder: no traceback, nothing lost, one line that names the file."""

import dataclasses
import json
import os
import random
import shutil

import pytest
from helpers import shared_programs
from helpers.small_run import RUN, TIMES, CutError

from cnn_jax import cli, study
from cnn_jax.config import choose
from cnn_jax.errors import UserError
from cnn_jax.study import Row, Study
from cnn_jax.training import metrics_log, run_lock, train
from experiments import COSTS

SEED = 1
DAMAGES = 60  # Each kind runs a command, which takes up to a second.
OTHER_JSON = (
    b"null",
    b"5",
    b"[]",
    b"{}",
    b'"text"',
    b"[1, 2]",
    b'{"event": "eval"}',
    b'{"1": 2}',
    b"[[[[",
)


@pytest.fixture(scope="module", autouse=True)
def _shared_programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_program", shared_programs.build_program)
        yield


def make_study(preset):
    run = dataclasses.replace(RUN, study="fuzz", protocols=(choose("single"),))
    return Study("fuzz", "Fuzz", "Nobody", "", preset, {"net": run}, (Row("net", "Net", "", ""),))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns a finished study's folder, and one with an interrupted run."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("finished", "unfinished")}
    study.run(make_study("laptop"), made["finished"], command="make", tell=print)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutError):
        build = train.build_program

        def build_dying_program(*args, **kwargs):
            program = build(*args, **kwargs)

            def step(state, arrays, batch):
                if int(state.step) == 9:
                    raise CutError
                return program.compiled_step(state, arrays, batch)

            return program._replace(compiled_step=step)

        patch.setattr(train, "build_program", build_dying_program)
        study.run(make_study("laptop"), made["unfinished"], command="make", tell=print)
    return made


def text_files(folder):
    """Returns the files that hold JSON, ours and Orbax's."""
    names = ("config.json", "study.json", "metrics.jsonl", "starts.jsonl", "digests.json")
    found = [
        path
        for path in folder.rglob("*")
        if path.name in names or path.parent.name == "evaluations"
    ]
    return sorted([*found, *folder.rglob("metrics/metrics")])


def damage(content, rng):
    """Returns the bytes with one random damage."""
    kind = rng.choice(("flip", "truncate", "empty", "other", "value"))
    if kind == "flip" and content:
        place = rng.randrange(len(content))
        return (
            content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        )
    if kind == "truncate":
        return content[: rng.randrange(max(1, len(content)))]
    if kind == "value":
        return content.replace(
            rng.choice((b"0", b"1", b'"')), rng.choice((b"null", b"-1", b"[]", b"\xff"))
        )
    return rng.choice(OTHER_JSON) if kind == "other" else b""


def execute(capsys, *words):
    """Returns (exit code, stderr)."""
    code = cli.execute(["launch.py", *words], {"fuzz": make_study}, COSTS)
    return code, capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # Orbax and TensorStore warn about unreadable files.
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_damaged_files_never_give_a_traceback(state, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    rng = random.Random(SEED)
    commands = (
        ("--experiment=fuzz", "--workdir=here"),
        ("--report", "--workdir=here"),
        ("--evaluate=here",),
    )
    for number in range(DAMAGES // 2):
        shutil.rmtree("here", ignore_errors=True)
        shutil.copytree(folders[state], "here")
        path = rng.choice(text_files(tmp_path / "here"))
        path.write_bytes(content := damage(path.read_bytes(), rng))
        code, said = execute(capsys, *rng.choice(commands))
        what = f"damage {number} of {path.relative_to(tmp_path)}: {content[:60]!r}\n{said}"
        assert code in (0, 2) and "Traceback" not in said, what


def events(folder):
    return [{k: v for k, v in e.items() if k not in TIMES} for e in metrics_log.read_events(folder)]


@pytest.mark.parametrize("lost", [b'"end"', b'"eval", "step": 12'])
def test_a_damaged_last_line_is_written_again(lost, folders, tmp_path, capsys):
    """That of the end or of the last evaluation: both can be computed from the checkpoint."""
    shutil.copytree(folders["finished"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net/seed0/metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(lost, b"\xff"))
    result = train.run(make_study("laptop").runs["net"], tmp_path)
    assert result == metrics_log.read_result(tmp_path / "net/seed0")
    assert events(tmp_path / "net/seed0") == events(folders["finished"] / "net/seed0")
    assert "1 damaged lines are left out" in capsys.readouterr().err


def test_an_older_checkpoint_is_used_if_the_newest_one_s_evaluation_is_empty(
    folders, tmp_path, capsys
):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    newest = max(
        (tmp_path / "net/seed0/checkpoints").glob("[0-9]*"), key=lambda path: int(path.name)
    )
    (newest / "metrics/metrics").write_bytes(b"")
    train.run(make_study("laptop").runs["net"], tmp_path)
    assert f"checkpoint {newest.name}" in capsys.readouterr().err
    assert (tmp_path / "net/seed0/damaged_checkpoints" / newest.name).is_dir()
    assert events(tmp_path / "net/seed0") == events(folders["finished"] / "net/seed0")


def test_checkpoints_are_used_unchecked_if_the_checksums_are_damaged(folders, tmp_path, capsys):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "net/seed0/digests.json").write_bytes(b"null")
    train.run(make_study("laptop").runs["net"], tmp_path)
    said = capsys.readouterr().err
    assert "digests.json is damaged" in said and "is used unchecked" in said
    sums = json.loads((tmp_path / "net/seed0/digests.json").read_text())
    assert "12" in sums
    assert events(tmp_path / "net/seed0") == events(folders["finished"] / "net/seed0")


def test_a_new_start_begins_a_line_after_an_incomplete_one(folders, tmp_path):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net/seed0/starts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"st\xff')
    train.run(make_study("laptop").runs["net"], tmp_path)
    *_, torn, last = path.read_bytes().splitlines()
    assert torn == b'{"st\xff' and json.loads(last)["step"] == 8


def test_a_lock_file_of_another_user_is_opened_for_reading(tmp_path, monkeypatch):
    """It has mode 0644: it can be locked but not written."""
    (tmp_path / "lock").write_text('{"process": 1}\n')
    real = open

    def refuse(path, mode="r", **options):
        if "a" in mode or "w" in mode:
            raise PermissionError(13, "Permission denied")
        return real(path, mode, **options)

    monkeypatch.setattr(run_lock, "open", refuse, raising=False)
    with (
        run_lock.hold(tmp_path),
        pytest.raises(UserError, match="in use by"),
        run_lock.hold(tmp_path),
    ):
        pass
    assert (tmp_path / "lock").read_text() == '{"process": 1}\n'


def test_a_lock_file_that_cannot_be_opened_gives_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match="cannot write to"), run_lock.hold(tmp_path):
        pass
