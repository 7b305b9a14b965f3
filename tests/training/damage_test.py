"""Damaged files of a run folder: no traceback, nothing lost, one line that names the file."""

import errno
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from helpers import study_folders
from helpers.small_run import TIMES

from cnn_jax.errors import UserError
from cnn_jax.training import checkpoint, metrics_log, run_lock, saved_parameters, train

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns a finished study's folder, and one with an interrupted run."""
    return study_folders.make(tmp_path_factory)


def events(folder):
    return [{k: v for k, v in e.items() if k not in TIMES} for e in metrics_log.read_events(folder)]


@pytest.mark.parametrize("lost", [b'"end"', b'"eval", "step": 12'])
def test_a_damaged_last_line_is_written_again(lost, folders, tmp_path, capsys):
    """That of the end or of the last evaluation: both can be computed from the checkpoint."""
    shutil.copytree(folders["finished"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net/seed0/metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(lost, b"\xff"))
    result = train.run(study_folders.make_study("laptop").runs["net"], tmp_path)
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
    train.run(study_folders.make_study("laptop").runs["net"], tmp_path)
    assert f"checkpoint {newest.name}" in capsys.readouterr().err
    assert (tmp_path / "net/seed0/damaged_checkpoints" / newest.name).is_dir()
    assert events(tmp_path / "net/seed0") == events(folders["finished"] / "net/seed0")


@pytest.mark.parametrize("field, other", [("checksum", "0" * 16), ("train_images", 95)])
def test_a_run_does_not_go_on_with_another_data_set(field, other, folders, tmp_path):
    """A resumed run would be of neither data set, and a test's labels might have moved."""
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net/seed0/data.json"
    known = json.loads(path.read_text())
    assert known[field] != other
    path.write_text(json.dumps(known | {field: other}))
    with pytest.raises(UserError, match=rf"data set is another one than .*\({field}: {other} then"):
        train.run(study_folders.make_study("laptop").runs["net"], tmp_path)
    path.write_text("null")  # Only this file is damaged: it is written again.
    train.run(study_folders.make_study("laptop").runs["net"], tmp_path)
    assert json.loads(path.read_text()) == known


def test_checkpoints_are_used_unchecked_if_the_checksums_are_damaged(folders, tmp_path, capsys):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "net/seed0/digests.json").write_bytes(b"null")
    train.run(study_folders.make_study("laptop").runs["net"], tmp_path)
    said = capsys.readouterr().err
    assert "digests.json is damaged" in said and "is used unchecked" in said
    sums = json.loads((tmp_path / "net/seed0/digests.json").read_text())
    assert "12" in sums
    assert events(tmp_path / "net/seed0") == events(folders["finished"] / "net/seed0")


def test_a_new_start_begins_a_line_after_an_incomplete_one(folders, tmp_path):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "net/seed0/starts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"st\xff')
    train.run(study_folders.make_study("laptop").runs["net"], tmp_path)
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

    def lock_as_nfs(file, operation):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(run_lock.fcntl, "flock", lock_as_nfs)
    words = "lock cannot be locked .*: let its owner permit writing, or choose another workdir$"
    with pytest.raises(UserError, match=words), run_lock.hold(tmp_path):
        pass


def test_a_lock_file_that_cannot_be_opened_gives_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match="cannot write to"), run_lock.hold(tmp_path):
        pass


def fail_to_restore(error):
    def restore(*args, **kwargs):
        raise error

    return restore


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.EMFILE, "x"), r"\(Too many open files\): allow more open files"),
        (ValueError("INTERNAL: a: [OS error 24: EMFILE Too many open files]"), "more open files"),
        (OSError(errno.ESTALE, "x"), r"\(Stale file handle\)"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes"), "end other"),
        (MemoryError(), r"\(MemoryError\): end other programs"),
    ],
)
def test_an_error_of_the_system_is_no_damage(error, words, folders, tmp_path, monkeypatch):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    before = checkpoint.list_steps(tmp_path / "net/seed0")
    run = study_folders.make_study("laptop").runs["net"]
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", fail_to_restore(error))
        with pytest.raises(UserError, match=f"checkpoint 8 in .* cannot be read.*{words}"):
            train.run(run, tmp_path)
        with pytest.raises(UserError, match=f"checkpoint 8 in .* cannot be read.*{words}"):
            saved_parameters.load_parameters(tmp_path / "net/seed0")
    assert checkpoint.list_steps(tmp_path / "net/seed0") == before
    train.run(run, tmp_path)
    assert events(tmp_path / "net/seed0") == events(folders["finished"] / "net/seed0")


def test_an_evaluation_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    saved = tmp_path / "checkpoints/8/metrics/metrics"
    saved.parent.mkdir(parents=True)
    saved.write_text('{"error": 0.5}')

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with (
        pytest.raises(UserError, match=r"checkpoint .*/8 cannot be read \(Permission denied\)"),
        checkpoint.open_checkpoints(tmp_path),
    ):
        pass
    assert saved.exists() and not (tmp_path / "damaged_checkpoints").exists()


def test_checkpoints_of_a_version_with_another_state_are_not_damaged(folders, tmp_path):
    shutil.copytree(folders["unfinished"], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "net/seed0"
    before = checkpoint.list_steps(folder)
    state = train.build_program(study_folders.make_study("laptop").runs["net"]).state
    other = state.replace(params=state.params | {"added": jnp.zeros(3)})
    with (
        checkpoint.open_checkpoints(folder) as saved,
        pytest.raises(UserError, match=r"another version of the code \(\S*added is not in them\)"),
    ):
        checkpoint.restore(saved, other)
    assert checkpoint.list_steps(folder) == before
