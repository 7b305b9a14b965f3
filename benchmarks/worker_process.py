"""Starts the process of a peer (`benchmarks.worker`), asks it for timed steps, and ends it."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers import Spec

ROOT = Path(__file__).parents[1]
UNFILTERED = {"JAX_TRACEBACK_FILTERING": "off"}  # Else an error's last line is JAX's remark on it.


class WorkerError(RuntimeError):
    """A peer cannot be timed. The message follows the peer's name."""


class Worker:
    """A peer in its own process (`benchmarks.worker`), which lives as long as the `with` block.

    Every method raises WorkerError if the process has died.

    Attributes:
      losses: Losses of the first three steps.
      first_s: Seconds of the first step, which traces and compiles.
      step_s: Seconds per step in the last measurement.
      blocks: Seconds per step in each timed block.
      peak_mib: Peak memory in MiB.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec, self.variant = spec, spec.variant
        self.blocks, self.peak_mib, self.step_s = [], 0.0, 0.0
        # __exit__ closes it.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.worker", spec.peer]
        self.process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=self.stderr,
            text=True,
            cwd=ROOT,
            env=make_worker_environment(spec),
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.stderr.close()

    def wait_for_import(self) -> None:
        """Waits until the process has imported its framework, or has failed to."""
        self.process.stdout.readline()

    def take_first_steps(self) -> None:
        """Builds the peer and takes three steps, of which the first compiles."""
        first = self._ask(json.dumps(self.spec._asdict()))
        self.losses, self.first_s, self.step_s = first["losses"], first["first_s"], first["step_s"]

    def time_steps(self, seconds: float) -> float:
        """Times as many steps as fill `seconds` at the last measured speed.

        An untimed step comes first, unless one step alone fills the block.

        Returns:
          Seconds per step.
        """
        steps, untimed = max(1, round(seconds / self.step_s)), int(self.step_s < seconds)
        answer = self._ask(f"{untimed} {steps}")
        self.step_s, self.peak_mib = answer["seconds"] / steps, answer["peak_mib"]
        return self.step_s

    def time_block(self, seconds: float) -> None:
        """Times a block and keeps its seconds per step in `blocks`."""
        self.blocks.append(self.time_steps(seconds))

    def _ask(self, line: str) -> dict[str, Any]:
        with contextlib.suppress(OSError):  # If it is dead, it does not answer below.
            print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.stderr.seek(0)
            lines = self.stderr.read().strip().splitlines()
            raise WorkerError(f"failed: {(lines or [f'exit code {self.process.returncode}'])[-1]}")
        return json.loads(answer)


def make_worker_environment(spec: Spec) -> dict[str, str]:
    """Returns a worker's environment: no compile cache, and several processes fit on a GPU."""
    added = {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if spec.precision == "float32":  # As in our runs. A GPU's default is tensorfloat32.
        added["JAX_DEFAULT_MATMUL_PRECISION"] = "float32"
    return os.environ | UNFILTERED | added


def keep_fastest(workers: list[Worker], seconds: float) -> Worker:
    """Warms the workers up, ends all but the fastest, and returns that one.

    Each of several workers is timed for one block after the warm-up. A single worker is only warmed
    up.
    """
    for turn in range(3 if len(workers) > 1 else 2):
        for worker in workers:
            if turn >= 2:
                worker.time_block(seconds)
            # Where a step fills a block, the three first steps have warmed up enough.
            elif worker.step_s < seconds:
                worker.time_steps(seconds)
    best = min(workers, key=lambda worker: statistics.median(worker.blocks or [0]))
    for worker in workers:
        worker.blocks = []
        if worker is not best:
            worker.__exit__()
    return best
