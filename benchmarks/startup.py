"""Seconds that a user waits before the first training step.

    python -m benchmarks.startup

Measured are the import of the models, `launch.py --list` and `--help`, and the time from launching
a small study to the first line of its metrics.jsonl, with an empty and with a filled compile cache.
On a CPU, a run of 100 steps or more compiles its step at each launch, while a plain program makes
the first steps. It is measured too.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.result import compute_range, run_benchmark, write_result

ROOT = Path(__file__).parents[1]
FLAGS = flags.FLAGS
STUDY = ("--experiment=resnet_degradation", "--run=resnet-20")
SHORT = ("--preset=smoke",)
LONG = ("--preset=laptop", "--set=train.log_every=1")


def main() -> None:
    """Times each start, and prints the table and a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:

        def make_folder() -> str:
            return tempfile.mkdtemp(dir=folder)

        warm = make_folder()
        # Fills both caches, JAX's and the disk's.
        time_to_first_step(make_folder(), warm, SHORT, to_the_end=True)
        time_to_first_step(make_folder(), warm, LONG)
        starts: dict[str, Callable[[], float]] = {
            'python -c "import cnn_jax.models"': lambda: time_command(
                "-c", "import cnn_jax.models"
            ),
            "launch.py --list": lambda: time_command("launch.py", "--list"),
            "launch.py --help": lambda: time_command("launch.py", "--help"),
            "launch to first step, cold compile cache": lambda: time_to_first_step(
                make_folder(), make_folder(), SHORT
            ),
            "launch to first step, warm compile cache": lambda: time_to_first_step(
                make_folder(), warm, SHORT
            ),
            "launch to first step, warm compile cache, a long run": lambda: time_to_first_step(
                make_folder(), warm, LONG
            ),
        }
        seconds = {what: [start() for _ in range(FLAGS.repeats)] for what, start in starts.items()}
    rows = {what: compute_range(values) for what, values in seconds.items()}
    print(format_table(rows))
    script = (
        "import json; from cnn_jax.training import environment;"
        " print(json.dumps(environment.describe_environment()))"
    )
    described = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    environment = json.loads(described.stdout.splitlines()[-1])
    write_result({"benchmark": "startup", "seconds": rows, "repeats": FLAGS.repeats, **environment})


def time_command(*words: str) -> float:
    """Returns the seconds that `python <words>` takes; exits if it fails."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(
            f"startup.py: python {' '.join(words)}: exit code {done.returncode}:"
            f" {done.stderr[-300:]}"
        )
    return seconds


def time_to_first_step(
    workdir: str, cache: str, recipe: Sequence[str], to_the_end: bool = False
) -> float:
    """Returns the seconds from launching a small study to its first line of metrics.

    That line is written after the first step.

    Args:
      workdir: The study's folder.
      cache: The folder of the compile cache.
      recipe: Further flags of the launch.
      to_the_end: Whether to let the study finish. Otherwise it is killed after its first line.
    """
    command = [
        sys.executable,
        "launch.py",
        *STUDY,
        *recipe,
        f"--workdir={workdir}",
        f"--compile_cache={cache}",
    ]
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not any(path.stat().st_size for path in Path(workdir).rglob("metrics.jsonl")):
            if process.poll() is not None:
                sys.exit(
                    f"startup.py: {' '.join(command[1:])} ended without a step, exit code"
                    f" {process.returncode}"
                )
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        if not to_the_end:
            process.kill()
    return seconds


def format_table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns a line per start."""
    width = max(map(len, rows))
    lines = [
        f"{what:{width}}  {s['median']:8.2f}  ({s['min']:.2f} - {s['max']:.2f})"
        for what, s in rows.items()
    ]
    return "\n".join([f"{'start':{width}}  {'seconds':>8}  (min - max)", *lines])


if __name__ == "__main__":
    flags.DEFINE_integer("repeats", 5, "Starts of each kind.", lower_bound=1)
    run_benchmark(main)
