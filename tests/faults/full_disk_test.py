"""A full disk, or one without room for another file: one line, nothing lost, no traceback."""

import dataclasses
import gc
import subprocess
import time

import pytest
from helpers import budget, shared_programs
from helpers.small_run import RUN, TIMES

from cnn_jax import cli
from cnn_jax.config import choose
from cnn_jax.study import Row, Study
from cnn_jax.training import metrics_log, train

# From no room at all to room for all but the report.
SIZES = budget.choose(
    ("size=52k", "size=50m,nr_inodes=8"),
    (
        *(f"size={kilobytes}k" for kilobytes in range(4, 260, 8)),
        *(f"size=50m,nr_inodes={files}" for files in range(2, 90, 2)),
    ),
)


def make_study(preset):
    run = dataclasses.replace(RUN, study="full", protocols=(choose("single"),))
    return Study("full", "Full", "Nobody", "", preset, {"net": run}, (Row("net", "Net", "", ""),))


@pytest.fixture
def mount(tmp_path):
    """Mounts a file system of a size at the folder that it returns."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True
        )
        if made.returncode:
            pytest.skip("only root may mount a file system")
        return place

    yield mount
    for lazy in ([], [], [], ["-l"]):
        if not subprocess.run(["umount", *lazy, place], capture_output=True).returncode:
            break
        time.sleep(0.1)


def events(folder):
    return [{k: v for k, v in e.items() if k not in TIMES} for e in metrics_log.read_events(folder)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The events of the run where there is room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_program", shared_programs.build_program)
        folder = tmp_path_factory.mktemp("room")
        train.run(make_study("laptop").runs["net"], folder)
        yield events(folder / "net/seed0")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Of files left.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("size", SIZES)
def test_a_full_disk_is_one_line_and_loses_nothing(size, mount, undisturbed, capfd, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr("cnn_jax.cli.command.prepare_jax", lambda compile_cache: None)
    place = mount(size)
    words = ["launch.py", "--experiment=full", f"--workdir={place}/w"]
    code = cli.execute(words, {"full": make_study}, {})
    said = capfd.readouterr().err
    if code == 0 and budget.LONG:
        pytest.skip("there is room for all of it")
    assert code == 2 and said.count("\n") == 1, said
    assert "o space left" in said and "make room" in said
    subprocess.run(["mount", "-o", "remount,size=50m,nr_inodes=10k", place], check=True)
    assert cli.execute(words, {"full": make_study}, {}) == 0, capfd.readouterr().err
    assert events(place / "w/net/seed0") == undisturbed
    gc.collect()  # Orbax's coroutines of the failed save complain when they are collected.
