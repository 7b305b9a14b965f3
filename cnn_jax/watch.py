"""Watches over a running loop: which phase it is in, whether it was told to stop, whether anything still moves.

SIGTERM (what a preempted machine gets) or SIGINT asks the loop to finish its step and save; a second one ends the
process at once, and so does GRACE seconds without an end, for a compiler or a file system does not listen.

Several processes must stop after the same step: there SIGTERM is left to JAX, which agrees with all on one when any of
them gets it, and SIGINT is made SIGTERM.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jax.experimental import multihost_utils

from cnn_jax import processes
from cnn_jax.config import STOPPED

GRACE = 8.0  # seconds


class StopError(Exception):
    """Raised in the phases that leave the state as it is, data and evaluate, when the loop is told to stop."""


class Watch(NamedTuple):
    """What the loop tells its watch, and asks it."""

    enter: Callable[[str], None]  # compile | data | step | evaluate | save: what it does from now on
    told: Callable[[int], str]  # after the step of this number: which signal told it to stop, or ""


@contextlib.contextmanager
def over(minutes: float) -> Iterator[Watch]:
    """A watch over what is done inside, on the main thread; elsewhere signals are left alone.

    minutes: without a new phase for so long, it says on stderr in which phase the loop is stuck, and again each time
    that this time has passed once more; 0: never.
    """
    now = {"phase": "start", "since": time.monotonic(), "signal": ""}

    def enter(phase: str) -> None:
        now.update(phase=phase, since=time.monotonic())
        if now["signal"] and phase in ("data", "evaluate"):
            raise StopError(now["signal"])

    def told(step: int) -> str:
        if several:
            return "SIGTERM" * multihost_utils.reached_preemption_sync_point(step)
        return now["signal"]

    def asked(number: int, _: object) -> None:
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        now["signal"] = signal.Signals(number).name
        if now["phase"] in ("data", "evaluate"):
            raise StopError(now["signal"])

    over_now, several = threading.Event(), processes.several()
    if minutes:
        threading.Thread(target=_stuck, args=(now, 60 * minutes, over_now), daemon=True).start()
    main = threading.current_thread() is threading.main_thread()
    try:
        numbers = (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT)
        with _signals(asked, numbers) if main else contextlib.nullcontext():
            yield Watch(enter, told)
    finally:
        over_now.set()


@contextlib.contextmanager
def _signals(asked: Callable[[int, object], None], numbers: tuple[int, ...]) -> Iterator[None]:
    """Python calls a handler between two of its own instructions; a thread sees the signal's byte at once."""
    before = {number: signal.signal(number, asked) for number in numbers}
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    woken = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_deadline, args=(reads, numbers), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        writes.close()


def _deadline(reads: socket.socket, numbers: tuple[int, ...]) -> None:
    with reads:
        while (byte := reads.recv(1)) and byte[0] not in numbers:
            pass
        if not byte:
            return  # the loop came to its end undisturbed
        print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)
        reads.settimeout(GRACE)
        with contextlib.suppress(TimeoutError):
            if not reads.recv(1):
                return
        os._exit(STOPPED)


def _stuck(now: dict, seconds: float, over_now: threading.Event) -> None:
    told = 0.0
    while not over_now.wait(min(seconds / 4, 10)):
        since = now["since"]
        if time.monotonic() - max(since, told) > seconds:
            minutes = (time.monotonic() - since) / 60
            words = f"nothing has moved for {minutes:.1f} minutes, in the phase: {now['phase']}"
            print(words, file=sys.stderr, flush=True)
            told = time.monotonic()
