"""Kills runs at random moments and in every write, and damages what they saved.

make test-faults, or python tests/helpers/faults.py --kills=100.

Every run must end with the bits and the metrics of one that nothing happened to. Prints what was
injected, how often, and what survived; exit code 1 if anything was lost.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("faults_child.py")
sys.path.insert(0, str(CHILD.parents[1]))
sys.path.insert(0, str(CHILD.parents[2]))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from cnn_jax.training import checkpoint, metrics_log, saved_parameters  # noqa: E402
from helpers.deadly_writes import MOMENTS  # noqa: E402

TIMES = ("images_per_s", "data_time", "step_time", "wall_s")
# Killed at random moments; a pair is the resident run in two processes.
RUNS = ("resident", "streamed", "together", "pair")
KINDS = ("SIGKILL", "SIGKILL", "SIGKILL in a save", "SIGTERM")
MAX_KILLS_PER_RUN = 8
MAX_SECONDS = 900  # Of one launch; a few seconds on an idle machine.
# Of one process of a pair; the other notices its end after so many seconds.
ONE_OF_TWO = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "HEARTBEAT": "10"}
# Every file of a study, in the order of writing: (in words, pattern of its path); those of one name
# alone are appended to.
WRITERS = (
    ("the folder's index", "folders/*"),
    ("study.json", "study.json"),
    ("crops.png", "crops.png"),
    ("config.json", "config.json"),
    ("data.json", "data.json"),
    ("metrics.jsonl, whole", "net/seed0/metrics.jsonl"),
    ("starts.jsonl", "starts.jsonl"),
    ("layers.jsonl, a line", "layers.jsonl"),
    ("metrics.jsonl, a line", "metrics.jsonl"),
    ("TensorBoard's events", "events"),
    ("a checkpoint", ""),
    ("digests.json", "digests.json"),
    ("layers.jsonl, whole", "net/seed0/layers.jsonl"),
    ("a test's result", "evaluations/*.json"),
    ("a figure", "report.png"),
    ("report.md", "report.md"),
    ("report.html", "report.html"),
)
APPENDED = ("layers.jsonl", "metrics.jsonl", "events")


def start(run: str, workdir: Path, **env: str) -> subprocess.Popen:
    """The run in a process of its own, from wherever the workdir stands."""
    command = [sys.executable, str(CHILD), run, str(workdir)]
    surroundings = os.environ | {"JAX_PLATFORMS": "cpu"} | env
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings
    )


def start_several(run: str, workdir: Path, *environments: dict[str, str]) -> list[subprocess.Popen]:
    """The run in several processes that train it together, each with its own environment."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        start(run, workdir, **env, COORDINATOR=f"localhost:{port}", PROCESS=str(i))
        for i, env in enumerate(environments)
    ]


def end(
    started: Sequence[subprocess.Popen], seconds: float = MAX_SECONDS
) -> tuple[list[int], list[str]]:
    """Waits for the processes; returns their exit codes and output."""
    printed = [process.communicate(timeout=seconds)[0] for process in started]
    return [process.returncode for process in started], printed


def launch(run: str, workdir: Path, **env: str) -> list[subprocess.Popen]:
    """The processes of one of RUNS, or of the study."""
    if run == "pair":
        return start_several("resident", workdir, ONE_OF_TWO | env, ONE_OF_TWO | env)
    if run == "study":
        env = {"XDG_CACHE_HOME": str(workdir.with_name("cache"))} | env
    return [start(run, workdir, **env)]


def finish(run: str, workdir: Path) -> str:
    """Continues the run to its end; what it printed."""
    codes, printed = end(launch(run, workdir))
    if any(codes):
        raise RuntimeError(f"{run} ended with {codes}:\n{printed[0][-2000:]}")
    return printed[0]


def outcome(workdir: Path, seed: int = 0) -> tuple[list[bytes], list[dict]]:
    """The final state's bytes, and the metrics but for their times."""
    folder = workdir / f"net/seed{seed}"
    with checkpoint.make_manager(folder) as saved:
        last = saved_parameters.restore_all(saved, saved.latest_step())
    events = [
        {k: v for k, v in event.items() if k not in TIMES}
        for event in metrics_log.read_events(folder)
    ]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(last)], events


def describe(workdir: Path) -> list[Any]:
    """What a run or a study leaves, but for times: states, metrics, settings and results."""
    seeds = sorted(int(folder.name[4:]) for folder in workdir.glob("net/seed*"))
    found: list[Any] = [outcome(workdir, seed) for seed in seeds]
    for folder in sorted(workdir.glob("net/seed*")):
        for name in ("config.json", "data.json", "digests.json", "evaluations/single.json"):
            path = folder / name
            found.append(json.loads(path.read_text()) if path.exists() else name)
        path = folder / "layers.jsonl"
        found.append(path.read_text() if path.exists() else "")
    found.append(sorted(path.name for path in workdir.iterdir() if path.suffix != ".part"))
    report = workdir / "report.md"
    found.append(report.exists() and "amaged" in report.read_text())
    return found


