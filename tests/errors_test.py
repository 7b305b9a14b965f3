"""Messages for errors of the operating system."""

import errno
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cnn_jax import files
from cnn_jax.errors import (
    UserError,
    describe_os_error,
    explain_os_error,
    explain_os_errors,
    explain_out_of_memory,
    join_messages,
)
from cnn_jax.files import write_whole


def make(number, *files):
    return OSError(number, os.strerror(number), *files)


@pytest.mark.parametrize(
    "error, remedy, said",
    [
        (make(errno.EACCES), "choose another workdir", "(Permission denied): choose another"),
        (make(errno.EACCES, "w/a.json"), "", "cannot write to w (w/a.json: Permission denied)"),
        (make(errno.EACCES, b"w/a\xff"), "", "(w/a\udcff: Permission denied)"),
        (make(errno.ENOSPC), "", "(No space left on device): make room; the same command"),
        (make(errno.ENOSPC), "choose another", "): make room, or choose another; the same"),
        (make(errno.EMFILE), "", "(Too many open files): allow more open files (ulimit -n);"),
        (make(errno.EXDEV, "w/a", None, "v/b"), "", "(w/a -> v/b: Invalid cross-device link)"),
        (OSError("3 of its 5 bytes arrived"), "", "(3 of its 5 bytes arrived)"),
        (OSError(), "", "cannot write to w (OSError)"),
    ],
)
def test_an_error_of_the_system_names_its_file_the_reason_and_what_helps(error, remedy, said):
    told = explain_os_error("cannot write to w", error, remedy, "the same command continues")
    assert said in str(told)


def test_a_file_that_is_named_already_is_not_named_again():
    assert describe_os_error(make(errno.EIO, "w/a"), "w/a cannot be read") == "Input/output error"


def test_a_block_s_error_becomes_the_user_s():
    told = pytest.raises(UserError, match=r"^cannot read \(nowhere: No such file")
    with told, explain_os_errors("cannot read"):
        Path("nowhere").read_bytes()


def test_an_error_of_writing_names_the_file_and_not_its_part(tmp_path):
    with pytest.raises(OSError) as told:
        write_whole(tmp_path / "no/such/file", "text")
    assert told.value.filename == str(tmp_path / "no/such/file")


def test_two_processes_with_one_number_write_the_same_file(tmp_path, monkeypatch):
    path, move, names = tmp_path / "study.json", os.replace, []
    monkeypatch.setattr(os, "getpid", lambda: 1)  # As in a container.

    def move_late(part, to):
        names.append(part.name)
        if len(names) == 1:
            write_whole(path, "the other process's, which is longer")
            assert path.read_text() == "the other process's, which is longer"
        move(part, to)

    monkeypatch.setattr(os, "replace", move_late)
    write_whole(path, "this one's")
    assert path.read_text() == "this one's" and list(tmp_path.iterdir()) == [path]
    for name in names:  # Had they been killed, their parts would be found.
        (tmp_path / name).write_text("")
    files.remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_parts_of_killed_processes_are_removed_and_files_are_found_some_levels_below(tmp_path):
    (tmp_path / ".a.json.1.part").write_text("")
    (tmp_path / "a.part").write_text("")
    files.remove_parts(tmp_path, min_age_s=1000)
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_parts(tmp_path)
    files.remove_parts(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]
    (tmp_path / "1/2/3/4/5/6").mkdir(parents=True)
    for name in ("x", "1/x", "1/2/3/4/5/x", "1/2/3/4/5/6/x"):
        (tmp_path / name).write_text("")
    found = [str(path.relative_to(tmp_path)) for path in files.find_files(tmp_path, "x")]
    assert found == ["1/2/3/4/5/x", "1/x", "x"]


def test_a_thousand_messages_are_one_short_line():
    assert join_messages(["no space left"] * 1000) == "no space left"
    different = [f"seed {seed} failed" for seed in range(1000)]
    words = join_messages(different * 2)
    assert words.startswith("seed 0 failed; seed 1 failed; ") and len(words) < 200
    assert words.endswith("; and 995 more")
    assert join_messages(different[:5]).endswith("seed 4 failed")


def test_a_device_without_memory_gives_one_line():
    words = r"^net: a device has not enough memory \(Out of memory .*[^.]\): lower the batch$"
    with pytest.raises(UserError, match=words), explain_out_of_memory("net", "lower the batch"):
        jax.block_until_ready(jnp.ones(2**45))
    with pytest.raises(RuntimeError, match="other"), explain_out_of_memory("net", ""):
        raise RuntimeError("other")
