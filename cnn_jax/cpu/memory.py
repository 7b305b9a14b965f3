"""Memory on CPUs: the process keeps what a step frees for the next step, within a limit.

`keep_memory` sets glibc's malloc, and `Trimmer` limits what it keeps. benchmarks/README.md has the
measurements.
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from cnn_jax.cpu import settings

# A process is trimmed when it holds more than this many times the memory that a step needs.
MAX_RATIO = 2.0
# The process's size is read at most this often, because a small step takes less time than that.
SECONDS_BETWEEN_READINGS = 0.05
# The process is trimmed before each of the first calls, and the last of them is timed.
FIRST_CALLS = 3
# Calls that take at least so long wait for the memory of the last one.
SECONDS_OF_SLOW_CALL = 0.1
# XLA frees a call's temporary arrays shortly after its results are ready.
SECONDS_TO_FREE = 0.001

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

_is_kept = False  # Whether this process keeps its memory.


def keep_memory(values: int) -> None:
    """Stops glibc's malloc from returning freed memory to the system, until the process ends.

    XLA allocates the temporary arrays of a step, hundreds of megabytes, again in each step. By
    default glibc returns them to the system each time, and the system must zero and map every page
    again. The price is that the process keeps the memory of steps that overlap; `Trimmer` limits
    that, and returns memory when the process has grown.
    A thread that has allocated before this call has an arena of its own, in which every block of
    more than 64 MB is mapped anew. An evaluation by views therefore calls this function before JAX
    starts: JAX's threads allocate such blocks for dense views, though not in training.
    There is also only one arena, for which threads wait. This makes small batches slower (LeNet-5
    at batch 1: half the speed) and others 10% faster.

    Args:
      values: Number of values of a batch, B * H * W * C. Nothing changes if it is less than
        `settings.MIN_BATCH_VALUES`, if JAX computes on another device than a CPU, or if the C
        library is not glibc on Linux.
    """
    if values < settings.MIN_BATCH_VALUES or not sys.platform.startswith("linux"):
        return
    if not settings.computes_on_cpu():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)  # No limit.
        mallopt(M_ARENA_MAX, 1)
        global _is_kept
        _is_kept = True


class Trimmer:
    """Keeps a process at the memory that one call of a compiled function needs; see `keep_memory`.

    The function is a training step, or an evaluation's function that scores a batch of views.

    JAX returns before a call has ended, and the next call allocates its temporary arrays while the
    last one still has its own. The process then keeps two blocks of them, and with more cores more.
    Where calls are slow, `prepare_call` therefore waits until the last one has freed its arrays,
    which costs less than 1% of the time. It also returns all free memory to the system before the
    first calls, because the compiler leaves some, and when the process has grown by the factor
    `MAX_RATIO`. The call that follows such a return can take a third longer.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._is_slow = False
        self._began_at = 0.0  # When the last call began, in seconds.
        self._read_at = 0.0  # When the process's size was last read, in seconds.
        self._settled: int | None = None  # Its size when a call had its memory, in bytes.

    def prepare_call(self, state: Any) -> None:
        """Waits for the last call and trims the process, where that saves memory.

        Call this method before each call of the compiled function.

        Args:
          state: The arrays that the last call returned. JAX may still be computing them.
        """
        if not _is_kept:
            return
        calls, self._calls = self._calls, self._calls + 1
        if self._is_slow or 0 < calls <= FIRST_CALLS:
            jax.block_until_ready(state)
            if calls == FIRST_CALLS:
                seconds = time.perf_counter() - self._began_at
                self._is_slow = seconds >= SECONDS_OF_SLOW_CALL
            time.sleep(SECONDS_TO_FREE)
        if calls < FIRST_CALLS or self._has_grown():
            jax.block_until_ready(state)
            _trim()
            self._settled = None
        elif self._settled is None:  # The last call has taken its memory again.
            self._settled = read_resident_size()
        self._began_at = time.perf_counter()

    def _has_grown(self) -> bool:
        now = time.perf_counter()
        if self._settled is None or now - self._read_at < SECONDS_BETWEEN_READINGS:
            return False
        self._read_at = now
        return read_resident_size() > MAX_RATIO * self._settled


def trim_before_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the compiled function with a `Trimmer` of its own, which prepares each call."""
    trimmer, last = Trimmer(), None

    def call(*arguments: Any) -> Any:
        nonlocal last
        trimmer.prepare_call(last)
        last = function(*arguments)
        return last

    return call


def trim_after_compiling(function: Any) -> Any:
    """Wraps a jitted function so that its first call returns the compiler's memory to the system.

    The compiler leaves hundreds of megabytes of free memory in pieces, and the temporary arrays of
    the first call do not fit into them. The process would then hold both.

    Args:
      function: The result of `jax.jit`.

    Returns:
      A `TrimmedFunction`, or the function itself if the process does not keep its memory.
    """
    return TrimmedFunction(function) if _is_kept else function


class TrimmedFunction:
    """A jitted function that is compiled before its first call, after which memory is trimmed."""

    def __init__(self, function: Any) -> None:
        """Wraps the function. Nothing is compiled yet.

        Args:
          function: The result of `jax.jit`.
        """
        self._function, self._is_compiled = function, False

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function, and compiles it first if this is the first call."""
        if not self._is_compiled:
            self._function.lower(*arguments).compile()  # JAX keeps the program for the call.
            _trim()
            self._is_compiled = True
        return self._function(*arguments)

    def lower(self, *arguments: Any) -> Any:
        """Returns the function lowered for the arguments, as `jax.jit(...).lower` does."""
        return self._function.lower(*arguments)


def _trim() -> None:
    ctypes.CDLL(None).malloc_trim(0)


def read_resident_size() -> int:
    """Returns the memory that this process holds, in bytes. It works on Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
