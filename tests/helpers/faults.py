"""Kills runs at random moments and damages what they saved: make test-faults, or python
tests/helpers/faults.py --kills=100.

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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

CHILD = Path(__file__).with_name("faults_child.py")
sys.path.insert(0, str(CHILD.parents[2]))

from cnn_jax.training import checkpoint, metrics_log  # noqa: E402

TIMES = ("images_per_s", "data_time", "step_time", "wall_s")
RUNS = ("resident", "streamed")
# Seconds from the signal to the end.
ENDINGS: dict[int, list[float]] = {signal.SIGKILL: [], signal.SIGTERM: []}


def start(run: str, workdir: Path, **env: str) -> subprocess.Popen:
    """The run in a process of its own, from wherever the workdir stands."""
    command = [sys.executable, str(CHILD), run, str(workdir)]
    surroundings = os.environ | {"JAX_PLATFORMS": "cpu"} | env
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings
    )


def finish(run: str, workdir: Path) -> str:
    """Continues the run to its end; what it printed."""
    process = start(run, workdir)
    printed, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"{run} ended with {process.returncode}:\n{printed[-2000:]}")
    return printed


def outcome(workdir: Path) -> tuple[list[bytes], list[dict]]:
    """The final state's bytes, and the metrics but for their times."""
    folder = workdir / "net/seed0"
    with checkpoint.manager(folder) as saved:
        last = checkpoint.restore_all(saved, saved.latest_step())
    events = [
        {k: v for k, v in event.items() if k not in TIMES}
        for event in metrics_log.read_events(folder)
    ]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(last)], events


def kill(
    process: subprocess.Popen, number: int, rng: random.Random, seconds: tuple[float, float]
) -> bool:
    """Sends the signal at a moment between; False if it had ended before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=rng.uniform(*seconds))
        return False
    process.send_signal(number)
    began = time.monotonic()
    process.communicate(timeout=20)
    ENDINGS[number].append(time.monotonic() - began)
    return True


def newest(workdir: Path) -> Path:
    """The folder of the newest checkpoint."""
    folder = workdir / "net/seed0"
    return folder / "checkpoints" / str(checkpoint.latest_step(folder))


def largest(folder: Path) -> Path:
    """The file that holds the arrays."""
    return max(
        (file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )


def truncated(workdir: Path) -> None:
    """The newest checkpoint's largest file loses its second half."""
    file = largest(newest(workdir))
    os.truncate(file, file.stat().st_size // 2)


def flipped(workdir: Path) -> None:
    """One bit in the middle of it is another."""
    file = largest(newest(workdir))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def deleted(workdir: Path) -> None:
    """It is gone."""
    largest(newest(workdir)).unlink()


def undigested(workdir: Path) -> None:
    """The newest checkpoint's checksums are gone, as after a kill between the two."""
    path = workdir / "net/seed0/digests.json"
    digests = json.loads(path.read_text())
    digests.pop(str(checkpoint.latest_step(workdir / "net/seed0")), None)
    path.write_text(json.dumps(digests))


def torn(workdir: Path) -> None:
    """A line of the metrics is half written: one after the newest checkpoint, before which lines
    are synchronised.
    """
    with open(workdir / "net/seed0/metrics.jsonl", "a") as lines:
        lines.write('{"event": "train", "step": 15')


DAMAGES: dict[str, Callable[[Path], None]] = {
    "newest checkpoint truncated": truncated,
    "a bit of it flipped": flipped,
    "its data file deleted": deleted,
    "its checksums missing": undigested,
    "last line of metrics torn": torn,
}


@contextlib.contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system of 700 kB, or None where it may not be mounted."""
    with tempfile.TemporaryDirectory() as place:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", place], capture_output=True
        )
        try:
            yield Path(place) if not made.returncode else None
        finally:
            subprocess.run(["umount", place], capture_output=True)


def main() -> int:
    """All faults, in turns; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, table, began = random.Random(given.seed), {}, time.monotonic()

    def count(fault: str, survived: bool) -> None:
        row = table.setdefault(fault, [0, 0])
        row[0] += 1
        row[1] += survived
        print(
            f"{time.monotonic() - began:4.0f} s  {fault}: {'survived' if survived else 'LOST'}",
            file=sys.stderr,
        )

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        whole, takes = {}, {}
        for run in RUNS:
            started = time.monotonic()
            finish(run, root / run)
            takes[run], whole[run] = time.monotonic() - started, outcome(root / run)
        kinds, done, series = ("SIGKILL", "SIGKILL", "SIGKILL in a save", "SIGTERM"), 0, 0
        while done < given.kills:
            run, workdir, suffered = RUNS[series % len(RUNS)], root / f"series{series}", []
            while done + len(suffered) < given.kills and len(suffered) < 8:
                kind = kinds[len(suffered) % len(kinds)]
                if kind == "SIGKILL in a save":
                    process = start(run, workdir, KILL_IN_SAVE=str(rng.uniform(0, 0.08)))
                    process.communicate(timeout=300)
                    hit = process.returncode == -signal.SIGKILL
                else:
                    number = getattr(signal, kind)
                    hit = kill(start(run, workdir), number, rng, (0.3 * takes[run], takes[run]))
                if not hit:
                    break
                suffered.append(kind)
            finish(run, workdir)
            same = outcome(workdir) == whole[run]
            for kind in suffered:
                count(f"{kind} ({run})", same)
            done, series = done + len(suffered), series + 1
            shutil.rmtree(workdir)
        for number, (words, damage) in enumerate(DAMAGES.items()):
            run, workdir = RUNS[number % len(RUNS)], root / f"damage{number}"
            process = start(run, workdir, STOP_AT="150")
            process.communicate(timeout=300)
            damage(workdir)
            finish(run, workdir)
            count(words, outcome(workdir) == whole[run])
            shutil.rmtree(workdir)
        with small_disk() as disk:
            if disk:
                process = start("resident", disk / "run")
                printed, _ = process.communicate(timeout=300)
                told = "no space left" in printed and process.returncode == 2
                subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
                finish("resident", disk / "run")
                count("disk full", told and outcome(disk / "run") == whole["resident"])
            else:
                print("a full disk was not tried: mounting one wants root")
        first = start("resident", root / "twice", STEPS="100000")
        while not (root / "twice/net/seed0/checkpoints/20").exists():
            time.sleep(0.1)
        second = start("resident", root / "twice", STEPS="100000")
        printed, _ = second.communicate(timeout=60)
        refused = second.returncode == 2 and f"in use by process {first.pid}" in printed
        count("a second launch", refused and first.poll() is None)
        first.kill()
        first.communicate()
        third = start("resident", root / "twice", STEPS="100000", STOP_AT="40")
        third.communicate(timeout=60)
        count("a dead one's lock", third.returncode == 75)

    print(f"{'injected':<34} {'times':>5} {'survived':>9}")
    for fault, (times, survived) in table.items():
        print(f"{fault:<34} {times:>5} {survived:>9}")
    slowest = max(ENDINGS[signal.SIGTERM], default=0.0)
    print(f"slowest end after SIGTERM: {slowest:.1f} s (at most 10)")
    lost = int(slowest > 10) + sum(times - survived for times, survived in table.values())
    kills = sum(times for fault, (times, _) in table.items() if fault.startswith("SIG"))
    print(
        f"{kills} kills; runs lost or not bit-identical: {lost}; {time.monotonic() - began:.0f} s"
    )
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
