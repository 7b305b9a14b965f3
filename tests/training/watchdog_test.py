"""Signals to the loop, the watchdog, and the lock of a run folder."""

import os
import signal
import time

import pytest

from cnn_jax.errors import UserError
from cnn_jax.training import run_lock, watchdog


def test_a_signal_is_returned_after_the_step(capsys):
    with watchdog.watch(0) as watched:
        watched.enter("step")
        assert watched.stop_requested() == ""
        os.kill(os.getpid(), signal.SIGTERM)
        assert watched.stop_requested() == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("phase", ["data", "evaluate"])
def test_a_signal_interrupts_phases_that_change_no_state(phase):
    with watchdog.watch(0) as watched, pytest.raises(watchdog.StopError, match="SIGINT"):
        watched.enter(phase)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_a_signal_during_a_step_interrupts_the_next_phase():
    with watchdog.watch(0) as watched:
        watched.enter("compile")
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(watchdog.StopError):
            watched.enter("evaluate")


def test_the_watchdog_names_the_phase(capfd):
    with watchdog.watch(0.2 / 60) as watched:
        watched.enter("save")
        time.sleep(0.6)
        watched.enter("step")
    said = capfd.readouterr().err
    assert "in the phase: save" in said and "minutes" in said
    time.sleep(0.5)
    assert "phase" not in capfd.readouterr().err


def test_a_folder_has_one_holder(tmp_path):
    second = pytest.raises(UserError, match=f"in use by process {os.getpid()} on")
    with run_lock.hold(tmp_path), second, run_lock.hold(tmp_path):
        pass
    with run_lock.hold(tmp_path):  # A file of the last holder does not matter.
        pass


def test_whether_a_folder_has_a_holder_is_found_without_a_trace(tmp_path):
    run_lock.check_free(tmp_path / "nowhere")
    run_lock.check_free(tmp_path)
    assert not list(tmp_path.iterdir())
    with run_lock.hold(tmp_path):
        before = (tmp_path / "lock").read_bytes()
        with pytest.raises(run_lock.HeldError, match=f"in use by process {os.getpid()} on"):
            run_lock.check_free(tmp_path)
        assert (tmp_path / "lock").read_bytes() == before
    run_lock.check_free(tmp_path)
