"""Seconds that a user waits before anything is trained.

python -m benchmarks.startup
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.result import spread, tell

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
STUDY = ("--experiment=resnet_degradation", "--preset=smoke", "--run=resnet-20")


def main(argv: list[str]) -> None:
    """Times each start, and prints the table and a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = lambda: tempfile.mkdtemp(dir=folder)
        warm = fresh()
        first_step(fresh(), warm, to_the_end=True)  # fills the cache, and warms the disk's
        starts: dict[str, Callable[[], float]] = {
            'python -c "import cnn_jax.models"': lambda: ended("-c", "import cnn_jax.models"),
            "launch.py --list": lambda: ended("launch.py", "--list"),
            "launch.py --help": lambda: ended("launch.py", "--help"),
            "launch to first step, cold compile cache": lambda: first_step(fresh(), fresh()),
            "launch to first step, warm compile cache": lambda: first_step(fresh(), warm),
        }
        found = {what: [start() for _ in range(FLAGS.repeats)] for what, start in starts.items()}
    rows = {what: spread(seconds) for what, seconds in found.items()}
    print(table(rows))
    script = "import json; from cnn_jax.training import metrics_log; print(json.dumps(metrics_log.describe_environment()))"
    about = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told = json.loads(about.stdout.splitlines()[-1])
    tell({"benchmark": "startup", "seconds": rows, "repeats": FLAGS.repeats, **told})


def ended(*words: str, code: int = 0) -> float:
    """Seconds until `python words` has ended."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode != code:
        sys.exit(
            f"startup.py: python {' '.join(words)}: exit code {done.returncode}: {done.stderr[-300:]}"
        )
    return took


def first_step(workdir: str, cache: str, to_the_end: bool = False) -> float:
    """Seconds from the launch of a small study to its first line of metrics, which the first step writes."""
    command = [
        sys.executable,
        "launch.py",
        *STUDY,
        f"--workdir={workdir}",
        f"--compile_cache={cache}",
    ]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not any(path.stat().st_size for path in Path(workdir).rglob("metrics.jsonl")):
            if process.poll() is not None:
                sys.exit(
                    f"startup.py: {' '.join(command[1:])} ended without a step, exit code {process.returncode}"
                )
            time.sleep(0.005)
        took = time.perf_counter() - began
        if not to_the_end:
            process.kill()
    return took


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a start."""
    width = max(map(len, rows))
    lines = [
        f"{what:{width}}  {s['median']:8.2f}  ({s['min']:.2f} - {s['max']:.2f})"
        for what, s in rows.items()
    ]
    return "\n".join([f"{'start':{width}}  {'seconds':>8}  (min - max)", *lines])


if __name__ == "__main__":
    flags.DEFINE_integer("repeats", 5, "Starts of each kind.", lower_bound=1)
    app.run(main)
