"""Workers: killed ones are replaced, all end with the program, and failures give one line."""

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cnn_jax.data import workers
from cnn_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder of two classes with six noisy images."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir()
        for i in range(6):
            cv2.imwrite(str(root / name / f"{i}.png"), rng.integers(0, 256, (20, 30, 3), np.uint8))
    return root


def square(n):
    return {"x": np.full(3, n * n)}


# The remains of a killed worker warn when they are collected: at the end of each test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collect_what_is_left():
    yield
    gc.collect()


def test_workers_that_are_killed_are_replaced(capfd):
    results, found = workers.prefetch_decoded(square, range(3, 100), 2), []
    # Some results are always ready when a worker is killed, so the second kill comes well
    # before the end.
    for number in range(60):
        if number in (2, 30):
            for worker in multiprocessing.active_children():
                worker.kill()
        found.append(next(results)["x"].tolist())
    results.close()
    assert found == [[n * n] * 3 for n in range(3, 63)]
    assert capfd.readouterr().err.count("was killed: all are restarted") == 2
    assert not multiprocessing.active_children()


def kill_itself(n):
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_keep_dying_give_an_error():
    with pytest.raises(UserError, match=r"were killed 3 times: .* --set data\.workers=1"):
        next(workers.prefetch_decoded(kill_itself, range(1, 9), 2))


@pytest.mark.parametrize("count", [0, 2])
def test_results_come_in_order_and_end(count):
    results = workers.prefetch_decoded(square, range(2, 7), count)
    assert [int(r["x"][0]) for r in results] == [4, 9, 16, 25, 36]


def die_of_shared_memory(n):
    os.kill(os.getpid(), signal.SIGBUS)  # As a process does that writes without memory.


def test_full_shared_memory_gives_the_remedies(monkeypatch):
    said = "shared memory /dev/shm .*MB free.* is full.*--shm-size.*data.workers=0"
    with pytest.raises(UserError, match=said):
        next(workers.prefetch_decoded(die_of_shared_memory, range(9), 1))

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(workers, "_prefetch", fail)
    with pytest.raises(UserError, match=said):
        next(workers.prefetch_decoded(square, range(9), 1))


def test_processes_that_cannot_be_started_give_an_error(monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        yield

    monkeypatch.setattr(workers, "_prefetch", fail)
    with pytest.raises(
        UserError, match=r"data\.workers=3: .* cannot be started \(Too many open files\)"
    ):
        next(workers.prefetch_decoded(square, range(9), 3))


SCRIPT = """
import sys
from cnn_jax.data import workers
def f(n):
    return {"n": n}
print("the script runs", flush=True)
results = workers.prefetch_decoded(f, range(9), 2)
next(results)
"""


def run(command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, **options
    )


def test_a_script_without_a_main_guard_gives_an_error_at_once(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run([sys.executable, tmp_path / "script.py"])
    assert "UserError: data.workers=2: each worker process imports the program" in done.stderr
    assert 'put what it does under `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("Traceback") == 1 and done.returncode == 1
    assert 1 <= done.stdout.count("the script runs") <= 3  # Once, and once in each worker.


def test_a_script_whose_workers_fail_while_importing_it_gives_an_error(tmp_path):
    failing = 'if __name__ != "__main__":\n    raise SystemExit(3)\n'
    (tmp_path / "script.py").write_text(failing + SCRIPT)
    done = run([sys.executable, tmp_path / "script.py"])
    assert "if it is a script, put what it does under" in done.stderr


def test_a_program_from_standard_input_gives_an_error():
    done = run([sys.executable, "-"], input=SCRIPT)
    assert "the program, which comes from <stdin>: put it in a file" in done.stderr


PROGRAM = """
import os, signal, sys, time
from cnn_jax import data
from cnn_jax.config import Data, parse_dataset
if __name__ == "__main__":
    # A shell's background jobs would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = Data(
        dataset=parse_dataset("folder:" + sys.argv[1]), train_resize=(12,), image_size=8,
        batch_size=6, subtract_mean="none", workers=2,
    )
    items = data.make_loader(settings, data.load_dataset(settings), 0).batches(0)
    next(items)
    print("going", flush=True)
    if sys.argv[2] == "wait":
        time.sleep(60)
"""


@pytest.mark.parametrize("ended", ["by itself", signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_program(folder, tmp_path, ended):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    wait = "no" if ended == "by itself" else "wait"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(program), str(folder), wait],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "going\n"
        if wait == "wait":
            if ended == signal.SIGINT:
                os.killpg(process.pid, ended)  # As Ctrl-C does.
            else:
                process.kill()
        _, said = process.communicate(timeout=30)
    if ended != signal.SIGKILL:  # Python's own resource tracker reports it.
        assert "leaked" not in said and said.count("Traceback") == (ended == signal.SIGINT), said
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _group(process.pid):
        time.sleep(0.1)
    assert not _group(process.pid)


def _group(group):
    """Returns the living processes of a group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
