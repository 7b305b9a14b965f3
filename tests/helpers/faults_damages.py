"""What else happens to runs: damaged files, disks that are full or become read-only, a second
launch, a process that is stopped.

Each function takes (folder, count) and reports what it injected by count(words, survived).
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cnn_jax.training import checkpoint
from helpers import faults

Count = Callable[[str, bool], None]


def newest(workdir: Path) -> Path:
    """The folder of the newest checkpoint."""
    folder = workdir / "net/seed0"
    return folder / "checkpoints" / str(checkpoint.find_latest_step(folder))


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
    digests.pop(str(checkpoint.find_latest_step(workdir / "net/seed0")), None)
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


def find_whole(root: Path) -> list:
    """What the resident run leaves if nothing happens to it."""
    place = root / "resident" / "run"
    if not place.exists():
        faults.finish("resident", place)
    return faults.describe(place)


def damage_files(root: Path, count: Count) -> None:
    """Damages the newest files of runs that were stopped."""
    for number, (words, damage) in enumerate(DAMAGES.items()):
        workdir = root / f"damage{number}" / "run"
        faults.end(faults.launch("resident", workdir, STOP_AT="150"))
        damage(workdir)
        faults.finish("resident", workdir)
        count(words, faults.describe(workdir) == find_whole(root))


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path | None]:
    """A file system of such a size, or None where it may not be mounted."""
    with tempfile.TemporaryDirectory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        made = subprocess.run(mount, capture_output=True)
        try:
            yield Path(place) if not made.returncode else None
        finally:
            subprocess.run(["umount", place], capture_output=True)


def fill_disk(root: Path, count: Count) -> None:
    """Trains on a disk that becomes full, and goes on when it is larger."""
    with small_disk("700k") as disk:
        if not disk:
            print("a full disk was not tried: mounting one wants root")
            return
        (code,), (printed,) = faults.end([faults.start("resident", disk / "run")])
        told = "no space left" in printed and code == 2
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        faults.finish("resident", disk / "run")
        count("a full disk", told and faults.describe(disk / "run") == find_whole(root))


def wait_for(path: Path) -> None:
    """Waits until a file is there."""
    began = time.monotonic()
    while not path.exists():
        if time.monotonic() - began > faults.MAX_SECONDS:
            raise TimeoutError(str(path))
        time.sleep(0.02)


def forbid_writing(root: Path, count: Count) -> None:
    """Makes the disk read-only in the middle of a run, as the system does after an error of it."""
    with small_disk("50m") as disk:
        if not disk:
            print("a read-only disk was not tried: mounting one wants root")
            return
        process = faults.start("resident", disk / "run")
        wait_for(disk / "run/net/seed0/checkpoints/40")
        # Every path is seen anew, read-only; files that are open are not.
        subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
        (code,), (printed,) = faults.end([process])
        subprocess.run(["umount", str(disk)], check=True)
        told = code == 2 and "ead-only" in printed and "Traceback" not in printed
        if not told:
            print(printed)
        faults.finish("resident", disk / "run")
        count("a read-only disk", told and faults.describe(disk / "run") == find_whole(root))


def launch_twice(root: Path, count: Count) -> None:
    """Launches a run that is on; and again after its end, which left its lock."""
    workdir = root / "twice"
    first = faults.start("resident", workdir, STEPS="100000")
    wait_for(workdir / "net/seed0/checkpoints/20")
    (code,), (printed,) = faults.end([faults.start("resident", workdir, STEPS="100000")])
    refused = code == 2 and f"in use by process {first.pid}" in printed
    count("a second launch", refused and first.poll() is None)
    first.kill()
    first.communicate()
    (code,), _ = faults.end([faults.start("resident", workdir, STEPS="100000", STOP_AT="40")])
    count("a dead one's lock", code == 75)


def stop_one_of_two(root: Path, count: Count) -> None:
    """Stops one of two processes, as a debugger or a machine that hangs does; the other ends."""
    workdir = root / "stopped" / "run"
    whole = root / "pair" / "run"
    if not whole.exists():
        faults.finish("pair", whole)
    processes = faults.launch("pair", workdir)
    wait_for(workdir / "net/seed0/checkpoints/40")
    with open(f"/proc/{processes[1].pid}/task/{processes[1].pid}/children") as children:
        worker = int(children.read().split()[0])
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    processes[0].wait(timeout=faults.MAX_SECONDS)
    waited = time.monotonic() - began
    os.kill(worker, signal.SIGCONT)
    codes, printed = faults.end(processes)
    told = codes == [75, 75] and "another process of this run has ended" in printed[0]
    if not told or waited > 60:
        print(codes, f"{waited:.0f} s", *printed)
    faults.finish("pair", workdir)
    count(
        "one of two processes stopped", told and faults.describe(workdir) == faults.describe(whole)
    )


ALL = (damage_files, fill_disk, forbid_writing, launch_twice, stop_one_of_two)
