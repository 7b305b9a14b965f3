"""One peer in a process of its own.

It answers each line on stdin with a line of JSON on stdout. The first line is the Spec as JSON; the
answer: {first_s, losses of the first three steps, step_s of the third}. Every other line is two
numbers of steps, of which only the second's are timed; the answer: {seconds, peak_mib}. Between
lines it sleeps.
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
    """Serves until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    spec = Spec(**json.loads(sys.stdin.readline()))
    spec = spec._replace(image=tuple(spec.image))
    module = importlib.import_module(f"benchmarks.peers.{spec.peer}")
    with np.load(spec.weights) as weights:
        peer = module.make(spec, dict(weights))
    (first_s, *_), _, (step_s, _) = steps = [timed(peer, 1) for _ in range(3)]
    say(first_s=first_s, losses=[loss for _, loss in steps], step_s=step_s)
    for line in sys.stdin:
        before, counted = map(int, line.split())
        if before:
            timed(peer, before)
        seconds, _ = timed(peer, counted)
        say(seconds=seconds, peak_mib=(peer.memory() or process_peak()) / 2**20)


def timed(peer: Peer, steps: int) -> tuple[float, float]:
    """The seconds that so many steps take, and their loss."""
    began = time.perf_counter()
    for _ in range(steps):
        peer.step()
    loss = peer.loss()
    return time.perf_counter() - began, loss


def process_peak() -> int:
    """The most memory in bytes that this process has held."""
    # Linux; getrusage would give the parent's peak where that is higher.
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
