"""The process of one peer, which `worker_process.Worker` starts with the name of the peer's module.

It imports the module and prints a line. Then it answers each line on stdin with one line of JSON on
stdout, and sleeps between them:

- The first line is the Spec as JSON. The worker takes three steps and answers with `first_s`, the
  seconds of the first, `losses`, those of all three, and `step_s`, the seconds of the third.
- Every other line holds two numbers of steps, of which only the second are timed. The worker
  answers with `seconds` and `peak_mib`.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Peer, Spec


def main() -> None:
    """Answers lines until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What a library prints goes to stderr, so that it is no answer.

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    module = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    answer(imported=module.__name__)
    spec = Spec(**json.loads(sys.stdin.readline()))
    spec = spec._replace(image=tuple(spec.image))
    with np.load(spec.weights) as weights:
        peer = module.make_peer(spec, dict(weights))
    (first_s, *_), _, (step_s, _) = steps = [time_steps(peer, 1) for _ in range(3)]
    answer(first_s=first_s, losses=[loss for _, loss in steps], step_s=step_s)
    for line in sys.stdin:
        untimed, timed = map(int, line.split())
        if untimed:
            time_steps(peer, untimed)
        seconds, _ = time_steps(peer, timed)
        peak = peer.read_peak_memory() or read_process_peak_memory()
        answer(seconds=seconds, peak_mib=peak / 2**20)


def time_steps(peer: Peer, steps: int) -> tuple[float, float]:
    """Takes some training steps; returns their seconds and their mean loss."""
    start = time.perf_counter()
    for _ in range(steps):
        peer.step()
    loss = peer.read_loss()
    return time.perf_counter() - start, loss


def read_process_peak_memory() -> int:
    """Returns the most memory that this process has held, in bytes."""
    # On Linux. getrusage would return the parent's peak where that is higher.
    with contextlib.suppress(OSError):
        line = next(
            row
            for row in Path("/proc/self/status").read_text().splitlines()
            if row.startswith("VmHWM")
        )
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


if __name__ == "__main__":
    main()
