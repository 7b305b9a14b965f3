"""Several launches that share a study's runs."""

import contextlib
import errno
import fcntl
import multiprocessing
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_jax import study
from cnn_jax.config import Experiment, Train
from cnn_jax.errors import UserError
from cnn_jax.study import sharing
from cnn_jax.training import metrics_log, run_folders, run_lock
from experiments import STUDIES

ROOT = Path(__file__).parents[2]
RUNS = [Experiment(study="s", name=name) for name in ("a", "b", "c")]


def place(folder, run):
    made = run_folders.find_run_folder(run, folder)
    made.mkdir(parents=True, exist_ok=True)
    return made


def test_a_run_that_another_launch_holds_comes_last(tmp_path):
    holder = run_lock.hold(place(tmp_path, RUNS[0]), "claim")
    holder.__enter__()
    messages, order = [], []

    def record_message(line):
        messages.append(line)
        holder.__exit__(None, None, None)  # The other launch ends, or dies.

    for number, (run,) in sharing.claim_groups([[r] for r in RUNS], tmp_path, record_message, 0):
        order.append((number, run.name))
        with pytest.raises(run_lock.HeldError), run_lock.hold(place(tmp_path, run), "claim"):
            pass  # While it is trained, no other launch can claim it.
    assert order == [(1, "b"), (2, "c"), (0, "a")]
    assert len(messages) == 1 and re.fullmatch(
        r"waiting for a seed 0 \(process \d+ on .* since .*\)", messages[0]
    )
    with run_lock.hold(place(tmp_path, RUNS[1]), "claim"):
        pass  # Released.


def test_a_launch_goes_on_with_its_own_run_then_takes_one_that_is_not_begun(tmp_path):
    groups = [[replace(run, seed=seed)] for run in RUNS for seed in (0, 1)]
    with run_lock.hold(place(tmp_path, groups[0][0]), "claim"):  # Another launch begins a.
        order = []
        for _, (run,) in sharing.claim_groups(groups, tmp_path, print, 0):
            order.append((run.name, run.seed))
            if len(order) == 5:
                break
    # It compiles b and c, each for both seeds, and a for the seed that the other has not reached.
    assert order == [("b", 0), ("b", 1), ("c", 0), ("c", 1), ("a", 1)]


def test_a_launch_that_loses_a_run_to_one_that_starts_with_it_takes_another(tmp_path, monkeypatch):
    groups = [[replace(run, seed=seed)] for run in RUNS for seed in (0, 1)]
    claim, waits, tries = sharing._claim, [], []
    with contextlib.ExitStack() as other_launch:

        def claim_later(group, folder):
            if not tries:  # After this launch has seen that nothing is begun.
                other_launch.enter_context(claim(groups[0], folder))
            tries.append(group[0])
            return claim(group, folder)

        def end_other_launch(line):
            waits.append(line)
            other_launch.close()

        monkeypatch.setattr(sharing, "_claim", claim_later)
        order = [
            (run.name, run.seed)
            for _, (run,) in sharing.claim_groups(groups, tmp_path, end_other_launch, 0)
        ]
    assert order == [("b", 0), ("b", 1), ("c", 0), ("c", 1), ("a", 1), ("a", 0)]
    assert len(waits) == 1 and waits[0].startswith("waiting for a seed 0 (")


def test_a_run_that_starts_from_another_waits_for_it(tmp_path, monkeypatch):
    finished = set()
    monkeypatch.setattr(metrics_log, "read_result", lambda folder: folder.parent.name in finished)
    later = replace(RUNS[1], train=Train(start_from="c"))
    order = []
    for _, (run,) in sharing.claim_groups([[RUNS[0]], [later], [RUNS[2]]], tmp_path, print, 0):
        order.append(run.name)
        finished.add(run.name)
    assert order == ["a", "c", "b"]


def _join(folder, report, go):
    with sharing.join_launches(folder) as leave:
        report.send("joined")
        go.recv()
        report.send(leave())
        go.recv()


def test_the_last_of_three_launches_knows_that_it_is_the_last(tmp_path):
    context = multiprocessing.get_context("spawn")
    launches = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=_join, args=(tmp_path, theirs, theirs))
        process.start()
        assert ours.recv() == "joined"
        launches.append((process, ours))
    with sharing.join_launches(tmp_path) as leave:
        assert not leave()
        launches[0][0].kill()  # A launch that dies leaves too.
        launches[0][0].join()
        launches[1][1].send("leave")
        assert launches[1][1].recv() is True
    launches[1][1].send("end")
    launches[1][0].join()


def lock_as_nfs(file, operation, lock=fcntl.flock):
    """Locks as NFS does: shared only on files open for reading, exclusive only for writing."""
    wanted = {fcntl.LOCK_SH: file.readable(), fcntl.LOCK_EX: file.writable()}
    if not wanted.get(operation & ~fcntl.LOCK_NB, True):
        raise OSError(errno.EBADF, "Bad file descriptor")
    lock(file, operation)


def test_launches_are_locked_on_nfs(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lock_as_nfs)
    with sharing.join_launches(tmp_path) as leave, sharing.join_launches(tmp_path) as leave_too:
        assert not leave() and leave_too()


def test_a_file_system_that_locks_nothing_gives_one_line(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    words = r"^.*launches cannot be locked \(No locks available\): choose another workdir$"
    with pytest.raises(UserError, match=words), sharing.join_launches(tmp_path):
        pass


@pytest.mark.parametrize("flags", ["--overwrite", "--coordinator=host:1"])
def test_flags_that_sharing_excludes_give_one_line(flags, capsys, tmp_path):
    from cnn_jax import cli

    argv = ["launch.py", "--experiment=lrn", "--preset=smoke", "--share", flags]
    assert cli.execute([*argv, f"--workdir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--share: " in error
    assert not any(tmp_path.iterdir())


def test_library_callers_get_the_same_error(tmp_path):
    with pytest.raises(UserError, match=r"^share: "):
        study.run(STUDIES["lrn"]("smoke"), tmp_path, share=True, overwrite=True)


@pytest.mark.parametrize("killed", [False, True])
def test_two_launches_train_each_run_once(tmp_path, killed):
    command = [sys.executable, "launch.py", "--experiment=tests/testdata/my_study/my_study.py"]
    command += ["--share", "--seeds=4", f"--workdir={tmp_path}"]
    with contextlib.ExitStack() as stack:
        launches = []
        for _ in range(2):
            launch = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            launches.append(stack.enter_context(launch))
            stack.callback(launch.kill)
        if killed:
            for line in launches[0].stdout:
                if line.startswith("["):  # Its first run has ended, and the next one has begun.
                    break
            launches[0].kill()
            launches[0].communicate()
            launches = launches[1:]
        printed = [launch.communicate()[0] for launch in launches]
        assert [launch.returncode for launch in launches] == [0] * len(launches)
    assert sum("report.html" in text for text in printed) == 1
    starts = []
    for name in ("perceptron", "hidden"):
        for seed in range(4):
            folder = tmp_path / name / f"seed{seed}"
            assert metrics_log.read_result(folder)["step"] == 20
            starts.append(len((folder / "starts.jsonl").read_text().splitlines()))
    # The run that the dead launch held may have been started twice.
    assert sum(starts) <= 8 + killed and min(starts) == 1
