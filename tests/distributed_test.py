"""Two processes of four devices equal one of eight; if one dies, both resume exactly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import faults
from helpers.faults import end

from cnn_jax import data, distributed
from cnn_jax.config import Data, choose
from cnn_jax.errors import UserError
from cnn_jax.training import run_lock

ROOT = Path(__file__).parents[1]


def start(run, workdir, devices, **env):
    """Starts the run in one process per entry of `devices`, its number of devices."""
    each = [
        {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"} | env for count in devices
    ]
    if len(devices) == 1:
        return [faults.start(run, workdir, **each[0])]
    return faults.start_several(run, workdir, *each)


def check_close(ours, alone):
    """Checks that two leaves are equal, or float32 that differ by the rounding of reordered sums.

    The largest measured differences are 1.3e-6 of a leaf's largest value and 4e-7 of a loss. Values
    that are rounding errors themselves, such as gradients of a bias before batch norm, differ by
    3e-7.
    """
    if ours == alone:
        return
    ours, alone = np.frombuffer(ours, np.float32), np.frombuffer(alone, np.float32)
    largest = np.abs(alone).max()
    assert ours.size > 1 or largest > 1e-30, "a counter differs"
    np.testing.assert_allclose(ours, alone, rtol=0, atol=1e-5 * largest + 1e-6)


@pytest.mark.parametrize("run, steps", [("resident", "100"), ("streamed", "60")])
def test_two_processes_equal_one_and_resume_exactly(run, steps, tmp_path):
    whole, alone, cut = (tmp_path / name for name in ("whole", "alone", "cut"))
    codes, printed = end(start(run, whole, (4, 4), STEPS=steps))
    assert codes == [0, 0], printed
    state, events = faults.outcome(whole)
    written = {
        path.name for path in (whole / "net/seed0/checkpoints").glob("*/state/ocdbt.process_*")
    }
    assert written == {"ocdbt.process_0", "ocdbt.process_1"}

    codes, printed = end(start(run, alone, (8,), STEPS=steps))
    assert codes == [0], printed
    alone_state, alone_events = faults.outcome(alone)
    assert [(e["event"], e["step"]) for e in events] == [
        (e["event"], e["step"]) for e in alone_events
    ]
    for a, b in zip(events, alone_events, strict=True):
        assert a.get("loss", 0) == pytest.approx(b.get("loss", 0), rel=1e-5)
    for a, b in zip(state, alone_state, strict=True):
        check_close(a, b)

    started = start(run, cut, (4, 4), STEPS=steps)
    while not (cut / "net/seed0/checkpoints/40").exists():
        time.sleep(0.02)
        assert all(process.poll() is None for process in started)
    started[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    codes, (printed, _) = end(started)
    assert time.monotonic() - killed < 60
    assert codes == [75, -signal.SIGKILL] and "another process of this run has ended" in printed
    codes, printed = end(start(run, cut, (4, 4), STEPS=steps))
    assert codes == [0, 0], printed
    assert faults.outcome(cut) == (state, events)


def test_a_signal_to_one_stops_all_after_the_same_step(tmp_path):
    started = start("resident", tmp_path, (4, 4))
    while not (tmp_path / "net/seed0/checkpoints/20").exists():
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    codes, printed = end(started, 30)
    assert codes == [75, 75]
    said = {line for text in printed for line in text.splitlines() if "is saved" in line}
    assert len(said) == 1 and "stopped by SIGTERM at step" in said.pop()


def test_a_signal_before_the_first_step_is_not_lost(tmp_path):
    codes, printed = end(start("resident", tmp_path, (4, 4), STEPS="100000", STOP_AT="20"))
    assert codes == [75, 75], printed
    started = start("resident", tmp_path, (4, 4), STEPS="100000")
    while len((tmp_path / "net/seed0/starts.jsonl").read_text().splitlines()) < 2:
        time.sleep(0.02)
        assert all(process.poll() is None for process in started)
    started[0].send_signal(signal.SIGTERM)  # While it is compiled.
    codes, printed = end(started, 60)
    assert codes == [75, 75] and "stopped by SIGTERM at step" in printed[0]


def test_a_process_that_finds_no_other_gives_an_error(tmp_path):
    code = (
        "from cnn_jax import distributed; distributed.CONNECT = 2;"
        " distributed.initialize('localhost:{}', {}, 2)"
    )
    for number in (0, 1):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            alone = [sys.executable, "-c", code.format(free.getsockname()[1], number)]
        done = subprocess.run(alone, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "did not find one another" in done.stderr


def test_an_error_in_one_process_ends_all(tmp_path):
    (tmp_path / "net/seed0").mkdir(parents=True)
    with run_lock.hold(tmp_path / "net/seed0"):  # Only process 0 sees it.
        codes, printed = end(start("resident", tmp_path, (4, 4)), 60)
    assert codes == [2, 75] and f"in use by process {os.getpid()}" in printed[0]
    assert "another process of this run has ended" in printed[1]


def test_processes_of_different_settings_end_before_anything_is_written(tmp_path):
    one = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    other = one | {"SET": "schedule.base=0.5"}
    started = faults.start_several("resident", tmp_path, one, other)
    codes, printed = end(started, 60)
    assert codes == [2, 2], printed
    for text in printed:
        assert "processes 0 and 1 of this run differ in schedule.base: 0.02 and 0.5" in text
    assert not list(tmp_path.iterdir())


def test_agreement_names_the_first_field(monkeypatch):
    """As seen by one of two processes; the other has more steps and another commit."""
    from jax.experimental import multihost_utils

    mine, theirs = (
        {"train.steps": "3", "commit": "a"},
        {"train.steps": "4", "commit": "b", "more": "x"},
    )
    texts = [np.frombuffer(json.dumps(fields).encode(), np.uint8) for fields in (mine, theirs)]
    size = max(map(len, texts))

    def gather(x):
        if x.ndim == 0:
            return np.array([len(text) for text in texts])
        return np.stack([np.pad(text, (0, size - len(text))) for text in texts])

    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    with pytest.raises(
        UserError, match=r"processes 0 and 1 of this run differ in train\.steps: 3 and 4"
    ):
        distributed.check_agreement(mine)
    texts[1] = texts[0]
    distributed.check_agreement(mine)


def test_each_process_reads_its_rows_alone():
    config = Data(
        dataset=choose("fake"), batch_size=16, pad_and_crop=0, train_resize=(12, 16), image_size=12
    )
    source = data.load_dataset(config)
    read = []

    class Counted(type(source.train)):
        def __getitem__(self, index):
            read.append(index)
            return source.train[index]

    counted = Counted.__new__(Counted)
    counted.__dict__.update(vars(source.train))
    from cnn_jax.data import streaming

    whole = streaming.StreamedBatches(config, source.train, 0)[3]
    halves = [streaming.StreamedBatches(config, counted, 0, (part, 2))[3] for part in (0, 1)]
    assert read == [int(i) for half in halves for i in half["index"]] == whole["index"].tolist()
    for name, x in whole.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), x)


@pytest.mark.parametrize(
    "given, said",
    [
        (("localhost:1", None, 2), "go together"),
        ((None, 0, 2), "go together"),
        (("auto", 0, 2), "goes alone"),
        (("localhost", 0, 2), "must be process 0's host:port"),
        (("localhost:1", 2, 2), "--process_id=2: is not one of 0 to 1"),
    ],
)
def test_invalid_combinations_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        distributed.initialize(*given)


@pytest.mark.parametrize(
    "env, several",
    [
        ({}, False),
        # A shell in an allocation is not a task of srun.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_are_detected(monkeypatch, env, several):
    for name in distributed.COUNTS:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert distributed.was_launched() == several


def test_a_single_process_does_nothing(monkeypatch):
    for name in distributed.COUNTS:
        monkeypatch.delenv(name, raising=False)
    code = (
        "from cnn_jax import distributed; distributed.initialize(None, None, None); import sys;"
        " print('jax' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert found.stdout == "False\n"