def kill(
    processes: Sequence[subprocess.Popen],
    number: int,
    rng: random.Random,
    seconds: tuple[float, float],
    endings: list[float],
) -> bool:
    """Sends the signal at a moment between; False if the run had ended before.

    Of two processes, one is hit, or, by every third SIGKILL, both.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        processes[0].communicate(timeout=rng.uniform(*seconds))
        end(processes)
        return False
    hit = [rng.choice(processes)]
    if number == signal.SIGKILL and rng.random() < 1 / 3:
        hit = list(processes)
    for process in hit:
        process.send_signal(number)
    began = time.monotonic()
    end(processes)
    if number == signal.SIGTERM and len(processes) == 1:
        endings.append(time.monotonic() - began)
    return True


def kill_in_save(run: str, workdir: Path, rng: random.Random) -> bool:
    """Has the run, or one process of two, end in a save; False if it had ended before."""
    moment = {"KILL_IN_SAVE": str(rng.uniform(0, 0.08))}
    if run != "pair":
        processes = launch(run, workdir, **moment)
    else:
        both = [ONE_OF_TWO, ONE_OF_TWO | moment]
        rng.shuffle(both)
        processes = start_several("resident", workdir, *both)
    codes, _ = end(processes)
    return -signal.SIGKILL in codes or 128 + signal.SIGKILL in codes


Count = Callable[[str, bool], None]


def kill_at_random(
    kills: int, root: Path, rng: random.Random, count: Count, endings: list[float]
) -> None:
    """Kills the runs at random moments, several times each before they may finish."""
    whole: dict[str, list[Any]] = {}
    takes: dict[str, float] = {}
    for run in RUNS:
        finish(run, root / run / "run")  # Compiles.
        shutil.rmtree(root / run)
        began = time.monotonic()
        finish(run, root / run / "run")
        takes[run], whole[run] = time.monotonic() - began, describe(root / run / "run")
    done = series = 0
    while done < kills:
        run = RUNS[series % len(RUNS)]
        workdir, suffered = root / f"series{series}" / "run", list[str]()
        while done + len(suffered) < kills and len(suffered) < MAX_KILLS_PER_RUN:
            kind = KINDS[len(suffered) % len(KINDS)]
            if kind == "SIGKILL in a save":
                hit = kill_in_save(run, workdir, rng)
            else:
                number, moments = getattr(signal, kind), (0.3 * takes[run], takes[run])
                hit = kill(launch(run, workdir), number, rng, moments, endings)
            if not hit:
                break
            suffered.append(kind)
        finish(run, workdir)
        same = describe(workdir) == whole[run]
        for kind in suffered:
            count(f"{kind} ({run})", same)
        done, series = done + len(suffered), series + 1
        shutil.rmtree(workdir.parent)


def make_images(folder: Path) -> None:
    """Writes two classes of small photographs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind, count in {"train": 24, "val": 10}.items():
        for name in ("a", "b"):
            (folder / kind / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (18, 20, 3), np.uint8)
                Image.fromarray(pixels).save(folder / kind / name / f"{number}.png")


def kill_in_writes(kills: int, root: Path, rng: random.Random, count: Count) -> None:
    """Kills a study in the write of each of its files, one after the other, at each moment."""
    make_images(root / "images")
    finish("study", root / "whole")
    whole, left = describe(root / "whole"), kills
    for turn, moment in enumerate(MOMENTS):
        if left <= 0:
            break
        shutil.rmtree(root / "cache", ignore_errors=True)
        workdir, suffered = root / f"study{turn}", list[str]()
        for words, pattern in WRITERS[:left]:
            if pattern:
                when = str(turn + 2) if pattern in APPENDED else moment
                env = {"KILL_IN_WRITE": f"{pattern},{when}"}
            else:
                env = {"KILL_IN_SAVE": str(rng.uniform(0, 0.08))}
            codes, printed = end(launch("study", workdir, **env))
            if codes != [-signal.SIGKILL]:
                raise RuntimeError(f"no write of {words} was met: {codes}\n{printed[0][-2000:]}")
            suffered.append(words)
        finish("study", workdir)
        same = describe(workdir) == whole
        for words in suffered:
            count(f"SIGKILL in a write of {words}", same)
        left -= len(suffered)


@contextlib.contextmanager
def compile_cache(folder: Path) -> Iterator[None]:
    """Has processes that are started meanwhile keep and find what they compile."""
    folder.mkdir()
    settings = {"JAX_COMPILATION_CACHE_DIR": str(folder)}
    settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def main() -> int:
    """All faults, in turns; returns the exit code."""
    from helpers import faults_damages

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, began = random.Random(given.seed), time.monotonic()
    table: dict[str, list[int]] = {}
    endings: list[float] = []

    def count(fault: str, survived: bool) -> None:
        row = table.setdefault(fault, [0, 0])
        row[0] += 1
        row[1] += survived
        words = f"{fault}: {'survived' if survived else 'LOST'}"
        print(f"{time.monotonic() - began:4.0f} s  {words}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as place, compile_cache(Path(place) / "compiled"):
        root = Path(place)
        in_writes = min(len(MOMENTS) * len(WRITERS), given.kills // 2)
        kill_in_writes(in_writes, root, rng, count)
        kill_at_random(given.kills - in_writes, root, rng, count, endings)
        for inject in faults_damages.ALL:
            inject(root, count)

    print(f"{'injected':<48} {'times':>5} {'survived':>9}")
    for fault, (times, survived) in table.items():
        print(f"{fault:<48} {times:>5} {survived:>9}")
    slowest = max(endings, default=0.0)
    print(f"slowest end after SIGTERM: {slowest:.1f} s (at most 10)")
    lost = sum(times - survived for times, survived in table.values())
    kills = sum(times for fault, (times, _) in table.items() if fault.startswith("SIG"))
    print(
        f"{kills} kills; runs lost or not bit-identical: {lost}; {time.monotonic() - began:.0f} s"
    )
    return int(lost > 0 or slowest > 10)


if __name__ == "__main__":
    sys.exit(main())
