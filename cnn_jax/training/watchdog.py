"""Watches the training loop: its phase, its progress, and signals that ask it to stop.

SIGTERM (sent to preempted machines), SIGINT (Ctrl-C) or SIGHUP (a closed terminal) asks the loop to
finish its step and save. A second signal ends the process at once. The process also ends when GRACE
seconds have passed since the first signal, because compilation and file I/O cannot be interrupted.

Several processes that train together must stop after the same step. JAX then handles SIGTERM: when
any process gets it, all processes agree on a step. SIGINT and SIGHUP are converted to SIGTERM.
There is no deadline; a second signal ends a process (see `distributed`).
"""

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jax.experimental import multihost_utils

from cnn_jax import distributed
from cnn_jax.errors import STOPPED

GRACE = 8.0  # Seconds.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SYNC_POINTS = itertools.count(1)  # JAX takes consecutive numbers, unrelated to runs or steps.


class StopError(Exception):
    """Raised in the loop when a signal stops a phase that does not change the state.

    These phases are data and evaluate.
    """


class Watch(NamedTuple):
    """The functions by which the loop reports to its watch.

    Attributes:
      enter: Begins a phase: compile | data | step | evaluate | save.
      stop_requested: Returns the name of the signal that asked to stop, or "". The loop calls it
        after each step, and each of several processes equally often.
    """

    enter: Callable[[str], None]
    stop_requested: Callable[[], str]


@contextlib.contextmanager
def watch(minutes: float) -> Iterator[Watch]:
    """Watches the code inside the `with` block. Signals are handled only on the main thread.

    Args:
      minutes: After this many minutes without a new phase, and again after as many more, a line on
        stderr says in which phase the loop is stuck; 0: never.

    Yields:
      The functions by which the loop reports to its watch.
    """
    now: dict[str, Any] = {"phase": "start", "since": time.monotonic(), "signal": ""}

    def enter(phase: str) -> None:
        now.update(phase=phase, since=time.monotonic())
        if now["signal"] and phase in ("data", "evaluate"):
            raise StopError(now["signal"])

    def stop_requested() -> str:
        if several:
            reached = multihost_utils.reached_preemption_sync_point(next(_SYNC_POINTS))
            return "SIGTERM" if reached else ""
        return now["signal"]

    def note_signal(number: int, _: object) -> None:
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        now["signal"] = signal.Signals(number).name
        if now["phase"] in ("data", "evaluate"):
            raise StopError(now["signal"])

    ended, several = threading.Event(), distributed.is_distributed()
    if minutes:
        threading.Thread(target=_report_stuck, args=(now, 60 * minutes, ended), daemon=True).start()
    main = threading.current_thread() is threading.main_thread()
    try:
        with contextlib.ExitStack() as stack:
            if main:
                stack.enter_context(
                    _handle_signals(
                        note_signal, (signal.SIGINT, signal.SIGHUP) if several else STOP_SIGNALS
                    )
                )
            if main and not several:
                stack.enter_context(_set_deadline())
            yield Watch(enter, stop_requested)
    finally:
        ended.set()


@contextlib.contextmanager
def _handle_signals(
    handle: Callable[[int, object], None], numbers: tuple[int, ...]
) -> Iterator[None]:
    # Ignored signals stay ignored: under nohup a run ignores SIGHUP.
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _set_deadline() -> Iterator[None]:
    """Ends the process GRACE seconds after a signal if it is still running.

    A thread waits for the signal and sees it at once. Python calls the handler of a signal only
    between two of its own instructions, which may be too late.
    """
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    woken = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_grace, args=(reads,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        writes.close()


def _end_after_grace(reads: socket.socket) -> None:
    """Waits for a signal's byte, and ends the process at the second one or after GRACE seconds."""
    with reads:
        while (byte := reads.recv(1)) and byte[0] not in STOP_SIGNALS:
            pass
        if not byte:
            return  # The loop ended normally.
        print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)
        reads.settimeout(GRACE)
        with contextlib.suppress(TimeoutError):
            if not reads.recv(1):
                return
        os._exit(STOPPED)


def _report_stuck(now: dict, seconds: float, ended: threading.Event) -> None:
    """Says on stderr, until the loop has ended, when a phase has lasted for so many seconds."""
    told = 0.0
    while not ended.wait(min(seconds / 4, 10)):
        since = now["since"]
        if time.monotonic() - max(since, told) > seconds:
            minutes = (time.monotonic() - since) / 60
            words = f"nothing has moved for {minutes:.1f} minutes, in the phase: {now['phase']}"
            print(words, file=sys.stderr, flush=True)
            told = time.monotonic()
